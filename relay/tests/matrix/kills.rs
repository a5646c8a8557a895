//! Processes that are killed or frozen.

use relay_client::{OutMessage, Publisher, PublisherConfig, Start, Subscriber, SubscriberConfig};

use super::appliance::group::GroupShape;
use super::appliance::history::{History, Seen};
use super::appliance::load::LoadShape;
use super::appliance::{self, Random, credential};
use super::{Scene, rounds};

/// Whom a round kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Primary,
    Standby,
    Witness,
}

use Victim::{Primary, Standby, Witness};

/// Each of them, and every pair.
const ROUNDS: [&[Victim]; 6] = [
    &[Primary],
    &[Standby],
    &[Witness],
    &[Primary, Standby],
    &[Primary, Witness],
    &[Standby, Witness],
];

/// Goal: SIGKILL of primary, standby, witness and every pair of them, in the middle of the flow, loses nothing; with one of
/// them gone messages flow on by themselves. Method: rounds in an order made from the seed (10, or `RELAY_ROUNDS`), each kind
/// at least once; whoever was killed is started again in either order.
#[test]
fn any_of_them_and_any_two_are_killed() {
    let mut random = Random::new(appliance::seed());
    let mut scene = Scene::on_loopback(&GroupShape::default(), &LoadShape::default());
    for round in 0..rounds(10) {
        let kind = match round {
            0..6 => ROUNDS[round as usize],
            _ => ROUNDS[random.below(6) as usize],
        };
        let leader = scene.group.await_in_sync();
        scene.await_flow(20 + random.below(200));
        scene.load.take_gap();
        let mut killed = Vec::new();
        for victim in kind {
            match victim {
                Primary => killed.push(leader),
                Standby => killed.push(1 - leader),
                Witness => scene.group.witness.kill(),
            }
        }
        for place in &killed {
            scene.group.nodes[*place].kill();
        }
        // With two of three gone, only a primary that stood alone by its own record could go on: nobody has to.
        if kind.len() == 1 {
            scene.await_flow(50);
        }
        if random.below(2) == 0 {
            killed.reverse();
        }
        if kind.contains(&Witness) {
            scene.group.witness.start();
        }
        for place in killed {
            scene.group.nodes[place].start();
        }
        scene.await_recovery();
        println!("{kind:?}: {:?} without delivery", scene.load.take_gap());
    }
    scene.finish();
}

/// Stops a process, all of its threads.
fn freeze(pid: i32) {
    appliance::signal(pid, libc::SIGSTOP);
    appliance::eventually("every thread has stopped", || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.flatten().all(|thread| {
            // One that ends meanwhile has no state any more.
            let status = std::fs::read_to_string(thread.path().join("status"));
            status.map_or(true, |status| status.contains("State:\tT"))
        })
    });
}

/// What came to a subscriber that polls.
fn note_all(subscriber: &mut Subscriber, place: usize, history: &History) {
    while let Ok(Some(delivery)) = subscriber.poll() {
        history.note_delivered(place, Seen::of(&delivery.record));
    }
}

/// Goal: a primary that was frozen while another took over releases nothing of its own when it wakes: of the messages that lay in
/// its socket none reaches a subscriber, none is acknowledged. What its standby had acknowledged before it took over may still
/// go out, for the new primary has it; so all that it delivers stands in everybody's journal at that seq. Method: SIGSTOP, a
/// takeover, SIGCONT; two clients that know only the frozen node.
#[test]
fn a_frozen_primary_releases_nothing_of_its_own() {
    let scene = Scene::on_loopback(&GroupShape::default(), &LoadShape::default());
    let history = scene.load.history.clone();
    for _ in 0..rounds(2) {
        let leader = scene.group.await_in_sync();
        let frozen = &scene.group.nodes[leader];
        let only = vec![frozen.address()];
        let mut publisher =
            Publisher::connect(PublisherConfig::new(only.clone(), credential("p7"), 7)).unwrap();
        let topic = publisher.topic("orders.late").unwrap();
        let patterns = vec![">".to_owned()];
        let config = SubscriberConfig::new(only, credential("p1"), patterns, Start::Earliest);
        let mut subscriber = Subscriber::connect(config).unwrap();
        let place = history.subscriber();
        scene.await_flow(20);
        freeze(frozen.pid());
        for number in 0..20_u64 {
            let payload = number.to_le_bytes();
            let late = OutMessage::new(topic, &payload);
            publisher.try_send(&late).unwrap();
            publisher.flush().unwrap();
        }
        scene.group.await_leader(Some(leader));
        scene.await_flow(100);
        let frozen = &scene.group.nodes[leader];
        appliance::signal(frozen.pid(), libc::SIGCONT);
        scene.group.eventually("it knows that another leads", || {
            let _ = publisher.poll();
            note_all(&mut subscriber, place, &history);
            frozen.log().contains("another node leads a later epoch")
        });
        assert_eq!(publisher.acked_through().get(), 0, "acknowledged late");
        scene.await_recovery();
        let _ = publisher.poll();
        assert_eq!(publisher.acked_through().get(), 0, "acknowledged late");
        note_all(&mut subscriber, place, &history);
    }
    // Compares what was delivered with the journals, which hold the load's messages and no others.
    scene.finish();
}

/// Goal: where a copy in memory is enough, the death of any one node loses nothing all the same, though its memory goes with it.
/// Method: primary and standby are killed by turns.
#[test]
fn memory_that_counts_as_a_copy_goes_with_its_process() {
    let mut shape = GroupShape::default();
    shape.shape.policy = Some("mirrored");
    let mut scene = Scene::on_loopback(&shape, &LoadShape::default());
    for round in 0..rounds(4) {
        let leader = scene.group.await_in_sync();
        scene.await_flow(100);
        let victim = (leader + round as usize) % 2;
        scene.group.nodes[victim].kill();
        scene.await_flow(50);
        scene.group.nodes[victim].start();
        scene.await_recovery();
    }
    scene.finish();
}

/// Goal: a standby that acknowledges nothing, though its host takes every byte, is left behind where one copy is enough; where two
/// are asked for nothing is released, and all of it goes on when it acknowledges again. Method: it is frozen.
#[test]
fn a_standby_acknowledges_nothing() {
    for min_copies in [1, 2] {
        let shape = GroupShape {
            min_copies,
            ..GroupShape::default()
        };
        let scene = Scene::on_loopback(&shape, &LoadShape::default());
        let leader = scene.group.await_in_sync();
        let standby = scene.group.nodes[1 - leader].pid();
        freeze(standby);
        if min_copies == 1 {
            scene.group.eventually("it is left behind", || {
                scene.group.counter(leader, "group.members") == 1
            });
            scene.await_flow(100);
        } else {
            let counter = |label| scene.group.counter(leader, label);
            // What was acknowledged before the freeze may still be on its way to the primary.
            scene.group.eventually("the last is heard of", || {
                let released = counter("position.released");
                counter("position.durable") > released + 10 * 4096
            });
            let released = counter("position.released");
            scene.group.eventually("the primary writes on", || {
                counter("position.durable") > released + 60 * 4096
            });
            let now_released = counter("position.released");
            assert_eq!(now_released, released, "{}", scene.group.logs());
        }
        appliance::signal(standby, libc::SIGCONT);
        scene.await_recovery();
        scene.finish();
    }
}
