//! Pinning the calling thread to a processor, and giving the processor away when idle.

use crate::error::FloorError;

/// Pins the calling thread to `cpu`; `None` leaves it where the scheduler puts it.
pub(crate) fn pin(cpu: Option<usize>) -> Result<(), FloorError> {
    let Some(id) = cpu else { return Ok(()) };
    // core_affinity indexes a fixed set of processors and aborts the process beyond its end.
    let representable = id < libc::CPU_SETSIZE as usize;
    if representable && core_affinity::set_for_current(core_affinity::CoreId { id }) {
        return Ok(());
    }
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    Err(FloorError::Pin {
        cpu: id,
        allowed: allowed.iter().map(|core| core.id).collect(),
    })
}

/// Lets another runnable thread of this processor go first.
pub(crate) fn yield_cpu() {
    // SAFETY: sched_yield takes no argument and touches no memory of ours.
    unsafe { libc::sched_yield() };
}
