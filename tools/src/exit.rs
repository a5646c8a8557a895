//! How a command ends: the exit statuses, and one way to say what happened.
//!
//! Every error of this program becomes a [`Failure`], whose text reads `what happened; what to do`. Nothing here
//! prints but [`Failure::report`], which `main` calls once.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relay_client::{ClientError, DisconnectReason, TerminateCode};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit statuses as the top-level help shows them.
pub(crate) const STATUSES: &str = "\
Exit statuses:
  0    done, and nothing found wrong
  1    failed
  2    wrong usage
  3    damaged or lost data was found
  4    connection refused, or authentication failed
  5    what was changed on purpose was found: it fits in itself, but not its seal or another copy
  6    something that should be there is missing
  130  interrupted";

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Status 1.
    Failed(String),
    /// Status 2.
    Usage(String),
    /// Status 3.
    Damaged(String),
    /// Status 4.
    Refused(String),
    /// Status 5.
    Tampered(String),
    /// Status 6.
    Incomplete(String),
    /// Status 130.
    Interrupted,
    /// Whoever read the output went away: a quiet end with status 0, as `head` expects it.
    OutputClosed,
}

impl Failure {
    /// A failed operation on a file.
    pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::Failed(format!("{doing} {}: {error}", path.display()))
    }

    /// A failed write to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Failed(format!("writing the output: {error}; see where it goes to"))
    }

    /// Says it on standard error, if there is something to say.
    pub(crate) fn report(&self) {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::Damaged(text)
            | Self::Refused(text)
            | Self::Tampered(text)
            | Self::Incomplete(text) => eprintln!("relay: {text}"),
            Self::Interrupted | Self::OutputClosed => {}
        }
    }

    /// The status the process ends with.
    pub(crate) fn status(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::OutputClosed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Damaged(_) => 3,
            Self::Refused(_) => 4,
            Self::Tampered(_) => 5,
            Self::Incomplete(_) => 6,
            Self::Interrupted => 130,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::Damaged(text)
            | Self::Refused(text)
            | Self::Tampered(text)
            | Self::Incomplete(text) => f.write_str(text),
            Self::Interrupted => f.write_str("interrupted"),
            Self::OutputClosed => f.write_str("the output was closed"),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let refused = match &error {
            ClientError::RelayUnproven { .. } => true,
            ClientError::Terminated { code, .. } => *code == TerminateCode::Authentication,
            ClientError::GaveUp { reason, .. } => matches!(
                reason,
                DisconnectReason::Io {
                    kind: io::ErrorKind::ConnectionRefused,
                    ..
                }
            ),
            _ => false,
        };
        if refused {
            let advice = match &error {
                ClientError::GaveUp { .. } => "; see that relayd runs and listens there",
                _ => "",
            };
            return Self::Refused(format!("{error}{advice}"));
        }
        match error {
            ClientError::Configuration(text) => Self::Usage(text),
            ClientError::WrongHistory { .. }
            | ClientError::Corrupt { .. }
            | ClientError::SequenceLost { .. } => Self::Damaged(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Set once SIGINT or SIGTERM came. A second one ends the process on the spot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches for the signals.
    pub(crate) fn install() -> Result<Self, Failure> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 130, interrupt.0.clone())
                .and_then(|_| flag::register(signal, interrupt.0.clone()))
                .map_err(|error| Failure::Failed(format!("watching for signals: {error}")))?;
        }
        Ok(interrupt)
    }

    /// Whether one came.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once one came.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_set() {
            Err(Failure::Interrupted)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refused_connection_has_its_own_status() {
        let reason = DisconnectReason::Io {
            kind: io::ErrorKind::ConnectionRefused,
            text: "connecting: refused".into(),
        };
        let error = ClientError::GaveUp {
            after: Duration::from_secs(1),
            reason,
        };
        assert!(matches!(Failure::from(error), Failure::Refused(_)));
        let error = ClientError::GaveUp {
            after: Duration::from_secs(1),
            reason: DisconnectReason::Silent,
        };
        assert!(matches!(Failure::from(error), Failure::Failed(_)));
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_end() {
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Failure::output(&error), Failure::OutputClosed));
    }
}
