//! What a theme adds to a schedule, and what it leaves out of it.
//!
//! A disk that forgets (lies about durability and loses power, loses a write or puts it elsewhere, is replaced by an old
//! copy) believes that it is whole. Rule R22 keeps it from leading only where the floor at the arbiter says more than it
//! holds. So within the promise it is the one thing that goes wrong: a group has to be whole and undisturbed before, the machine that
//! lost power takes a second or more to come back, as machines do, and until the group is whole again only clients are
//! struck. Beyond the promise all disks lie, and all lose power at once.
//!
//! An old arbiter's record comes back only where every copy that it names has seen a later one: a copy that has not, and
//! reaches nobody that has, would go on from the old record, and no rule could tell.

use super::{Cast, Fault, Scheduled};
use crate::clock::{MILLISECOND, SECOND};
use crate::random::Random;
use crate::theme::Theme;

/// Suits `schedule` to the theme of a group's run.
pub(crate) fn suit(
    theme: Theme,
    is_beyond: bool,
    random: &mut Random,
    cast: Cast,
    duration_ns: u64,
    schedule: &mut Vec<Scheduled>,
) {
    match theme {
        Theme::Plain => return,
        Theme::Mirrored => add_blackout(random, cast, duration_ns, schedule),
        Theme::Manual => {
            schedule.retain(|scheduled| !is_of_arbiter(&scheduled.fault));
            add_outages(random, cast, duration_ns, schedule);
        }
        Theme::Restored => add_restores(random, duration_ns, schedule),
        Theme::Forgetful if is_beyond => {
            // What is lost at once on every disk is lost whatever else happens.
            add_forgetting_of_all(random, cast, duration_ns, schedule);
        }
        Theme::Forgetful => {
            schedule.retain(|scheduled| scheduled.fault != Fault::SwapInDoubt);
            add_forgetting(random, cast, duration_ns, schedule);
        }
    }
    schedule.sort_by_key(|scheduled| scheduled.at_ns);
}

const fn is_of_arbiter(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::ArbiterDown { .. } | Fault::ArbiterSlow { .. } | Fault::SwapInDoubt
    )
}

fn add(random: &mut Random, at_ns: u64, fault: Fault, schedule: &mut Vec<Scheduled>) {
    let seed = random.next();
    schedule.push(Scheduled { at_ns, fault, seed });
}

/// Nodes that stay away for so long that an operator has to say a word.
fn add_outages(random: &mut Random, cast: Cast, duration_ns: u64, schedule: &mut Vec<Scheduled>) {
    for _ in 0..random.within(0, 3) {
        let at_ns = random.below(duration_ns);
        let node = random.below(cast.nodes as u64) as usize;
        let for_ns = random.within(SECOND, 5 * SECOND);
        add(random, at_ns, Fault::PowerOut { node, for_ns }, schedule);
    }
}

/// All machines lose power at once, in the middle of writes that take long: the one thing that copies in memory don't survive.
fn add_blackout(random: &mut Random, cast: Cast, duration_ns: u64, schedule: &mut Vec<Scheduled>) {
    if random.chance(600_000) {
        return;
    }
    let at_ns = random.below(duration_ns);
    let cut_ns = (at_ns + random.tailed(30 * MILLISECOND)).min(duration_ns);
    for node in 0..cast.nodes {
        let for_ns = 100 * MILLISECOND;
        add(random, at_ns, Fault::Stall { node, for_ns }, schedule);
        add(random, cut_ns, Fault::PowerOut { node, for_ns }, schedule);
    }
}

/// A backup early, and the arbiter coming back from it late.
fn add_restores(random: &mut Random, duration_ns: u64, schedule: &mut Vec<Scheduled>) {
    let at_ns = random.below(duration_ns / 2);
    add(random, at_ns, Fault::BackUp, schedule);
    for _ in 0..random.within(1, 3) {
        let at_ns = random.within(at_ns, duration_ns - 1);
        add(random, at_ns, Fault::Restore, schedule);
    }
}

/// One node's disk forgets, once or twice.
fn add_forgetting(
    random: &mut Random,
    cast: Cast,
    duration_ns: u64,
    schedule: &mut Vec<Scheduled>,
) {
    let node = random.below(cast.nodes as u64) as usize;
    for _ in 0..random.within(1, 3) {
        let at_ns = random.within(duration_ns / 4, duration_ns - 1);
        let fault = match random.below(4) {
            0 => {
                let for_ns = 3 * SECOND;
                Fault::Lie { node, for_ns }
            }
            1 => {
                let copied_ns = random.below(at_ns);
                add(random, copied_ns, Fault::Snapshot { node }, schedule);
                Fault::OldCopy { node }
            }
            2 => Fault::LoseWrite { node },
            _ => Fault::MisdirectWrite { node },
        };
        add(random, at_ns, fault, schedule);
        let cut_ns = (at_ns + random.tailed(300 * MILLISECOND)).min(duration_ns);
        let for_ns = random.within(SECOND, 3 * SECOND);
        add(random, cut_ns, Fault::PowerOut { node, for_ns }, schedule);
    }
}

/// Every disk lies, and then every machine loses power.
fn add_forgetting_of_all(
    random: &mut Random,
    cast: Cast,
    duration_ns: u64,
    schedule: &mut Vec<Scheduled>,
) {
    let at_ns = random.within(duration_ns / 4, duration_ns - 1);
    let cut_ns = (at_ns + random.tailed(400 * MILLISECOND)).min(duration_ns);
    for node in 0..cast.nodes {
        let for_ns = 3 * SECOND;
        add(random, at_ns, Fault::Lie { node, for_ns }, schedule);
        let for_ns = random.within(20 * MILLISECOND, SECOND);
        add(random, cut_ns, Fault::PowerOut { node, for_ns }, schedule);
    }
}
