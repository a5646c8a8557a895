//! Who may do what: the credentials of the configuration.

use relay_wire::code::Role;
use relay_wire::id::PublisherId;
use relay_wire::message::Logon;
use relay_wire::proof::Nonce;
use relay_wire::topic;

/// One party's rights.
#[derive(Clone, Hash)]
pub struct Credential {
    /// Name it logs on with.
    pub name: String,
    /// Shared secret.
    pub secret: Vec<u8>,
    /// The publisher id it may log on as, if any.
    pub publisher: Option<PublisherId>,
    /// Patterns it may publish to.
    pub publish: Vec<String>,
    /// Patterns it may read.
    pub subscribe: Vec<String>,
    /// Most messages per second; 0 for no limit.
    pub rate_limit: u32,
}

impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Credential")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// Whether it may publish to the topic `name`.
    #[must_use]
    pub fn may_publish(&self, name: &str) -> bool {
        self.publish
            .iter()
            .any(|pattern| topic::matches(pattern, name))
    }

    /// Whether it may read all that `pattern` selects.
    #[must_use]
    pub fn may_subscribe(&self, pattern: &str) -> bool {
        self.subscribe
            .iter()
            .any(|allowed| topic::covers(allowed, pattern))
    }
}

/// All credentials of a stream.
#[derive(Debug, Clone, Hash, Default)]
pub struct CredentialBook {
    credentials: Vec<Credential>,
}

impl CredentialBook {
    /// A book of `credentials`, whose names were checked to differ.
    #[must_use]
    pub const fn new(credentials: Vec<Credential>) -> Self {
        Self { credentials }
    }

    /// The credential at `index`.
    ///
    /// # Panics
    /// When the book never gave out that index.
    #[must_use]
    pub fn get(&self, index: u32) -> &Credential {
        &self.credentials[index as usize]
    }

    /// The place of the credential that `logon` proves, if it may have the role it asks for.
    ///
    /// An unknown name costs the same computation as a known one, so that timing names nobody.
    #[must_use]
    pub fn admit(&self, logon: &Logon<'_>, relay_nonce: &Nonce) -> Option<u32> {
        let found = self.credentials.iter().position(|c| c.name == logon.name);
        let secret = found.map_or(&[][..], |index| &self.credentials[index].secret);
        let proof_holds = logon.proof_holds(secret, relay_nonce);
        let index = found?;
        let credential = &self.credentials[index];
        let role_allowed = match logon.role {
            Role::Publisher => {
                logon.publisher.get() != 0
                    && logon.incarnation.get() != 0
                    && credential.publisher == Some(logon.publisher)
            }
            Role::Subscriber => {
                logon.publisher.get() == 0
                    && logon.incarnation.get() == 0
                    && !credential.subscribe.is_empty()
            }
        };
        (proof_holds && role_allowed).then_some(index as u32)
    }
}
