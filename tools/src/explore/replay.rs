//! One way through the states again, in words; and a shorter one.

use crate::action::Action;
use crate::heal::{heal, settled};
use crate::store::Store;
use crate::tell::{describe, describe_world};
use crate::world::Violation;

/// What came of a way.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// One line for each action, and how the group stands at the end.
    pub(crate) text: String,
    /// What was violated, by the last action or because the group does not come together afterwards.
    pub(crate) violation: Option<Violation>,
}

/// Reads actions as they are printed: separated by semicolons or on lines of their own.
///
/// # Errors
/// The word that is no action.
pub(crate) fn parse(text: &str) -> Result<Vec<Action>, String> {
    let words = text
        .split([';', '\n'])
        .map(str::trim)
        .filter(|word| !word.is_empty());
    words
        .map(|word| Action::parse(word).ok_or_else(|| format!("'{word}' is no action")))
        .collect()
}

/// Goes through `actions`, and where nothing is violated tries whether the group comes together.
pub(crate) fn replay(store: &Store, actions: &[Action]) -> Replayed {
    let mut text = String::new();
    let begun = settled(store);
    let mut world = match begun {
        Ok(world) => world,
        Err(violation) => {
            return Replayed {
                text,
                violation: Some(violation),
            };
        }
    };
    let mut possible = Vec::new();
    for (at, &action) in actions.iter().enumerate() {
        world.choices(store, &mut possible);
        let line = format!(
            "{:3}  {action:20}  {}\n",
            at + 1,
            describe(store, &world, action)
        );
        text += &line;
        if !possible.contains(&action) {
            text += "     that is not possible here\n";
            return Replayed {
                text,
                violation: None,
            };
        }
        match world.apply(store, action) {
            Ok(after) => world = after,
            Err(violation) => {
                text += &describe_world(store, &world);
                return Replayed {
                    text,
                    violation: Some(violation),
                };
            }
        }
    }
    text += &describe_world(store, &world);
    let violation = heal(store, &mut world, true).err();
    if violation.is_some() {
        text += "and with no more faults in the end:\n";
        text += &describe_world(store, &world);
    }
    Replayed { text, violation }
}
