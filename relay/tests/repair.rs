//! Goal: a block that is damaged on one disk comes back from the other, and one that is damaged on both stops the start at its
//! very position. Method: real pairs, a byte turned over in a journal at rest, no checkpoint to read past it.

mod appliance;

use std::os::unix::fs::FileExt;

use appliance::flow::Flow;
use appliance::group::{Group, GroupShape, PATIENT, has_file};
use appliance::{Appliance, text};
use relay_journal::{block, checkpoint, segment};

/// Position of the block in the middle of the log that ends at `tail`, in a log of one segment.
fn middle_block(node: &Appliance, tail: u64) -> u64 {
    let path = segment_path(node);
    let bytes = std::fs::read(path).unwrap();
    let mut position = 0;
    while position < tail / 2 {
        position += u64::from(
            block::decode_header(&bytes[position as usize..])
                .unwrap()
                .span,
        );
    }
    position
}

fn segment_path(node: &Appliance) -> std::path::PathBuf {
    node.directory()
        .join(segment::DIRECTORY)
        .join(segment::name(0))
}

/// Positions of the blocks in the first segment of a node's log.
fn blocks(node: &Appliance) -> Vec<u64> {
    let bytes = std::fs::read(segment_path(node)).unwrap();
    let mut positions = Vec::new();
    let mut at = 0;
    while let Some(header) = bytes
        .get(at..)
        .and_then(|rest| block::decode_header(rest).ok())
    {
        positions.push(at as u64);
        at += header.span as usize;
    }
    positions
}

