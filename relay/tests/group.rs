//! Goal: a group of nodes loses, duplicates and reorders nothing, whichever of them is killed, frozen, replaced or handed over,
//! and goes on by itself. Method: real processes on loopback (a witness, two or three `relayd`), clients that know all
//! addresses, faults in the middle of the flow, and a comparison of all journals afterwards.

mod appliance;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::Command;

use appliance::flow::Flow;
use appliance::group::{ALERT, Group, GroupShape, LEADING, admin, has_file};
use appliance::{Appliance, LIMIT, send, signal, text};
use relay_wire::peer::HELLO_LENGTH;

/// Goal: the nodes of a group may be started in any order, and become one in-sync set.
#[test]
fn nodes_start_in_any_order() {
    for order in [[0, 1], [1, 0]] {
        let mut group = Group::formed(&GroupShape::default());
        for place in order {
            group.nodes[place].start();
        }
        group.await_in_sync();
        let flow = Flow::on(&group, 500);
        flow.await_more(50);
        flow.finish();
        assert!(group.stop_and_compare() > 0);
    }
}

/// Goal: a log that nobody reads stops nothing: the other node takes over, and the lost one is taken in again. Method: standard error of both
/// is a pipe that is full from the start.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let mut group = Group::formed(&GroupShape::default());
    let mut pipes = Vec::new();
    for node in &mut group.nodes {
        let path = node.home.path().join("unread");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let options = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .clone();
        let mut pipe = options.open(&path).unwrap();
        while pipe.write(&[b'x'; 4096]).is_ok() {}
        pipes.push(pipe);
        let log = std::mem::replace(&mut node.log_path, path);
        node.start();
        node.log_path = log;
    }
    group.await_in_sync();
    let flow = Flow::on(&group, 500);
    flow.await_more(50);
    let leader = group.await_leader(None);
    group.nodes[leader].kill();
    flow.await_more(50);
    group.nodes[leader].start();
    group.await_in_sync();
    flow.await_more(50);
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: the primary is killed in the middle of the flow, the other takes over, the killed one comes back, catches up and is taken in,
/// and so on by turns: nothing is lost, duplicated or reordered, and both journals are the same in the end. Method: ten kills
/// (RELAY_TEST_KILLS for another number); the times without delivery are printed.
#[test]
fn each_primary_in_turn_is_killed() {
    let kills = std::env::var("RELAY_TEST_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::on(&group, 1_000);
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

/// Goal: a frozen primary is taken over from, and once it wakes it releases nothing late, follows and is taken in again. Method: SIGSTOP
/// in the middle of the flow, SIGCONT when the other leads.
#[test]
fn a_frozen_primary_is_taken_over_from() {
    let mut wanted = GroupShape {
        more: ALERT.to_owned(),
        ..GroupShape::default()
    };
    wanted.shape.limits = wanted.shape.limits.replace("= 500", "= 100");
    let mut group = Group::started(&wanted);
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    let leader = group.await_in_sync();
    flow.take_gap();
    signal(group.nodes[leader].pid(), libc::SIGSTOP);
    group.await_leader(Some(leader));
    flow.await_more(100);
    println!("without delivery after a freeze: {:?}", flow.take_gap());
    signal(group.nodes[leader].pid(), libc::SIGCONT);
    assert_ne!(group.await_in_sync(), leader);
    flow.await_more(100);
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: a frozen standby holds the flow up for a moment only, and comes back.
#[test]
fn a_frozen_standby_is_left_behind_and_taken_in_again() {
    let mut group = Group::started(&GroupShape {
        more: ALERT.to_owned(),
        ..GroupShape::default()
    });
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    let leader = group.await_in_sync();
    let standby = 1 - leader;
    signal(group.nodes[standby].pid(), libc::SIGSTOP);
    group.eventually("the standby is dropped", || {
        group.counter(leader, "group.members") == 1
    });
    flow.await_more(100);
    signal(group.nodes[standby].pid(), libc::SIGCONT);
    assert_eq!(group.await_in_sync(), leader);
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: after a power cut of both nodes they go on in whatever order they come back, without loss.
#[test]
fn both_nodes_are_killed_and_come_back_in_either_order() {
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::on(&group, 500);
    for order in [[0, 1], [1, 0]] {
        flow.await_more(100);
        for place in order {
            group.nodes[place].kill();
        }
        for place in order {
            group.nodes[place].start();
        }
        group.await_in_sync();
    }
    flow.await_more(100);
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: a node that was not in the in-sync set when everything stopped does not lead, whatever order they come back in
/// (rule R19). Method: one is killed, the other goes on alone and is killed too, then the one that lacks something starts first.
#[test]
fn only_the_node_that_was_alone_last_may_lead() {
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    let first = group.await_leader(None);
    let last = 1 - first;
    group.nodes[first].kill();
    flow.await_more(100);
    group.nodes[last].kill();
    group.nodes[first].start();
    group.eventually("it knows who may lead", || {
        group.counter(first, "group.primary") == last as u64 + 1
            && group.counter(first, "group.arbiter_heard_ns") > 0
    });
    assert_ne!(group.counter(first, "group.standing"), LEADING);
    group.nodes[last].start();
    assert_eq!(group.await_in_sync(), last);
    flow.await_more(100);
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: a node whose disk was replaced gets everything again and is taken in as another copy.
#[test]
fn a_blank_disk_catches_up_from_the_first_block() {
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::on(&group, 1_000);
    flow.await_more(2_000);
    let leader = group.await_leader(None);
    let standby = 1 - leader;
    group.nodes[standby].kill();
    flow.await_more(100);
    std::fs::remove_dir_all(group.nodes[standby].directory()).unwrap();
    let output = group.nodes[standby].relayd("format");
    assert!(output.status.success(), "format: {}", text(&output));
    group.nodes[standby].start();
    assert_eq!(group.await_in_sync(), leader);
    // And it can be counted on.
    group.nodes[leader].kill();
    flow.await_more(100);
    group.nodes[leader].start();
    group.await_in_sync();
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: a node catches up over records that are longer than what is taken now. Method: the limit is lowered while one node has nothing
/// yet, on both or on that one alone.
#[test]
fn a_blank_disk_catches_up_over_longer_records_than_are_taken() {
    for are_both_lowered in [true, false] {
        let mut wanted = GroupShape::default();
        let usual = wanted.shape.limits.clone();
        wanted.shape.limits = format!("{usual}\npayload = \"512KiB\"");
        let mut group = Group::started(&wanted);
        let leader = group.await_in_sync();
        let standby = 1 - leader;
        let mut publisher = group.nodes[leader].publisher(1);
        let topic = publisher.topic("orders.a").unwrap();
        send(&mut publisher, topic, &vec![7; 512 << 10]);
        assert!(publisher.wait_released(LIMIT).unwrap());
        publisher.close().unwrap();
        group.nodes[standby].kill();
        group.nodes[leader].kill();
        std::fs::remove_dir_all(group.nodes[standby].directory()).unwrap();
        for place in [leader, standby] {
            if place == standby || are_both_lowered {
                group.nodes[place].shape.limits = format!("{usual}\npayload = \"1KiB\"");
                group.nodes[place].write_config();
            }
        }
        let output = group.nodes[standby].relayd("format");
        assert!(output.status.success(), "format: {}", text(&output));
        group.nodes[leader].start();
        group.nodes[standby].start();
        group.await_in_sync();
        let log = group.nodes[leader].log();
        assert!(!log.contains("damaged"), "{log}");
        assert!(group.stop_and_compare() > 0);
    }
}

/// Goal: what a primary wrote and nobody else has is cut when it comes back, set aside, and sent again by its publisher. Method: two
/// copies are asked for; the standby is frozen while the primary writes, both are killed, the standby comes back first.
#[test]
fn a_tail_nobody_else_has_is_set_aside() {
    let wanted = GroupShape {
        min_copies: 2,
        ..GroupShape::default()
    };
    let mut group = Group::started(&wanted);
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    let first = group.await_leader(None);
    let second = 1 - first;
    signal(group.nodes[second].pid(), libc::SIGSTOP);
    group.eventually("the primary is ahead", || {
        let released = group.counter(first, "position.released");
        group.counter(first, "position.durable") > released + 10 * 4096
    });
    // What lies in the frozen one's socket goes with it.
    group.nodes[first].kill();
    group.nodes[second].kill();
    group.nodes[second].start();
    assert_eq!(group.await_leader(None), second);
    group.nodes[first].start();
    assert_eq!(group.await_in_sync(), second, "{}", group.logs());
    assert!(
        has_file(&group.nodes[first], "set-aside-"),
        "{}",
        group.logs()
    );
    flow.await_more(100);
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: without the arbiter the flow goes on, and once it is back a takeover works.
#[test]
fn the_flow_does_not_need_the_witness() {
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    group.witness.kill();
    flow.await_more(500);
    group.witness.start();
    let leader = group.await_leader(None);
    group.nodes[leader].kill();
    flow.await_more(100);
    group.nodes[leader].start();
    group.await_in_sync();
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: of three nodes with two copies asked for, any one is lost and the flow goes on.
#[test]
fn of_three_nodes_any_one_may_be_lost() {
    let wanted = GroupShape {
        nodes: 3,
        min_copies: 2,
        ..GroupShape::default()
    };
    let mut group = Group::started(&wanted);
    let flow = Flow::on(&group, 500);
    for _ in 0..3 {
        flow.await_more(100);
        let leader = group.await_leader(None);
        group.nodes[leader].kill();
        flow.await_more(100);
        group.nodes[leader].start();
        group.await_in_sync();
    }
    let leader = group.await_leader(None);
    let standby = (leader + 1) % 3;
    group.nodes[standby].kill();
    flow.await_more(100);
    group.nodes[standby].start();
    group.await_in_sync();
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: a primary that is stopped hands over first.
#[test]
fn a_primary_that_is_stopped_hands_over() {
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    let leader = group.await_leader(None);
    flow.take_gap();
    assert!(group.nodes[leader].stop().success(), "{}", group.logs());
    flow.await_more(100);
    println!(
        "without delivery while a stop hands over: {:?}",
        flow.take_gap()
    );
    group.nodes[leader].start();
    group.await_in_sync();
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: whoever does not know the secret learns nothing on the mirror port, and disturbs nothing. Method: silent strangers, more of them
/// than there are places, one that sends noise, one that sends half a HELLO.
#[test]
fn strangers_on_the_mirror_port_get_nothing() {
    let mut wanted = GroupShape::default();
    // A client that leaves a slow relay is not what is looked at.
    wanted.shape.limits = wanted.shape.limits.replace("= 500", "= 20000");
    let mut group = Group::started(&wanted);
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    for port in group.mirror_ports.clone() {
        let mut strangers: Vec<TcpStream> = (0..40)
            .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
            .collect();
        // A peer may just have been closed on: writing to it is no error of the test's.
        let _ = strangers[38].write_all(&[0xa5; 4_096]);
        let _ = strangers[39].write_all(&(80_u32).to_le_bytes());
        for stranger in &mut strangers {
            stranger.set_read_timeout(Some(LIMIT)).unwrap();
            let mut told = Vec::new();
            // Each is closed on, at the latest when its time for the handshake is over.
            let _ = stranger.read_to_end(&mut told);
            assert!(told.len() <= HELLO_LENGTH, "{} bytes were told", told.len());
        }
    }
    flow.await_more(100);
    assert_eq!(flow.losses(), 0);
    group.await_in_sync();
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: an operator's word lets another node lead while messages flow, without an error at any client; the node that handed over follows
/// and is taken in again; and only the relay's own user may say such words.
#[test]
fn a_primary_hands_over_on_an_operators_word() {
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::on(&group, 1_000);
    for _ in 0..4 {
        flow.await_more(100);
        let leader = group.await_in_sync();
        let other = 1 - leader;
        let refused = admin(&group.nodes[other], "hand-over");
        assert!(refused.contains("does not lead"), "{refused}");
        flow.take_gap();
        let answer = admin(&group.nodes[leader], &format!("hand-over {}", other + 1));
        assert_eq!(answer, "{\"ok\":true}");
        assert_eq!(group.await_leader(Some(leader)), other);
        flow.await_more(100);
        println!("without delivery while handed over: {:?}", flow.take_gap());
    }
    group.await_in_sync();
    flow.finish();
    let socket = group.nodes[0].directory().join("admin.sock");
    let mode = std::fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(group.stop_and_compare() > 0);
}

/// Goal: a detached node stays out of the set until it is let in again.
#[test]
fn a_node_is_detached_and_attached() {
    let mut group = Group::started(&GroupShape::default());
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    let leader = group.await_in_sync();
    let other = 2 - leader;
    let answer = admin(&group.nodes[leader], &format!("detach {other}"));
    assert_eq!(answer, "{\"ok\":true}");
    group.eventually("it is out", || group.counter(leader, "group.members") == 1);
    flow.await_more(500);
    assert_eq!(group.counter(leader, "group.members"), 1);
    let answer = admin(&group.nodes[leader], &format!("attach {other}"));
    assert_eq!(answer, "{\"ok\":true}");
    group.await_in_sync();
    let status = admin(&group.nodes[leader], "status");
    assert!(status.contains("\"group.standing\":2"), "{status}");
    assert!(admin(&group.nodes[leader], "dance").contains("is understood"));
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: in a steady flow neither the primary's hot threads nor the standby's allocate, and messages come out in every threading mode.
/// Method: long waits before anybody is suspected, since a change of roles may allocate; counts before and after some thousand messages.
#[test]
fn the_hot_paths_of_a_group_allocate_nothing() {
    for threads in [
        "mode = \"shared\"\nidle = \"park\"",
        "mode = \"split\"\nidle = \"park\"",
    ] {
        let mut wanted = GroupShape::default();
        wanted.shape.threads = threads.to_owned();
        wanted.shape.limits = "ring = \"8MiB\"\nheartbeat_ms = 20000".to_owned();
        let mut group = Group::started(&wanted);
        let allocations = |group: &Group| {
            let count = |node: &Appliance| {
                let mut counters = node.counters();
                counters.retain(|label, _| label.ends_with(".allocations"));
                counters
            };
            group.nodes.iter().map(count).collect::<Vec<_>>()
        };
        let flow = Flow::on(&group, 2_000);
        flow.await_more(2_000);
        let before = allocations(&group);
        flow.await_more(4_000);
        assert_eq!(allocations(&group), before, "{threads}");
        flow.finish();
        assert!(group.stop_and_compare() > 0);
    }
}

/// Goal: an observer has everything that is released, is never counted on, and never leads by itself. Method: it is frozen, which holds
/// nobody up; then both nodes are killed and it is left alone.
#[test]
fn an_observer_follows_and_is_not_counted_on() {
    let wanted = GroupShape {
        nodes: 3,
        observers: 1,
        ..GroupShape::default()
    };
    let mut group = Group::started(&wanted);
    let flow = Flow::on(&group, 500);
    flow.await_more(100);
    let leader = group.await_in_sync();
    assert_eq!(group.counter(leader, "group.members"), 2);
    signal(group.nodes[2].pid(), libc::SIGSTOP);
    flow.take_gap();
    flow.await_more(300);
    signal(group.nodes[2].pid(), libc::SIGCONT);
    for place in 0..2 {
        group.nodes[place].kill();
    }
    group.eventually("it is alone", || {
        (1..=2).all(|node| group.counter(2, &format!("peer.{node}.is_connected")) == 0)
    });
    assert_ne!(group.counter(2, "group.standing"), LEADING);
    group.nodes[0].start();
    group.nodes[1].start();
    flow.await_more(100);
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}
