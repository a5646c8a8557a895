//! The executions that broke earlier wordings of the rules, each against the rules as they are.
//!
//! | execution | test |
//! | --- | --- |
//! | a primary restarts and goes on in its epoch while its standby holds another block at that position | [`a_restarted_primary_opens_another_epoch`] |
//! | a swap given up by its proposer lands later | [`a_swap_that_lands_late_is_counted_until_it_is_settled`] |
//! | B wins epoch 2 but learns it late, A wins 3 alone, releases, crashes and forgets its promise, then B leads 2 and A cuts | [`a_win_learnt_late_is_taken_up`], [`a_win_learnt_after_another_cuts_nobody`] |
//! | A's last block rots, is cut as torn, and A wins the whole old set and makes B cut the only good copy | [`a_node_that_cut_damage_does_not_lead_before_it_is_answered`] |
//! | B restarts in a healthy pair and can never acknowledge again | [`a_restarted_standby_is_let_in_again`] |
//! | a replaced disk leaves the pair below min_copies for ever | [`a_replaced_disk_does_not_hold_a_pair_for_ever`] |
//! | two incarnations of one node count as two copies | [`two_incarnations_of_a_node_are_one_copy`] |
//! | a member cuts what it had alone, begins again from its disk, and takes the lead from the primary that lives | [`who_begins_again_from_its_disk_does_not_suspect_its_primary_at_once`] |

use relay_wire::id::{Epoch, NodeId};
use relay_wire::peer::Standing;

use super::cluster::{Cluster, Machine};

/// A replaced disk leaves the pair below min_copies for ever (in an earlier wording).
#[test]
fn a_replaced_disk_does_not_hold_a_pair_for_ever() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(20);
    cluster.kill(1, 0);
    cluster.machines[1] = Machine::new(&cluster.settings, 2, 999);
    cluster.start(1);
    cluster.publish(20);
    assert_eq!(cluster.in_sync(), 2, "one incarnation of a node counts");
    cluster.verify();
}

/// B restarts in a healthy pair and can never acknowledge again (in an earlier wording).
#[test]
fn a_restarted_standby_is_let_in_again() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(20);
    cluster.kill(1, 0);
    cluster.start(1);
    cluster.publish(20);
    cluster.verify();
}

/// A primary restarts and goes on in its epoch while its standby holds another block at that position (in an earlier wording).
#[test]
fn a_restarted_primary_opens_another_epoch() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(20);
    let epoch = cluster.registers.unwrap().membership.epoch;
    // The standby holds a block that the primary's disk never got.
    cluster.machines[0].holds_writes = true;
    cluster.publisher.wanted += 1;
    cluster.pass(20, |_| false);
    cluster.kill(0, 0);
    cluster.machines[0].holds_writes = false;
    cluster.start(0);
    cluster.publish(20);
    assert!(cluster.registers.unwrap().membership.epoch > epoch);
    cluster.verify();
}

/// A swap given up by its proposer lands later: whoever led on must not have released without it.
#[test]
fn a_swap_that_lands_late_is_counted_until_it_is_settled() {
    let mut cluster = Cluster::running(2, 1);
    cluster.publish(10);
    // The primary wants to drop the silent standby; the arbiter keeps the swap and says nothing certain.
    cluster.late_swaps.insert(0);
    cluster.cut.extend([(0, 1), (1, 0)]);
    cluster.no_arbiter.insert(1);
    let released = cluster.ledger.len();
    cluster.publisher.wanted += 5;
    cluster.pass(1_000, |cluster| cluster.ledger.len() > released);
    assert!(!cluster.swaps_kept.is_empty());
    // The first one lands now; the others are refused.
    while let Some((_, request)) = cluster.swaps_kept.pop_front() {
        cluster.arbitrate(&request.ask);
    }
    cluster.late_swaps.clear();
    cluster.no_arbiter.clear();
    cluster.cut.clear();
    cluster.publish(5);
    cluster.until("both are in sync", |cluster| cluster.in_sync() == 2);
    cluster.verify();
}

/// B wins but learns it late: until it knows, nobody leads twice.
#[test]
fn a_win_learnt_late_is_taken_up() {
    let mut cluster = Cluster::running(2, 1);
    cluster.publish(10);
    cluster.unknown_swaps.insert(1);
    cluster.kill(0, 0);
    cluster.pass(500, |cluster| cluster.machines[1].is_serving);
    cluster.start(0);
    cluster.pass(500, |_| false);
    cluster.unknown_swaps.clear();
    cluster.publish(10);
    cluster.until("both are in sync", |cluster| cluster.in_sync() == 2);
    cluster.verify();
}