/// Turns a byte of the block's body over and takes the checkpoints away, so that a start reads it.
fn damage(node: &Appliance, position: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(segment_path(node))
        .unwrap();
    let at = position + block::HEADER_LENGTH as u64 + 40;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    file.sync_all().unwrap();
    for entry in std::fs::read_dir(node.directory()).unwrap().flatten() {
        if checkpoint::parse_name(&entry.file_name().to_string_lossy()).is_some() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn published() -> (Group, u64) {
    let group = Group::started(&GroupShape::default());
    let flow = Flow::started(&group.addresses(), 1_000);
    flow.await_more(300);
    flow.finish();
    let leader = group.await_in_sync();
    let tail = group.counter(leader, "position.released");
    group.eventually("everything is on every disk", || {
        (0..2).all(|place| group.counter(place, "position.durable") >= tail)
    });
    (group, tail)
}

#[test]
fn a_damaged_block_is_fetched_from_the_peer() {
    let (mut group, tail) = published();
    let standby = 1 - group.await_leader(None);
    group.nodes[standby].kill();
    let position = middle_block(&group.nodes[standby], tail);
    damage(&group.nodes[standby], position);
    group.nodes[standby].start();
    group.await_in_sync();
    group.nodes[standby].await_log(&[
        "a damaged block was fetched from a peer",
        &position.to_string(),
    ]);
    assert!(group.stop_and_compare() >= tail);
}

#[test]
fn a_block_damaged_on_both_disks_stops_the_start_at_its_position() {
    let (mut group, tail) = published();
    let leader = group.await_leader(None);
    let position = middle_block(&group.nodes[leader], tail);
    for place in [1 - leader, leader] {
        group.nodes[place].kill();
    }
    for node in &group.nodes {
        damage(node, position);
    }
    let error = group.nodes[leader].try_start().unwrap_err();
    for part in ["position", &position.to_string(), "No peer could help"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

/// Goal: a primary whose own copy is damaged there too is no reason to cut the other one: the start stops at the position, and both copies
/// stay as they are. Method: the block is damaged on the disk of the primary, which runs and has not read it again, and on the
/// standby's at rest.
#[test]
fn a_block_the_primary_lost_too_is_not_cut() {
    let (mut group, tail) = published();
    let leader = group.await_leader(None);
    let standby = 1 - leader;
    group.nodes[standby].kill();
    let position = middle_block(&group.nodes[standby], tail);
    damage(&group.nodes[standby], position);
    damage(&group.nodes[leader], position);
    let before = std::fs::read(segment_path(&group.nodes[standby])).unwrap();
    let error = group.nodes[standby].try_start().unwrap_err();
    for part in ["position", &position.to_string(), "damaged there too"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    let after = std::fs::read(segment_path(&group.nodes[standby])).unwrap();
    assert!(before == after, "nothing was cut");
    assert!(!has_file(&group.nodes[standby], "set-aside-"));
}

/// Goal: a node that is killed while it catches up, and whose log is torn in its middle, starts again by itself: what was torn was never
/// counted on. Method: a blank disk and a low rate; the block before the last one is damaged, behind which a block tells of releases.
#[test]
fn a_log_torn_while_it_caught_up_is_cut() {
    let mut group = Group::started(&GroupShape {
        more: format!("{PATIENT}\ncatch_up_rate = \"1MiB\""),
        ..GroupShape::default()
    });
    let flow = Flow::on(&group, 1_000);
    flow.await_more(1_500);
    let standby = 1 - group.await_leader(None);
    group.nodes[standby].kill();
    std::fs::remove_dir_all(group.nodes[standby].directory()).unwrap();
    let output = group.nodes[standby].relayd("format");
    assert!(output.status.success(), "format: {}", text(&output));
    group.nodes[standby].start();
    group.eventually("it catches up", || {
        group.counter(standby, "position.durable") > 1 << 19
    });
    group.nodes[standby].kill();
    let positions = blocks(&group.nodes[standby]);
    let torn = positions[positions.len() - 2];
    damage(&group.nodes[standby], torn);
    group.nodes[standby].start();
    let log = group.nodes[standby].log();
    let told = log.lines().find(|line| line.contains("torn end was cut"));
    assert!(
        told.is_some_and(|line| line.contains(&format!("position={torn}"))),
        "{log}"
    );
    assert!(!log.contains("fetched from a peer"), "{log}");
    flow.finish();
    group.await_in_sync();
    assert!(group.stop_and_compare() > 0);
}

/// The byte at `at` of the first segment.
fn byte(node: &Appliance, at: u64) -> u8 {
    let mut byte = [0];
    let file = std::fs::File::open(segment_path(node)).unwrap();
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0]
}

fn set_byte(node: &Appliance, at: u64, value: u8) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(segment_path(node))
        .unwrap();
    file.write_all_at(&[value], at).unwrap();
    file.sync_all().unwrap();
}

/// Goal: rot on the disk of a running node is found and mended from its peer, whoever leads; where both copies are damaged the place is
/// told, the flow goes on, and a later pass mends it once there is a good copy. Method: a segment that is released to its end, passes every
/// second.
#[test]
fn rot_under_a_running_node_is_mended_from_its_peer() {
    let mut wanted = GroupShape::default();
    wanted
        .shape
        .journal
        .push_str("\nscrub_every_s = 1\nscrub_rate = \"64MiB\"");
    let mut group = Group::started(&wanted);
    let flow = Flow::on(&group, 2_000);
    group.eventually("a whole segment was looked at", || {
        (0..2).all(|place| group.counter(place, "scrub.passes") > 0)
    });
    let leader = group.await_in_sync();
    let position = middle_block(&group.nodes[leader], 4 << 20);
    let at = position + block::HEADER_LENGTH as u64 + 40;
    let good = byte(&group.nodes[leader], at);
    let bad = good ^ 0x40;
    for place in [1 - leader, leader] {
        set_byte(&group.nodes[place], at, bad);
        group.eventually("it is mended", || {
            group.counter(place, "scrub.repaired") == 1 && byte(&group.nodes[place], at) == good
        });
        group.nodes[place].await_log(&["a peer's copy was written in its place"]);
        group.eventually("nothing is left", || {
            group.counter(place, "scrub.unrepaired") == 0
        });
    }
    group.eventually("both copies are found damaged", || {
        for node in &group.nodes {
            // A pass may have mended one before the other was damaged.
            set_byte(node, at, bad);
        }
        (0..2).all(|place| group.counter(place, "scrub.unrepaired") == 1)
    });
    for place in 0..2 {
        assert_eq!(group.counter(place, "scrub.unrepaired_position"), position);
        group.nodes[place].await_log(&["no other copy could mend it", "damaged there too"]);
    }
    flow.await_more(100);
    set_byte(&group.nodes[leader], at, good);
    group.eventually("a later pass mends the other", || {
        (0..2).all(|place| group.counter(place, "scrub.unrepaired") == 0)
    });
    flow.finish();
    assert!(group.stop_and_compare() > 0);
}
