//! Goal: a group of nodes loses, duplicates and reorders nothing, whichever of them is killed, frozen, replaced or handed over,
//! and goes on by itself. Method: real processes on loopback (a witness, two or three `relayd`), clients that know all
//! addresses, faults in the middle of the flow, and a comparison of all journals afterwards.

mod appliance;

use std::time::Duration;

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

/// Goal: the primary is killed in the middle of the flow, the other takes over, the killed one comes back and catches up, then
/// the second is killed too: nothing is lost, duplicated or reordered, and both journals are the same in the end.
#[test]
fn each_primary_in_turn_is_killed() {
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::started(&group.addresses(), 1_000);
    flow.await_more(200);
    for round in 0..2 {
        let leader = group.await_leader(None);
        flow.take_gap();
        group.nodes[leader].kill();
        flow.await_more(200);
        println!("round {round}: {:?} without delivery", flow.take_gap());
        assert_ne!(group.await_leader(Some(leader)), leader);
        group.nodes[leader].start();
        group.await_in_sync();
        flow.await_more(100);
    }
    let sent = flow.finish();
    assert!(sent > 500);
    assert!(group.stop_and_compare() > 0);
}

const _: Duration = Duration::ZERO;
