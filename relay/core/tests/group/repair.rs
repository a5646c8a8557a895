//! Damage in one copy: what another one gives for it, what it does not give, and who waits for whom.

use relay_core::group::{Loss, Obstacle, WordRefused};
use relay_core::node::Note;
use relay_journal::block::{self, HEADER_LENGTH};
use relay_wire::id::NodeId;
use relay_wire::peer::{FetchOutcome, Place};

use super::cluster::{Cluster, Machine};

/// Goal: a node that runs has a damaged block from a peer, whoever leads; what the peer's own copy can't give is said. Method: both ask for
/// the same block; then it is damaged in the other copy too; then one asks for a place where the log does not go on.
#[test]
fn a_running_node_has_a_damaged_block_from_its_peer() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(50);
    let position = 5 * 4096;
    let header = block::decode_header(&cluster.ledger[position..]).unwrap();
    let place = Place {
        position: header.position,
        previous_checksum: header.previous_checksum,
    };
    for at in 0..2 {
        let node = cluster.machines[at].node.as_mut().unwrap();
        assert!(node.fetch(NodeId(2 - at as u64), place));
        cluster.until("it is answered", |cluster| {
            !cluster.machines[at].fetched.is_empty()
        });
        let fetched = cluster.machines[at].fetched.pop().unwrap();
        assert_eq!(fetched.outcome, FetchOutcome::Here);
        assert_eq!(fetched.peer, NodeId(2 - at as u64));
        assert_eq!(
            fetched.block[..],
            cluster.ledger[position..position + header.body_end()]
        );
    }
    cluster.machines[1].disk.bytes[position + HEADER_LENGTH] ^= 1;
    let elsewhere = Place {
        previous_checksum: place.previous_checksum ^ 1,
        ..place
    };
    let node = cluster.machines[0].node.as_mut().unwrap();
    assert!(node.fetch(NodeId(2), place));
    cluster.until("it is answered", |cluster| {
        !cluster.machines[0].fetched.is_empty()
    });
    let fetched = cluster.machines[0].fetched.pop().unwrap();
    assert_eq!(
        (fetched.outcome, fetched.block.len()),
        (FetchOutcome::Damaged, 0)
    );
    cluster.machines[1].disk.bytes[position + HEADER_LENGTH] ^= 1;
    let node = cluster.machines[0].node.as_mut().unwrap();
    assert!(node.fetch(NodeId(2), elsewhere));
    cluster.until("it is answered", |cluster| {
        !cluster.machines[0].fetched.is_empty()
    });
    let fetched = cluster.machines[0].fetched.pop().unwrap();
    assert_eq!(fetched.outcome, FetchOutcome::Otherwise);
    cluster.kill(1, 9);
    cluster.pass(200, |_| false);
    let node = cluster.machines[0].node.as_mut().unwrap();
    assert!(!node.fetch(NodeId(2), place), "nobody is there to ask");
    assert!(!node.fetch(NodeId(9), place), "nor is there such a node");
}

/// Goal: a copy that nobody counted on is not given: another block may have been released at that place since. Method: the standby's
/// disk holds its writes back, so that the primary's newest block is on its own disk alone; both ask each other for it, then
/// and once it is released.
#[test]
fn a_block_that_is_not_released_is_not_given() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(10);
    cluster.machines[1].holds_writes = true;
    cluster.publisher.wanted += 1;
    cluster.until("it is on the primary's disk", |cluster| {
        let end = cluster.ledger.len();
        cluster.writes_under_way(0) == 0
            && block::decode_header(&cluster.machines[0].disk.bytes[end..]).is_ok()
    });
    let end = cluster.ledger.len();
    let header = block::decode_header(&cluster.machines[0].disk.bytes[end..]).unwrap();
    let place = Place {
        position: header.position,
        previous_checksum: header.previous_checksum,
    };
    let ask = |cluster: &mut Cluster| {
        let node = cluster.machines[1].node.as_mut().unwrap();
        assert!(node.fetch(NodeId(1), place));
        cluster.until("it is answered", |cluster| {
            !cluster.machines[1].fetched.is_empty()
        });
        cluster.machines[1].fetched.pop().unwrap().outcome
    };
    assert_eq!(ask(&mut cluster), FetchOutcome::Otherwise);
    assert_eq!(cluster.ledger.len(), end, "it is not released yet");
    cluster.machines[1].holds_writes = false;
    cluster.until("it is released", |cluster| cluster.ledger.len() > end);
    assert_eq!(ask(&mut cluster), FetchOutcome::Here);
    cluster.publish(5);
    cluster.verify();
}

/// Damage was cut here and the only disk that could tell what lay there is gone: nobody leads, the node says why once, and an
/// operator's word ends it.
#[test]
fn a_cut_tail_nobody_can_answer_for_waits_for_an_operator() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(20);
    cluster.publisher.wanted += 1;
    cluster.until("it is released", |cluster| {
        cluster.publisher.acked == cluster.publisher.wanted
    });
    cluster.kill(0, 9);
    cluster.kill(1, 9);
    let end = cluster.ledger.len();
    let disk = &mut cluster.machines[0].disk.bytes;
    let last = (0..end).rev().find(|&at| disk[at] != 0).unwrap();
    disk[last] ^= 1;
    cluster.machines[1] = Machine::new(&cluster.settings, 2, 999);
    cluster.start(0);
    cluster.start(1);
    cluster.pass(5_000, |cluster| cluster.serving().is_some());
    let status = cluster.machines[0].node.as_ref().unwrap().status();
    assert_eq!(status.obstacle, Some(Obstacle::TailUnknown));
    let notes = cluster.machines[0].notes.iter();
    let told = notes.filter(|note| matches!(note, Note::TailUnknown(_)));
    assert_eq!(told.count(), 1, "it says so once");
    let now = cluster.now;
    let node = cluster.machines[0].node.as_mut().unwrap();
    let refused = Err(WordRefused::MayLose(Loss::TailUnknown));
    assert_eq!(node.promote(false, now), refused);
    node.promote(true, now).unwrap();
    cluster.accept_loss(0);
    cluster.until("the new disk is in sync", |cluster| cluster.in_sync() == 2);
    cluster.publish(5);
}
