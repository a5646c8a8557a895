//! Where the relay is and who logs on: the options every connecting command shares.
//!
//! What the command line leaves out comes from the environment, so that a secret need not stand where `ps` shows it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use relay_client::{Credential, PublisherConfig, Start, SubscriberConfig};

use crate::exit::Failure;

/// Seconds without a connection after which to give up, unless said otherwise.
const GIVE_UP_USUAL: f64 = 10.0;

/// Options of every command that connects.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectOptions {
    /// Address of the relay; several for several nodes [env: RELAY_ADDRESS]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) address: Vec<String>,
    /// Name of the credential [env: RELAY_CREDENTIAL]
    #[arg(long, value_name = "NAME")]
    pub(crate) credential: Option<String>,
    /// The credential's secret in hexadecimal; other users can see it in the process list [env: RELAY_SECRET]
    #[arg(long, value_name = "HEX", conflicts_with = "secret_file")]
    pub(crate) secret: Option<String>,
    /// File that holds the secret in hexadecimal
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Id of the stream; 0 is the one the address serves
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub(crate) stream: u32,
    /// Seconds without a connection after which to give up; 0 tries for ever
    #[arg(long, value_name = "SECONDS", default_value_t = GIVE_UP_USUAL)]
    pub(crate) give_up_after: f64,
}

/// [`ConnectOptions`] completed from the environment and checked.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) addresses: Vec<String>,
    pub(crate) credential: Credential,
    pub(crate) stream: u32,
    pub(crate) give_up_after: Option<Duration>,
}

impl ConnectOptions {
    /// Whether any of them stands on the command line.
    pub(crate) fn is_given(&self) -> bool {
        let is_named = self.credential.is_some() || self.stream != 0;
        let has_secret = self.secret.is_some() || self.secret_file.is_some();
        let is_patient = self.give_up_after != GIVE_UP_USUAL;
        !self.address.is_empty() || is_named || has_secret || is_patient
    }

    /// Completes the options from the environment.
    pub(crate) fn resolve(&self) -> Result<Connection, Failure> {
        self.resolve_with(|name| std::env::var(name).ok())
    }

    fn resolve_with(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Connection, Failure> {
        let mut addresses = self.address.clone();
        if addresses.is_empty() {
            let listed = environment("RELAY_ADDRESS").unwrap_or_default();
            addresses.extend(listed.split(',').map(|part| part.trim().to_owned()));
        }
        addresses.retain(|address| !address.is_empty());
        if addresses.is_empty() {
            return missing("an address", "--address HOST:PORT", "RELAY_ADDRESS");
        }
        let Some(name) = self
            .credential
            .clone()
            .or_else(|| environment("RELAY_CREDENTIAL"))
        else {
            return missing("a credential", "--credential NAME", "RELAY_CREDENTIAL");
        };
        let digits = match (&self.secret, &self.secret_file) {
            (Some(digits), _) => digits.clone(),
            (None, Some(path)) => fs::read_to_string(path)
                .map_err(|error| Failure::file("reading the secret", path, &error))?,
            (None, None) => match environment("RELAY_SECRET") {
                Some(digits) => digits,
                None => return missing("a secret", "--secret-file FILE", "RELAY_SECRET"),
            },
        };
        let secret = decode_hex(digits.trim()).ok_or_else(|| {
            Failure::Usage(
                "the secret is not an even number of hexadecimal digits; \
                 copy it as it stands in relayd's configuration"
                    .into(),
            )
        })?;
        if !(self.give_up_after.is_finite() && (0.0..=1e9).contains(&self.give_up_after)) {
            let text = "--give-up-after takes seconds, 0 or more; 0 tries for ever";
            return Err(Failure::Usage(text.into()));
        }
        let give_up_after = Duration::from_secs_f64(self.give_up_after);
        Ok(Connection {
            addresses,
            credential: Credential { name, secret },
            stream: self.stream,
            give_up_after: (!give_up_after.is_zero()).then_some(give_up_after),
        })
    }
}

fn missing<T>(what: &str, option: &str, variable: &str) -> Result<T, Failure> {
    Err(Failure::Usage(format!(
        "{what} is needed; give {option} or set {variable}"
    )))
}

impl Connection {
    /// Settings of a publisher.
    pub(crate) fn publisher(&self, id: u64) -> PublisherConfig {
        let mut config = PublisherConfig::new(self.addresses.clone(), self.credential.clone(), id);
        config.stream = self.stream;
        config.give_up_after = self.give_up_after;
        config
    }

    /// Settings of a subscriber.
    pub(crate) fn subscriber(&self, patterns: Vec<String>, start: Start) -> SubscriberConfig {
        let addresses = self.addresses.clone();
        let mut config = SubscriberConfig::new(addresses, self.credential.clone(), patterns, start);
        config.stream = self.stream;
        config.give_up_after = self.give_up_after;
        config
    }
}

/// The bytes that an even number of hexadecimal digits stands for; at least one.
pub(crate) fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_fills_what_the_command_line_leaves_out() {
        let options = ConnectOptions {
            address: vec!["a:1".into()],
            ..Default::default()
        };
        let connection = options
            .resolve_with(|name| match name {
                "RELAY_ADDRESS" => Some("b:2,c:3".into()),
                "RELAY_CREDENTIAL" => Some("desk".into()),
                "RELAY_SECRET" => Some("00fF\n".into()),
                _ => None,
            })
            .expect("complete");
        assert_eq!(connection.addresses, ["a:1"]);
        assert_eq!(connection.credential.name, "desk");
        assert_eq!(connection.credential.secret, [0, 255]);
        assert_eq!(connection.give_up_after, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = ConnectOptions::default()
            .resolve_with(|_| None)
            .expect_err("no address");
        assert!(error.to_string().contains("RELAY_ADDRESS"), "{error}");
    }

    #[test]
    fn secrets_are_whole_bytes_of_hexadecimal() {
        for bad in ["", "0", "zz", "+1", "é"] {
            assert_eq!(decode_hex(bad), None, "{bad}");
        }
    }
}