/// A's last block rots, is cut as torn, and A wins the whole old set and makes B cut the only good copy (in an earlier wording).
#[test]
fn a_node_that_cut_damage_does_not_lead_before_it_is_answered() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(20);
    // No mark follows: both die right after the release.
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
    cluster.start(0);
    cluster.pass(3_000, |cluster| cluster.standing(0) == Standing::Leading);
    cluster.start(1);
    cluster.publish(10);
    cluster.until("both are in sync", |cluster| cluster.in_sync() == 2);
    cluster.verify();
}

/// Goal: a win that is learnt when another one has led and released since cuts nobody and releases nothing. Method: the primary hands
/// over, so the other wins with both in its set; the answer is on its way while the first wins the next epoch alone, releases
/// and dies. Then the other hears that it won, and the first comes back with the promise it keeps.
#[test]
fn a_win_learnt_after_another_cuts_nobody() {
    let mut cluster = Cluster::running(2, 1);
    cluster.publish(10);
    cluster.late_answers.insert(1);
    let now = cluster.now;
    let first = cluster.machines[0].node.as_mut().unwrap();
    first.hand_over(None, now).unwrap();
    cluster.until("the other has won", |cluster| {
        !cluster.answers_kept.is_empty()
    });
    let won = cluster.registers.unwrap().membership;
    assert_eq!((won.primary, won.members.len()), (NodeId(2), 2));
    cluster.cut.extend([(0, 1), (1, 0)]);
    cluster.until("the first leads again, alone", |cluster| {
        let record = cluster.registers.unwrap().membership;
        cluster.machines[0].is_serving && record.primary == NodeId(1) && record.members.len() == 1
    });
    cluster.publish(10);
    cluster.kill(0, 9);
    cluster.late_answers.clear();
    cluster.tell_late_answers();
    cluster.until("the other learns of its win", |cluster| {
        cluster.machines[1].reigns.contains(&won.epoch)
    });
    cluster.cut.clear();
    let released = cluster.ledger.len();
    cluster.start(0);
    cluster.publisher.wanted += 10;
    cluster.until("more is released", |cluster| {
        cluster.ledger.len() > released
    });
    let beyond = cluster.registers.unwrap().membership.epoch;
    assert!(beyond > Epoch(won.epoch.get() + 1), "in a later epoch");
    cluster.publish(0);
    cluster.until("both are in sync", |cluster| cluster.in_sync() == 2);
    assert!(cluster.machines[0].set_aside.is_empty(), "it cut nothing");
    cluster.verify();
}

/// Goal: while a change names a newer disk of a node beside the older one, neither stands for the other and no set holds both. Method: the
/// standby comes back with a blank disk, and the swap that takes it in is not settled for a while.
#[test]
fn two_incarnations_of_a_node_are_one_copy() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(20);
    cluster.kill(1, 0);
    cluster.machines[1] = Machine::new(&cluster.settings, 2, 999);
    cluster.late_swaps.insert(0);
    cluster.start(1);
    cluster.until("a swap is not settled", |cluster| {
        !cluster.swaps_kept.is_empty()
    });
    let released = cluster.ledger.len();
    cluster.publisher.wanted += 5;
    cluster.pass(1_000, |cluster| cluster.ledger.len() > released);
    let (_, request) = cluster.swaps_kept.pop_front().unwrap();
    cluster.arbitrate(&request.ask);
    cluster.late_swaps.clear();
    cluster.publish(5);
    let members = cluster.registers.unwrap().membership.members;
    assert_eq!(members.len(), 2);
    assert_eq!(members.of_node(NodeId(2)).unwrap().incarnation, 999);
    cluster.verify();
}

/// A member cut its log and begins again from its disk. Its own connections went with the old state: that is not a primary's whose
/// connection ended, and it is not suspected by that.
#[test]
fn who_begins_again_from_its_disk_does_not_suspect_its_primary_at_once() {
    let mut cluster = Cluster::running(2, 2);
    cluster.publish(10);
    let first = cluster.serving().unwrap();
    let second = 1 - first;
    cluster.machines[second].is_frozen = true;
    cluster.publisher.wanted += 3;
    cluster.pass(50, |_| false);
    cluster.kill(first, 9);
    cluster.machines[second].is_frozen = false;
    cluster.kill(second, 9);
    cluster.start(second);
    cluster.until("it leads, with both as members", |cluster| {
        cluster.standing(second) == Standing::Leading
    });
    cluster.start(first);
    cluster.until("what it had alone is cut", |cluster| {
        !cluster.machines[first].set_aside.is_empty()
    });
    // For less than a suspect time it does not get through to the primary.
    cluster.cut.extend([(first, second), (second, first)]);
    cluster.pass(100, |cluster| cluster.standing(first) == Standing::Leading);
    cluster.cut.clear();
    cluster.until("both are in sync", |cluster| {
        cluster.in_sync() == 2 && cluster.serving().is_some()
    });
    assert_eq!(cluster.serving(), Some(second));
    cluster.publish(5);
    cluster.verify();
}
