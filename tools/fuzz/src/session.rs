//! The three machines together, in memory, under an arbitrary sequence of operations by clients, the network, the disk and
//! the clock, with crashes between them.
//!
//! ```text
//!   clients --bytes--> Ingress --commands--> Sequence --writes--> disk
//!      ^                                        |
//!      +---- bytes, records ---- Fanout <--releases
//! ```
//!
//! What is demanded: nothing panics; what is released lies on the disk and folds; nothing is acknowledged, told or delivered
//! that is not released; each subscriber gets exactly the records its patterns and start select, in order and byte for byte;
//! a crash loses nothing that was released; and when everything that is under way completes, nobody is left waiting.

mod client;
mod truth;
mod world;

use crate::input::Input;
use world::World;

/// Most operations of one input.
const OPERATIONS_MAX: usize = 400;

/// Carries out the operations `data` spells.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.byte());
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        let operation = input.byte();
        world.operate(operation & 31, &mut input);
        if operation & 128 == 0 {
            world.turn();
        }
    }
    world.finish();
}
