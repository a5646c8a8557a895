//! The part of a group's configuration that says who keeps its membership record.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relay_wire::id::{NodeId, StreamId};
use serde::Deserialize;

const DEADLINE_MS_DEFAULT: u64 = 100;

/// What an operator writes under `[...group.arbiter]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArbiterSection {
    kind: KindName,
    /// Most time for an answer, ms.
    deadline_ms: Option<u64>,
    /// The witness.
    address: Option<SocketAddr>,
    /// etcd's members.
    endpoints: Option<Vec<String>>,
    /// What the stream's keys begin with.
    prefix: Option<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Witness,
    Etcd,
    Manual,
}

/// What the section needs to know from around it.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The configuration file, beside which other files are looked for.
    pub file: &'a Path,
    /// This node.
    pub node: NodeId,
    /// The stream.
    pub stream: StreamId,
    /// The group's name.
    pub group: &'a str,
    /// The group's secret.
    pub secret: &'a [u8],
    /// Where the stream's journal lies.
    pub directory: &'a Path,
}

/// Who keeps a stream's record and how to reach them, checked.
#[derive(Debug, Clone)]
pub struct ArbiterConfig {
    pub(super) node: NodeId,
    pub(super) stream: StreamId,
    pub(super) deadline: Duration,
    pub(super) kind: Kind,
}

impl ArbiterConfig {
    /// Whether an operator decides, so that nothing is asked of anybody.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        matches!(self.kind, Kind::Manual { .. })
    }

    /// The directory of the node's own register, where an operator decides.
    pub(super) fn own_register(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Manual { directory } => Some(directory),
            _ => None,
        }
    }
}

/// Who keeps a stream's record.
#[derive(Clone)]
pub(super) enum Kind {
    Witness {
        address: SocketAddr,
        secret: Vec<u8>,
    },
    Etcd(EtcdConfig),
    Manual {
        directory: PathBuf,
    },
}

/// How to reach etcd.
#[derive(Clone)]
#[cfg_attr(not(feature = "etcd"), expect(dead_code))]
pub(super) struct EtcdConfig {
    pub(super) endpoints: Vec<String>,
    pub(super) prefix: String,
    /// Name and password.
    pub(super) user: Option<(String, String)>,
    pub(super) tls: Option<Tls>,
}

/// Whom to trust and who to be, PEM.
#[derive(Clone)]
#[cfg_attr(not(feature = "etcd"), expect(dead_code))]
pub(super) struct Tls {
    pub(super) ca: Vec<u8>,
    /// Certificate and key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Secrets stay out of logs.
impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Witness { address, .. } => write!(f, "witness {address}"),
            Self::Etcd(etcd) => write!(f, "etcd {:?} {}", etcd.endpoints, etcd.prefix),
            Self::Manual { .. } => write!(f, "manual"),
        }
    }
}

/// The key that is wrong, and why.
pub type Refusal = (&'static str, String);

impl ArbiterSection {
    /// Checks what the parser can't, and reads the files it names.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn check(&self, around: &Surroundings<'_>) -> Result<ArbiterConfig, Refusal> {
        let deadline_ms = self.deadline_ms.unwrap_or(DEADLINE_MS_DEFAULT);
        if !(10..=60_000).contains(&deadline_ms) {
            let message = format!("{deadline_ms} is not within 10 to 60000");
            return Err(("deadline_ms", message));
        }
        self.check_keys()?;
        let kind = match self.kind {
            KindName::Manual => Kind::Manual {
                directory: around.directory.to_owned(),
            },
            KindName::Witness => Kind::Witness {
                address: self
                    .address
                    .ok_or_else(|| ("address", "a witness needs its address".to_owned()))?,
                secret: around.secret.to_vec(),
            },
            KindName::Etcd => Kind::Etcd(self.etcd(around)?),
        };
        Ok(ArbiterConfig {
            node: around.node,
            stream: around.stream,
            deadline: Duration::from_millis(deadline_ms),
            kind,
        })
    }

    /// Refuses keys of another kind than this one.
    fn check_keys(&self) -> Result<(), Refusal> {
        let given = [
            (
                "deadline_ms",
                self.deadline_ms.is_some(),
                &[KindName::Witness, KindName::Etcd][..],
            ),
            ("address", self.address.is_some(), &[KindName::Witness]),
            ("endpoints", self.endpoints.is_some(), &[KindName::Etcd]),
            ("prefix", self.prefix.is_some(), &[KindName::Etcd]),
            ("user", self.user.is_some(), &[KindName::Etcd]),
            (
                "password_file",
                self.password_file.is_some(),
                &[KindName::Etcd],
            ),
            ("ca_file", self.ca_file.is_some(), &[KindName::Etcd]),
            ("cert_file", self.cert_file.is_some(), &[KindName::Etcd]),
            ("key_file", self.key_file.is_some(), &[KindName::Etcd]),
        ];
        for (key, is_given, kinds) in given {
            if is_given && !kinds.contains(&self.kind) {
                let kind = format!("{:?}", self.kind).to_lowercase();
                return Err((
                    key,
                    format!("an arbiter of kind \"{kind}\" has no such key"),
                ));
            }
        }
        Ok(())
    }

    fn etcd(&self, around: &Surroundings<'_>) -> Result<EtcdConfig, Refusal> {
        let endpoints = self.endpoints.clone().unwrap_or_default();
        if endpoints.is_empty() || endpoints.len() > 16 {
            return Err((
                "endpoints",
                "1 to 16 addresses of etcd's members are needed".to_owned(),
            ));
        }
        let tls = self.tls(around)?;
        let scheme = if tls.is_some() { "https://" } else { "http://" };
        if let Some(odd) = endpoints
            .iter()
            .find(|endpoint| !endpoint.starts_with(scheme))
        {
            let message = if tls.is_some() {
                format!("\"{odd}\": with ca_file every address begins with https://")
            } else {
                format!(
                    "\"{odd}\": an address begins with http://, or with https:// and ca_file given"
                )
            };
            return Err(("endpoints", message));
        }
        let prefix = match &self.prefix {
            Some(prefix) => prefix.clone(),
            None => format!("/relay/{}/{}/", around.group, around.stream),
        };
        if prefix.is_empty() || prefix.len() > 512 {
            return Err(("prefix", "a prefix has 1 to 512 bytes".to_owned()));
        }
        let user = match (&self.user, &self.password_file) {
            (None, None) => None,
            (Some(user), Some(path)) => {
                let password = read("password_file", around.file, path)?;
                let password = String::from_utf8(password)
                    .map_err(|_| ("password_file", "is not UTF-8".to_owned()))?;
                Some((
                    user.clone(),
                    password.trim_end_matches(['\r', '\n']).to_owned(),
                ))
            }
            (Some(_), None) => {
                return Err(("user", "needs a password_file too".to_owned()));
            }
            (None, Some(_)) => {
                return Err(("password_file", "needs a user too".to_owned()));
            }
        };
        Ok(EtcdConfig {
            endpoints,
            prefix,
            user,
            tls,
        })
    }

    fn tls(&self, around: &Surroundings<'_>) -> Result<Option<Tls>, Refusal> {
        let read = |key, path| read(key, around.file, path);
        let identity = match (&self.cert_file, &self.key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some((read("cert_file", certificate)?, read("key_file", key)?))
            }
            (Some(_), None) => return Err(("cert_file", "needs a key_file too".to_owned())),
            (None, Some(_)) => return Err(("key_file", "needs a cert_file too".to_owned())),
        };
        match (&self.ca_file, identity) {
            (Some(ca), identity) => Ok(Some(Tls {
                ca: read("ca_file", ca)?,
                identity,
            })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(("cert_file", "needs a ca_file too".to_owned())),
        }
    }
}

