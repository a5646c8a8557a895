//! The arbiter: one record and one floor that change by compare-and-swap.

use relay_core::arbiter::{ArbiterAnswer, Ask, Registers, Revision};
use relay_wire::code::Policy;
use relay_wire::id::{Epoch, NodeId, StreamId};
use relay_wire::membership::{Members, Membership};

use crate::bounds::Bounds;
use crate::machine::Machine;

/// What it holds for a new group: all nodes, led by the first.
pub(crate) fn first_registers(bounds: &Bounds, machines: &[Machine]) -> Registers {
    let members: Vec<_> = machines.iter().map(Machine::member).collect();
    Registers {
        membership: Membership {
            stream: StreamId(1),
            epoch: Epoch(1),
            nonce: 42,
            primary: NodeId(1),
            members: Members::of(&members),
            min_copies: bounds.min_copies,
            policy: Policy::Durable,
        },
        revision: Revision(1),
        floor: None,
        floor_revision: Revision(0),
    }
}

/// Carries out a request.
pub(crate) fn carry_out(registers: &mut Registers, ask: &Ask) -> ArbiterAnswer {
    if !can_land(registers, ask) {
        return ArbiterAnswer::Refused(Some(*registers));
    }
    match ask {
        Ask::Read => ArbiterAnswer::Read(Some(*registers)),
        Ask::Swap { next, .. } => {
            registers.membership = *next;
            registers.revision.0 += 1;
            ArbiterAnswer::Done(registers.revision)
        }
        Ask::Floor { floor, .. } => {
            registers.floor = Some(*floor);
            registers.floor_revision.0 += 1;
            ArbiterAnswer::Done(registers.floor_revision)
        }
    }
}

/// Whether a request would change something; once it would not it never will, since revisions only rise.
pub(crate) fn can_land(registers: &Registers, ask: &Ask) -> bool {
    match ask {
        Ask::Read => true,
        Ask::Swap {
            base, floor_base, ..
        } => {
            let floor_fits = floor_base.is_none_or(|base| base == registers.floor_revision);
            *base == registers.revision && floor_fits
        }
        Ask::Floor { base, .. } => *base == registers.revision,
    }
}

/// Whether it asks for a change, whose outcome can be in doubt.
pub(crate) const fn is_change(ask: &Ask) -> bool {
    matches!(ask, Ask::Swap { .. } | Ask::Floor { .. })
}
