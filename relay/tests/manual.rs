//! Goal: where an operator is the arbiter nothing is taken over without his word, nothing is lost with it, and the group goes on
//! by itself after restarts. Method: real pairs without a witness, a flow through both nodes, words over the operator's socket.

mod appliance;

use appliance::flow::Flow;
use appliance::group::{ALERT, Group, GroupShape, LEADING, admin};
use appliance::{relayd, run, text};

/// What `group.obstacle` counts.
const WAITS_FOR_OPERATOR: u64 = 1;
const DONE: &str = "{\"ok\":true}";

fn pair() -> Group {
    Group::started(&GroupShape {
        manual: true,
        more: ALERT.to_owned(),
        ..GroupShape::default()
    })
}

fn await_waiting(group: &Group, place: usize) {
    group.eventually("it waits for the operator", || {
        group.counter(place, "group.obstacle") == WAITS_FOR_OPERATOR
    });
    assert_ne!(group.counter(place, "group.standing"), LEADING);
}

/// Goal: the standby stays put when the primary dies and says what to do; promoted, it goes on without a loss; the old primary comes back
/// as a follower; and all of it again the other way round.
#[test]
fn a_standby_takes_over_on_a_word_alone() {
    let mut group = pair();
    let flow = Flow::on(&group, 500);
    for first in [0, 1] {
        let other = 1 - first;
        flow.await_more(100);
        let refused = admin(&group.nodes[other], "promote");
        assert!(refused.contains("leads and is heard"), "{refused}");
        group.nodes[first].kill();
        await_waiting(&group, other);
        group.nodes[other].await_log(&["relay promote"]);
        assert_eq!(admin(&group.nodes[other], "promote"), DONE);
        flow.await_more(100);
        group.nodes[first].start();
        assert_eq!(group.await_in_sync(), other);
    }
    flow.await_more(100);
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: both nodes may be killed and come back in either order, with the primary they had, also after that was changed by a word.
#[test]
fn both_come_back_in_either_order() {
    let mut group = pair();
    let flow = Flow::on(&group, 500);
    for (leader, order) in [(0, [0, 1]), (0, [1, 0]), (1, [0, 1]), (1, [1, 0])] {
        flow.await_more(50);
        if group.await_in_sync() != leader {
            let word = format!("hand-over {}", leader + 1);
            assert_eq!(admin(&group.nodes[1 - leader], &word), DONE);
            assert_eq!(group.await_leader(Some(1 - leader)), leader);
            flow.await_more(50);
            group.await_in_sync();
        }
        for place in order {
            group.nodes[place].kill();
        }
        for place in order {
            group.nodes[place].start();
        }
        assert_eq!(group.await_in_sync(), leader, "started in order {order:?}");
        flow.await_more(50);
    }
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: a node that can't know whether others went on without it leads only with the loss accepted, by its own number, and the journal says
/// so. Method: the standby is restarted alone; nothing was published meanwhile, so that nothing is lost in the end.
#[test]
fn a_node_that_followed_nobody_is_promoted_with_the_loss_accepted() {
    let mut group = pair();
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    flow.finish();
    for place in [0, 1] {
        group.nodes[place].kill();
    }
    group.nodes[1].start();
    await_waiting(&group, 1);
    let refused = admin(&group.nodes[1], "promote");
    assert!(refused.contains("could lose messages"), "{refused}");
    let refused = admin(&group.nodes[1], "promote accept-loss 1");
    assert!(refused.contains("this is node 2"), "{refused}");
    assert_eq!(admin(&group.nodes[1], "promote accept-loss 2"), DONE);
    assert_eq!(group.await_leader(None), 1);
    group.nodes[0].start();
    assert_eq!(group.await_in_sync(), 1);
    assert!(group.stop_and_compare() > 0);
}

/// Goal: the record is made once, and on the node that leads first.
#[test]
fn the_record_is_made_on_the_first_primary_once() {
    let group = Group::formed(&GroupShape {
        manual: true,
        ..GroupShape::default()
    });
    for (place, expected) in [(0, "has a record already"), (1, "run this on node 1")] {
        let mut command = relayd();
        command
            .arg("init-group")
            .arg("--config")
            .arg(group.nodes[place].config_path());
        for node in &group.nodes {
            command.arg("--journal").arg(node.directory());
        }
        let output = run(&mut command);
        assert!(!output.status.success());
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
}
