//! What can go wrong in a measurement, said so that the operator knows what to change.
//!
//! Environment faults (a refused ring, a full disk, a missing processor) are values of this type;
//! only the floor's own bugs are assertions.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a floor could not be measured.
#[derive(Debug)]
pub enum FloorError {
    /// An option is outside its range.
    Invalid {
        /// The option's field name.
        option: &'static str,
        /// What it must be.
        reason: String,
    },
    /// The kernel refused to create a ring.
    RingRefused {
        /// The answer of `io_uring_setup`.
        source: io::Error,
    },
    /// A ring that exists failed.
    Ring {
        /// What was being done.
        stage: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The directory is on a file system that keeps nothing on a disk.
    NotDurable {
        /// The directory.
        path: PathBuf,
        /// The file system's name.
        file_system: &'static str,
    },
    /// The file system refuses direct writes.
    NoDirectIo {
        /// The file that could not be opened.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The files of the run do not fit.
    TooLittleSpace {
        /// The directory.
        path: PathBuf,
        /// Bytes the run needs.
        needed_bytes: u64,
        /// Bytes the file system has for this user.
        available_bytes: u64,
    },
    /// A file operation failed.
    Disk {
        /// What was being done.
        stage: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A loopback socket failed.
    Socket {
        /// What was being done.
        stage: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread could not be pinned.
    Pin {
        /// The processor asked for.
        cpu: usize,
        /// The processors this process may use.
        allowed: Vec<usize>,
    },
    /// Memory for the buffers was refused.
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread could not be started.
    Thread {
        /// Its name.
        name: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The subscriber received messages that nobody sent.
    Foreign {
        /// How many.
        count: u64,
    },
    /// A thread did not get on within its bound.
    Stuck {
        /// What it was doing.
        stage: &'static str,
        /// The bound.
        seconds: u64,
    },
}

impl fmt::Display for FloorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FloorError::Invalid { option, reason } => write!(f, "option {option}: {reason}"),
            FloorError::RingRefused { source } => {
                write!(f, "io_uring refused: {source}; {}", ring_advice(source))
            }
            FloorError::Ring { stage, source } => write!(f, "io_uring: {stage}: {source}"),
            FloorError::NotDurable { path, file_system } => write!(
                f,
                "{} is on {file_system}, which keeps nothing on a disk; name a directory on the \
                 device to be measured",
                path.display()
            ),
            FloorError::NoDirectIo { path, source } => write!(
                f,
                "{}: the file system refuses direct writes (O_DIRECT): {source}; name a directory \
                 on ext4, xfs or another file system that has them",
                path.display()
            ),
            FloorError::TooLittleSpace {
                path,
                needed_bytes,
                available_bytes,
            } => write!(
                f,
                "{}: {} MiB needed, {} MiB available; free some, lower file_mib or name another \
                 directory",
                path.display(),
                needed_bytes.div_ceil(1 << 20),
                available_bytes >> 20
            ),
            FloorError::Disk {
                stage,
                path,
                source,
            } => {
                write!(f, "{}: {stage}: {source}", path.display())
            }
            FloorError::Socket { stage, source } => {
                write!(f, "loopback socket: {stage}: {source}")
            }
            FloorError::Pin { cpu, allowed } => write!(
                f,
                "processor {cpu} is not available to this process (available: {allowed:?}); name \
                 another, or none to leave the thread unpinned"
            ),
            FloorError::Foreign { count } => {
                write!(
                    f,
                    "{count} messages were received that were never sent: bytes were altered on the way"
                )
            }
            FloorError::Memory { bytes, source } => {
                write!(f, "{bytes} bytes of buffer memory refused: {source}")
            }
            FloorError::Thread { name, source } => {
                write!(f, "thread {name} could not be started: {source}")
            }
            FloorError::Stuck { stage, seconds } => {
                write!(f, "no end after {seconds} s: {stage}")
            }
        }
    }
}

impl std::error::Error for FloorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FloorError::RingRefused { source }
            | FloorError::Ring { source, .. }
            | FloorError::NoDirectIo { source, .. }
            | FloorError::Disk { source, .. }
            | FloorError::Socket { source, .. }
            | FloorError::Memory { source, .. }
            | FloorError::Thread { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What to look at, by the answer of `io_uring_setup`.
fn ring_advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "look at sysctl kernel.io_uring_disabled (0 allows everyone, 1 needs CAP_SYS_ADMIN or \
             kernel.io_uring_group, 2 forbids it) and at the seccomp profile of the container"
        }
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring, or a seccomp profile hides it (container runtimes do by \
             default); sysctl kernel.io_uring_disabled exists where the kernel has it"
        }
        Some(libc::EINVAL) => "kernel 6.1 or later is needed (DEFER_TASKRUN, SINGLE_ISSUER)",
        Some(libc::ENOMEM) => "raise the locked-memory limit (ulimit -l, LimitMEMLOCK=)",
        Some(libc::EMFILE | libc::ENFILE) => "raise the open-file limit (ulimit -n)",
        _ => "no advice is known for this answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_ring_names_the_sysctl_and_seccomp() {
        for code in [libc::EPERM, libc::ENOSYS] {
            let source = io::Error::from_raw_os_error(code);
            let text = FloorError::RingRefused { source }.to_string();
            assert!(text.contains("kernel.io_uring_disabled"), "{text}");
            assert!(text.contains("seccomp"), "{text}");
        }
    }
}
