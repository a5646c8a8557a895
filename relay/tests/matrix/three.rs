//! Three nodes, two copies at least: any one of them may go at any time.

use super::appliance::group::GroupShape;
use super::appliance::load::LoadShape;
use super::appliance::rights::has;
use super::appliance::{self, Random};
use super::{HOSTS, Scene, rounds};

/// Goal: whichever of three nodes is lost, and whenever, the flow goes on by itself, and everything released by then lies on two
/// disks at least. Method: in each round one node, chosen by the seed, is killed after an arbitrary amount of flow; at once all
/// three journals are read and searched for the newest message that each publisher was told to be released, and for the
/// newest one that was delivered.
#[test]
fn any_one_of_three_is_lost() {
    let mut random = Random::new(appliance::seed());
    let shape = GroupShape {
        nodes: 3,
        min_copies: 2,
        ..GroupShape::default()
    };
    let mut scene = Scene::on_loopback(&shape, &LoadShape::default());
    for round in 0..rounds(6) {
        let leader = scene.group.await_in_sync();
        scene.await_flow(20 + random.below(300));
        let victim = match round {
            0 => leader,
            1 => (leader + 1) % 3,
            _ => random.below(3) as usize,
        };
        scene.load.take_gap();
        let released = scene.load.history.acknowledged();
        let delivered = scene.load.history.newest_delivered();
        scene.group.nodes[victim].kill();
        let journals: Vec<_> = (0..3).map(|place| scene.node(place)).collect();
        for told in released.values() {
            let (publisher, number) = (told.publisher, told.publisher_seq);
            let copies = journals
                .iter()
                .filter(|j| j.holds_message(publisher, number));
            assert!(copies.count() >= 2, "{told:?} has too few copies");
        }
        if let Some(seen) = delivered {
            let copies = journals
                .iter()
                .filter(|journal| journal.holds(&seen).is_ok());
            assert!(copies.count() >= 2, "{seen:?} has too few copies");
        }
        scene.await_flow(50);
        let what = if victim == leader {
            "primary"
        } else {
            "standby"
        };
        println!("{what}: {:?} without delivery", scene.load.take_gap());
        scene.group.nodes[victim].start();
        scene.await_recovery();
    }
    scene.finish();
}

/// Goal: whichever of three hosts is cut off from everybody, the other two go on, and what they release lies on both. Method: in
/// each round one host, the primary's first.
#[test]
fn any_one_of_three_hosts_is_cut_off() {
    if !has(&HOSTS) {
        return;
    }
    let mut random = Random::new(appliance::seed());
    let shape = GroupShape {
        nodes: 3,
        min_copies: 2,
        ..GroupShape::default()
    };
    let mut scene = Scene::on_hosts(&shape, &LoadShape::default());
    for round in 0..rounds(3) {
        let leader = scene.group.await_in_sync();
        let victim = match round {
            0 => leader,
            _ => random.below(3) as usize,
        };
        scene.load.take_gap();
        scene.network().isolate(victim);
        scene.await_flow(100);
        scene.group.eventually("the other two are in sync", || {
            let leader = scene.group.leader().filter(|leader| *leader != victim);
            leader.is_some_and(|leader| scene.group.counter(leader, "group.members") == 2)
        });
        scene.await_flow(100);
        let what = if victim == leader {
            "primary"
        } else {
            "standby"
        };
        println!(
            "{what} cut off: {:?} without delivery",
            scene.load.take_gap()
        );
        scene.network().heal();
        scene.await_recovery();
    }
    scene.finish();
}
