//! Whether a group comes together once no faults happen any more: everything arrives, everybody starts, time passes.

use crate::action::Action;
use crate::bounds::{Budget, MS};
use crate::machine::{Halt, Input};
use crate::store::Store;
use crate::world::{Violation, World};

/// Time that passes once nothing is left to be done without it.
const STEP_NS: u64 = 100 * MS;
/// So many of these steps are enough from any state: half a minute.
const STEPS_MAX: usize = 300;
/// Actions between two of them.
const ACTIONS_MAX: usize = 5_000;
/// A group that has come together is left alone for so long before a search begins, so that nothing is due.
const CALM_STEPS: usize = 30;

/// A group that has come together from nothing, with the publisher logged on and nothing published.
pub(crate) fn settled(store: &Store) -> Result<World, Violation> {
    let mut world = World::new(store);
    heal(store, &mut world, false)?;
    for _ in 0..CALM_STEPS {
        pass(store, &mut world)?;
        rest(store, &mut world, false)?;
    }
    world.budget = store.bounds.budget;
    Ok(world)
}

/// Brings the group together; a violation where it does not come.
pub(crate) fn heal(store: &Store, world: &mut World, publishes: bool) -> Result<(), Violation> {
    world.budget = Budget::default();
    for _ in 0..STEPS_MAX {
        rest(store, world, publishes)?;
        if has_come_together(store, world, publishes) {
            return Ok(());
        }
        pass(store, world)?;
    }
    Err(Violation(format!(
        "with no more faults it does not come together within {} s",
        STEPS_MAX as u64 * STEP_NS / (1_000 * MS)
    )))
}

/// Everything that can happen without time.
fn rest(store: &Store, world: &mut World, publishes: bool) -> Result<(), Violation> {
    let mut actions = Vec::new();
    for turn in 0..ACTIONS_MAX {
        for at in 0..store.bounds.nodes {
            // An operator's part: a disk that lost what only others hold now is replaced.
            if store.machines.get(world.machines[at]).halt == Some(Halt::Rotten) {
                world.give(store, at, &Input::Blank)?;
            }
        }
        world.choices(store, &mut actions);
        actions.retain(|action| publishes || !matches!(action, Action::Publish(_)));
        if actions.is_empty() {
            return Ok(());
        }
        *world = world.apply(store, actions[turn % actions.len()])?;
    }
    Ok(())
}

fn pass(store: &Store, world: &mut World) -> Result<(), Violation> {
    for at in 0..store.bounds.nodes {
        if store.machines.get(world.machines[at]).is_up() {
            world.give(store, at, &Input::Pass(STEP_NS))?;
            world.give(store, at, &Input::Logon)?;
        }
    }
    Ok(())
}

/// Whether all are in the set, one serves, and everything published is acknowledged.
fn has_come_together(store: &Store, world: &World, publishes: bool) -> bool {
    let registers = world.registers_in(store);
    let members = registers.membership.members;
    let mut serving = 0;
    for at in 0..store.bounds.nodes {
        let machine = store.machines.get(world.machines[at]);
        if !machine.is_up() || !members.contains(&machine.member()) {
            return false;
        }
        let leads = machine.reign() == Some(registers.membership.epoch);
        let is_ready = machine.session.is_established && machine.session.topic.is_some();
        serving += usize::from(leads && machine.is_serving && is_ready);
    }
    let wanted = if publishes { store.bounds.messages } else { 0 };
    serving == 1 && store.histories.get(world.history).acknowledged() >= wanted
}
