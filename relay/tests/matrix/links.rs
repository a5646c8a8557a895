//! Links that are cut, one way or both, lose packets or are slow. Every node, the witness and the clients have hosts of their own.

use std::time::Instant;

use super::appliance::group::GroupShape;
use super::appliance::load::LoadShape;
use super::appliance::rights::has;
use super::{HOSTS, SUSPECTED, Scene, rounds};

fn scene() -> Scene {
    Scene::on_hosts(&GroupShape::default(), &LoadShape::default())
}

/// Lets messages flow for so long that every suspicion has come to its end.
fn outlast_suspicion(scene: &Scene) {
    let begun = Instant::now();
    while begun.elapsed() < SUSPECTED {
        scene.await_flow(20);
    }
}

/// Goal: with the link between the nodes cut, one of them goes on alone, the other waits; with the link back both are in sync.
#[test]
fn the_link_between_the_nodes_is_cut() {
    if !has(&HOSTS) {
        return;
    }
    let mut scene = scene();
    for _ in 0..rounds(2) {
        let leader = scene.group.await_in_sync();
        scene.load.take_gap();
        scene.network().cut(leader, 1 - leader);
        scene.group.eventually("one goes on alone", || {
            let leader = scene.group.leader();
            leader.is_some_and(|leader| scene.group.counter(leader, "group.members") == 1)
        });
        outlast_suspicion(&scene);
        println!(
            "between the nodes: {:?} without delivery",
            scene.load.take_gap()
        );
        let alone = scene.group.await_leader(None);
        scene.group.nodes[alone].await_log(&["is the only copy: bring the other nodes back"]);
        scene.network().heal();
        scene.await_recovery();
    }
    scene.finish();
}

/// Goal: with the arbiter out of reach of the primary, of the standby, or of both, messages flow as before, from the same primary,
/// and the log says that it is not reached.
#[test]
fn the_link_to_the_arbiter_is_cut() {
    if !has(&HOSTS) {
        return;
    }
    let mut scene = scene();
    let witness = scene.witness();
    let leader = scene.group.await_in_sync();
    for lost in [vec![leader], vec![1 - leader], vec![0, 1]] {
        for node in &lost {
            scene.network().cut(*node, witness);
        }
        let takeovers = |scene: &Scene| -> u64 {
            let of = |place| scene.group.counter(place, "group.takeovers");
            of(0) + of(1)
        };
        let before = takeovers(&scene);
        outlast_suspicion(&scene);
        for node in &lost {
            scene.group.eventually("the log says so", || {
                let log = scene.group.nodes[*node].log();
                let not = log.rfind("the arbiter is not reached");
                not > log.rfind("the arbiter is reached")
            });
        }
        outlast_suspicion(&scene);
        assert_eq!(takeovers(&scene), before, "{}", scene.group.logs());
        scene.network().heal();
        for node in &lost {
            scene.group.eventually("the log says that it is back", || {
                let log = scene.group.nodes[*node].log();
                let not = log.rfind("the arbiter is not reached");
                not < log.rfind("the arbiter is reached")
            });
        }
        scene.await_recovery();
    }
    scene.finish();
}

/// Goal: a primary that reaches neither standby nor arbiter, though its clients reach it, sends them to the one that took over, and
/// follows that one once it can.
#[test]
fn a_primary_cut_off_from_everybody_but_its_clients_lets_them_go() {
    if !has(&HOSTS) {
        return;
    }
    let mut scene = scene();
    let witness = scene.witness();
    for _ in 0..rounds(2) {
        let leader = scene.group.await_in_sync();
        scene.load.take_gap();
        scene.network().cut(leader, 1 - leader);
        scene.network().cut(leader, witness);
        scene.group.await_leader(Some(leader));
        outlast_suspicion(&scene);
        println!(
            "cut off from the group: {:?} without delivery",
            scene.load.take_gap()
        );
        scene.network().heal();
        scene.group.nodes[leader].await_log(&["another node leads a later epoch"]);
        scene.await_recovery();
    }
    scene.finish();
}

/// Goal: the loss of the primary's host, where no connection ends and every packet is lost, is survived like its death.
#[test]
fn the_primarys_host_is_lost() {
    if !has(&HOSTS) {
        return;
    }
    let mut scene = scene();
    for _ in 0..rounds(2) {
        let leader = scene.group.await_in_sync();
        scene.load.take_gap();
        scene.network().isolate(leader);
        scene.group.await_leader(Some(leader));
        outlast_suspicion(&scene);
        println!("host lost: {:?} without delivery", scene.load.take_gap());
        scene.network().heal();
        scene.await_recovery();
    }
    scene.finish();
}

/// Goal: a link that works in one direction only, between the nodes or to the arbiter, stops nothing for long.
#[test]
fn links_that_work_one_way_only() {
    if !has(&HOSTS) {
        return;
    }
    let mut scene = scene();
    let witness = scene.witness();
    for case in 0..6 {
        let leader = scene.group.await_in_sync();
        let standby = 1 - leader;
        let (from, to) = [
            (leader, standby),
            (standby, leader),
            (leader, witness),
            (witness, leader),
            (standby, witness),
            (witness, standby),
        ][case];
        scene.load.take_gap();
        scene.network().cut_one_way(from, to);
        outlast_suspicion(&scene);
        println!(
            "from {from} to {to}, the primary is {leader}: {:?} without delivery",
            scene.load.take_gap()
        );
        scene.network().heal();
        scene.await_recovery();
    }
    scene.finish();
}

/// Goal: links that lose packets at random, and a link to the standby that is slower than the flow, delay at most.
#[test]
fn slow_and_lossy_links() {
    if !has(&HOSTS) {
        return;
    }
    let mut scene = scene();
    let (witness, clients) = (scene.witness(), scene.witness() + 1);
    let leader = scene.group.await_in_sync();
    let standby = 1 - leader;
    scene.network().lose(leader, standby, 5);
    scene.network().lose(standby, leader, 5);
    outlast_suspicion(&scene);
    for (from, to) in [
        (0, witness),
        (witness, 1),
        (clients, leader),
        (leader, clients),
    ] {
        scene.network().lose(from, to, 5);
    }
    outlast_suspicion(&scene);
    println!("lossy: {:?} without delivery", scene.load.take_gap());
    scene.network().heal();
    let leader = scene.await_recovery();
    scene.load.take_gap();
    // A tenth of what flows.
    scene.network().slow(1 - leader, "256kbit");
    outlast_suspicion(&scene);
    scene.group.eventually("the slow one is left behind", || {
        let leader = scene.group.leader();
        leader.is_some_and(|leader| scene.group.counter(leader, "group.members") == 1)
    });
    outlast_suspicion(&scene);
    println!("slow: {:?} without delivery", scene.load.take_gap());
    scene.network().hasten(1 - leader);
    scene.await_recovery();
    scene.finish();
}
