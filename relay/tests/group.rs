//! Goal: a group of nodes loses, duplicates and reorders nothing, whichever of them is killed, frozen, replaced or handed over,
//! and goes on by itself. Method: real processes on loopback (a witness, two or three `relayd`), clients that know all
//! addresses, faults in the middle of the flow, and a comparison of all journals afterwards.

mod appliance;

use appliance::flow::Flow;
use appliance::group::{Group, GroupShape};

/// Goal: the nodes of a group may be started in any order, and become one in-sync set.
#[test]
fn nodes_start_in_any_order() {
    for order in [[0, 1], [1, 0]] {
        let mut group = Group::formed(&GroupShape::default());
        for place in order {
            group.nodes[place].start();
        }
        group.await_in_sync();
        let flow = Flow::started(&group.addresses(), 500);
        flow.await_more(50);
        flow.finish();
        assert!(group.stop_and_compare() > 0);
    }
}

/// Goal: the primary is killed in the middle of the flow, the other takes over, the killed one comes back, catches up and is taken in,
/// and so on by turns: nothing is lost, duplicated or reordered, and both journals are the same in the end. Method: ten kills
/// (RELAY_TEST_KILLS for another number); the times without delivery are printed.
#[test]
fn each_primary_in_turn_is_killed() {
    let kills = std::env::var("RELAY_TEST_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::started(&group.addresses(), 1_000);
    flow.await_more(200);
    let mut outages = Vec::new();
    for _ in 0..kills {
        let leader = group.await_leader(None);
        flow.take_gap();
        group.nodes[leader].kill();
        flow.await_more(50);
        outages.push(flow.take_gap());
        assert_ne!(group.await_leader(Some(leader)), leader);
        group.nodes[leader].start();
        group.await_in_sync();
        flow.await_more(50);
    }
    outages.sort_unstable();
    println!(
        "without delivery after each of {kills} kills: median {:?}, all {outages:?}",
        outages[kills / 2]
    );
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}
