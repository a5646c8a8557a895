//! What the log says of losses that an operator accepted: one UNCLEAN record for each that came about, and none without a word.
//!
//! The operator's words are counted here, by the node that was told to lead. A released block that opens an epoch with an UNCLEAN
//! record in it uses up one of its primary's words; and whoever was seen to lead with something lost has such a record in the
//! block that opens its reign. A word may come to nothing: then another node leads, or nothing was missing after all.

use std::collections::BTreeMap;

use relay_wire::id::{Epoch, NodeId};

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// How often each node was told to lead, whatever is lost by it.
    accepted: BTreeMap<NodeId, usize>,
    /// Who opened which epoch with a loss written down.
    written: BTreeMap<Epoch, NodeId>,
    /// Who leads with something lost, and the newest epoch that was in its log then: the next one it opens has to say so.
    owed: Option<(NodeId, Epoch)>,
}

impl Losses {
    /// An operator told a node to lead, whatever is lost by it.
    pub(crate) fn on_accepted(&mut self, node: NodeId) {
        *self.accepted.entry(node).or_default() += 1;
    }

    /// A node begins to lead: what another one owed comes to nothing.
    pub(crate) fn on_lead(&mut self, node: NodeId) {
        self.owed = self.owed.filter(|(owes, _)| *owes == node);
    }

    /// A node begins to lead without something that was released; its log goes up to the epoch `newest`.
    pub(crate) const fn on_lost(&mut self, node: NodeId, newest: Epoch) {
        self.owed = Some((node, newest));
    }

    /// A released block opens `epoch`, with `primary`, and says or does not say that a loss was accepted.
    pub(crate) fn on_opened(&mut self, epoch: Epoch, primary: NodeId, is_unclean: bool) {
        if is_unclean {
            self.written.insert(epoch, primary);
            let written = self.written.values().filter(|by| **by == primary).count();
            let accepted = self.accepted.get(&primary).copied().unwrap_or(0);
            assert!(
                written <= accepted,
                "epoch {epoch} of node {primary} begins with a loss, the {written}. of that node; {accepted} were accepted"
            );
        }
        if let Some((node, newest)) = self.owed
            && node == primary
            && epoch > newest
        {
            assert!(
                is_unclean,
                "node {node} lacks what was released and opens epoch {epoch} as if nothing were lost"
            );
            self.owed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);

    #[test]
    fn a_loss_that_was_accepted_is_written_down_once() {
        let mut losses = Losses::default();
        losses.on_opened(Epoch(1), TWO, false);
        losses.on_accepted(ONE);
        losses.on_lost(ONE, Epoch(1));
        // What its log held of older reigns is released with it.
        losses.on_opened(Epoch(1), TWO, false);
        losses.on_opened(Epoch(5), ONE, true);
        // A history that went back comes to the same block again.
        losses.on_opened(Epoch(5), ONE, true);
        losses.on_opened(Epoch(6), ONE, false);
    }

    #[test]
    #[should_panic(expected = "0 were accepted")]
    fn a_loss_that_nobody_accepted_is_found() {
        let mut losses = Losses::default();
        losses.on_accepted(TWO);
        losses.on_opened(Epoch(5), ONE, true);
    }

    #[test]
    #[should_panic(expected = "the 2. of that node; 1 were accepted")]
    fn one_word_is_one_loss() {
        let mut losses = Losses::default();
        losses.on_accepted(ONE);
        losses.on_opened(Epoch(5), ONE, true);
        losses.on_opened(Epoch(7), ONE, true);
    }

    #[test]
    #[should_panic(expected = "as if nothing were lost")]
    fn a_loss_that_is_not_written_down_is_found() {
        let mut losses = Losses::default();
        losses.on_accepted(ONE);
        losses.on_lost(ONE, Epoch(1));
        losses.on_opened(Epoch(5), ONE, false);
    }

    #[test]
    fn what_came_to_nothing_is_not_asked_for() {
        let mut losses = Losses::default();
        losses.on_accepted(ONE);
        losses.on_lost(ONE, Epoch(1));
        losses.on_lead(TWO);
        losses.on_opened(Epoch(6), TWO, false);
        losses.on_opened(Epoch(7), ONE, false);
    }
}
