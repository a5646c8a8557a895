//! Where two logs part: the last position up to which both are the same, from their epochs alone (rule R16).
//!
//! Only one primary ever writes in an epoch, and its log in that epoch only grows. So two logs that both hold an epoch with the
//! same start and the same checksum before it agree to the end of the shorter one's part of it, and no further unless the
//! next epoch is the same too.

use relay_wire::id::{Epoch, Position};
use relay_wire::peer::HistoryEntry;

/// A reign that begins with an accepted loss opens an epoch at the next multiple of this, or just above: above whatever a primary
/// that was given up opens by itself. So an epoch divided by this is no less than the losses accepted up to it, over all copies, and
/// no two forced reigns that an arbiter let begin have one number. Where an operator is the arbiter, two copies that know nothing of each
/// other may have.
pub(crate) const EPOCHS_OF_A_FORCED_REIGN: u64 = 1 << 40;

/// Losses accepted between two forced reigns, the first of which, or none (epoch 0), is in the log that the second goes on with: at
/// least 1.
pub(crate) fn losses_between(before: Epoch, forced: Epoch) -> u64 {
    losses(forced).saturating_sub(losses(before)).max(1)
}

/// How many losses were accepted up to an epoch, at most.
pub(crate) const fn losses(epoch: Epoch) -> u64 {
    epoch.get() / EPOCHS_OF_A_FORCED_REIGN
}

/// The end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) position: Position,
    pub(crate) checksum: u32,
}

/// What two histories say about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The same up to here.
    At(Position),
    /// Two different logs in one epoch up to one position: two nodes led the same epoch. An alarm.
    TwoHistories(Epoch),
}

/// The end of the part of a log that belongs to entry `at`, and the checksum there.
fn end_of(entries: &[HistoryEntry], at: usize, tail: Tail) -> Tail {
    entries.get(at + 1).map_or(tail, |next| Tail {
        position: next.start,
        checksum: next.previous_checksum,
    })
}

/// Compares two logs, each by its epochs, oldest first, and its tail.
pub(crate) fn part(
    ours: &[HistoryEntry],
    our_tail: Tail,
    theirs: &[HistoryEntry],
    their_tail: Tail,
) -> Parting {
    let mut common = None;
    for (at, entry) in theirs.iter().enumerate().rev() {
        if let Ok(place) = ours.binary_search_by_key(&entry.epoch, |e| e.epoch)
            && ours[place] == *entry
        {
            common = Some((place, at));
            break;
        }
    }
    let Some((ours_at, theirs_at)) = common else {
        return Parting::At(Position(0));
    };
    let our_end = end_of(ours, ours_at, our_tail);
    let their_end = end_of(theirs, theirs_at, their_tail);
    if our_end.position == their_end.position && our_end.checksum != their_end.checksum {
        return Parting::TwoHistories(ours[ours_at].epoch);
    }
    Parting::At(our_end.position.min(their_end.position))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(epoch: u64, start: u64) -> HistoryEntry {
        HistoryEntry {
            epoch: Epoch(epoch),
            start: Position(start),
            previous_checksum: (epoch * 100 + start) as u32,
        }
    }

    fn tail(position: u64) -> Tail {
        Tail {
            position: Position(position),
            checksum: 7,
        }
    }

    #[test]
    fn a_prefix_goes_on_where_it_ends() {
        let ours = [entry(1, 0), entry(2, 10), entry(4, 30)];
        assert_eq!(
            part(&ours, tail(50), &ours[..2], tail(20)),
            Parting::At(Position(20))
        );
        assert_eq!(
            part(&ours, tail(50), &[], tail(0)),
            Parting::At(Position(0))
        );
        assert_eq!(
            part(&ours, tail(50), &ours, tail(50)),
            Parting::At(Position(50))
        );
    }

    #[test]
    fn what_the_winner_lacks_is_cut() {
        // They went on in epoch 2 to 40; the winner's epoch 4 began at 30.
        let ours = [entry(1, 0), entry(2, 10), entry(4, 30)];
        let theirs = [entry(1, 0), entry(2, 10)];
        assert_eq!(
            part(&ours, tail(50), &theirs, tail(40)),
            Parting::At(Position(30))
        );
        // They led epoch 3 from 20 on, which nobody else saw.
        let theirs = [entry(1, 0), entry(2, 10), entry(3, 20)];
        assert_eq!(
            part(&ours, tail(50), &theirs, tail(40)),
            Parting::At(Position(20))
        );
    }

    #[test]
    fn two_logs_in_one_epoch_are_an_alarm() {
        let ours = [entry(1, 0)];
        let other = Tail {
            position: Position(50),
            checksum: 8,
        };
        assert_eq!(
            part(&ours, tail(50), &ours, other),
            Parting::TwoHistories(Epoch(1))
        );
    }

    #[test]
    fn logs_without_a_common_epoch_share_nothing() {
        assert_eq!(
            part(&[entry(2, 0)], tail(9), &[entry(1, 0)], tail(9)),
            Parting::At(Position(0))
        );
    }
}
