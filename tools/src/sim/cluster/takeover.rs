//! Takeovers that nothing excuses: who leads and is well keeps the lead.
//!
//! A change of the primary costs clients some milliseconds, so a node has to have a reason: the primary is gone, silent, slow, cut off,
//! or hands over. Nothing is lost where it has none, and so no other checker sees it. What excuses a takeover is written down as it
//! strikes, for each node by itself: a standby that dies, restarts, or gets a blank disk excuses nothing against its primary.

use relay_wire::membership::Membership;

use super::Cluster;
use crate::clock::SECOND;
use crate::faults::Fault;
use crate::operator::SWITCH_NS;
use crate::theme::Theme;

/// So long after whatever excuses it a takeover may still be begun: the longest of a node's patience with a silent primary, one request
/// to the arbiter that gets no answer, and the turns of those that should stand first.
const AFTERWARDS_NS: u64 = 2 * SECOND;

impl Cluster<'_> {
    /// Until then, and a while longer, it is no wonder when another node takes the lead from this one.
    pub(super) fn excuse(&mut self, node: usize, until_ns: u64) {
        let end = until_ns.saturating_add(AFTERWARDS_NS);
        self.excused_until_ns[node] = self.excused_until_ns[node].max(end);
    }

    fn excuse_all(&mut self, until_ns: u64) {
        for node in 0..self.nodes.len() {
            self.excuse(node, until_ns);
        }
    }

    /// A fault strikes. What only announces a crash excuses nothing before it comes.
    pub(super) fn excuse_by(&mut self, fault: Fault) {
        let now_ns = self.queue.now_ns();
        let nodes = self.nodes.len();
        match fault {
            Fault::Stop { node } => self.excuse(node, now_ns + SWITCH_NS),
            Fault::Stall { node, for_ns } | Fault::Freeze { node, for_ns } => {
                self.excuse(node, now_ns + for_ns);
            }
            Fault::LoseConnection => self.excuse_all(now_ns),
            Fault::Partition {
                from, to, for_ns, ..
            }
            | Fault::Clog {
                from, to, for_ns, ..
            } if from.max(to) < nodes => {
                self.excuse(from, now_ns + for_ns);
                self.excuse(to, now_ns + for_ns);
            }
            // Who was alone heard of nobody.
            Fault::Isolate { host, for_ns } if host < nodes => self.excuse_all(now_ns + for_ns),
            Fault::Restore => self.excuse_all(u64::MAX),
            _ => {}
        }
    }

    /// The record names another primary, by a request whose node waits for the answer.
    pub(super) fn check_takeover(&mut self, before: &Membership, after: &Membership) {
        let now_ns = self.queue.now_ns();
        let loser = before.primary.get() as usize - 1;
        let winner = after.primary.get() as usize - 1;
        // A change without an outcome is asked for again and again, whatever became of the reason.
        let is_sure = self.parameters.doubt_per_million == 0 && !self.parameters.is_beyond;
        let is_watched = is_sure && self.parameters.theme != Theme::Manual;
        let is_excused = now_ns < self.excused_until_ns[loser] || self.damaged == Some(loser);
        if !is_watched || is_excused || !self.leads(loser) {
            return;
        }
        let is_reign = self.nodes[loser]
            .process()
            .is_some_and(|process| process.machine().status().epoch == before.epoch);
        assert!(
            !is_reign,
            "node {winner} takes the lead from node {loser}, which leads epoch {} and to which nothing happened",
            before.epoch
        );
    }
}