fn read(key: &'static str, file: &Path, path: &Path) -> Result<Vec<u8>, Refusal> {
    let base = file.parent().unwrap_or(Path::new("."));
    std::fs::read(base.join(path)).map_err(|error| (key, format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<ArbiterConfig, String> {
        let section: ArbiterSection = toml::from_str(text).map_err(|error| error.to_string())?;
        let around = Surroundings {
            file: Path::new("relayd.toml"),
            node: NodeId(1),
            stream: StreamId(7),
            group: "orders",
            secret: b"0123456789abcdef",
            directory: Path::new("orders"),
        };
        section
            .check(&around)
            .map_err(|(key, message)| format!("{key}: {message}"))
    }

    #[test]
    fn each_kind_is_taken() {
        let shown = |text: &str| format!("{:?}", checked(text).unwrap().kind);
        assert_eq!(shown("kind = \"manual\""), "manual");
        let witness = "kind = \"witness\"\naddress = \"10.0.0.3:7500\"";
        assert_eq!(shown(witness), "witness 10.0.0.3:7500");
        let etcd = "kind = \"etcd\"\nendpoints = [\"http://10.0.0.3:2379\"]";
        assert_eq!(
            shown(etcd),
            "etcd [\"http://10.0.0.3:2379\"] /relay/orders/7/"
        );
        let config = checked(&format!("{witness}\ndeadline_ms = 250")).unwrap();
        assert_eq!(config.deadline, Duration::from_millis(250));
        let config = checked(witness).unwrap();
        assert_eq!(config.deadline, Duration::from_millis(100));
        assert!(
            !format!("{config:?}").contains("0123"),
            "the secret stays out of logs"
        );
    }

    /// Goal: what does not go together is refused by its key.
    #[test]
    fn what_does_not_fit_is_refused() {
        let etcd = "kind = \"etcd\"\nendpoints = [\"http://10.0.0.3:2379\"]\n";
        let tls = etcd.replace("http:", "https:");
        for (text, expected) in [
            ("kind = \"zookeeper\"".to_owned(), "unknown variant"),
            ("kind = \"manual\"\nspeed = 1".to_owned(), "unknown field"),
            (
                "kind = \"manual\"\ndeadline_ms = 20".to_owned(),
                "deadline_ms: ",
            ),
            ("kind = \"witness\"".to_owned(), "address: "),
            (
                "kind = \"witness\"\naddress = \"10.0.0.3:7500\"\nprefix = \"x\"".to_owned(),
                "prefix: ",
            ),
            ("kind = \"etcd\"".to_owned(), "endpoints: "),
            (format!("{etcd}address = \"10.0.0.3:7500\""), "address: "),
            (format!("{etcd}prefix = \"\""), "prefix: "),
            (format!("{etcd}deadline_ms = 5"), "deadline_ms: "),
            (format!("{etcd}user = \"relay\""), "user: "),
            (format!("{etcd}password_file = \"x\""), "password_file: "),
            (
                format!("{etcd}user = \"relay\"\npassword_file = \"no-such\""),
                "password_file: no-such",
            ),
            (format!("{etcd}cert_file = \"x\""), "cert_file: "),
            (format!("{etcd}key_file = \"x\""), "key_file: "),
            (format!("{etcd}ca_file = \"no-such\""), "ca_file: no-such"),
            (tls, "endpoints: "),
        ] {
            let refused = checked(&text).expect_err(&text);
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }
}
