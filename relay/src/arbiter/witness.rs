//! A witness as the arbiter: one connection of the client library's.

use std::net::SocketAddr;
use std::time::Instant;

use relay_client::witness::{NoAnswer, WitnessClient};
use relay_core::arbiter::{ArbiterAnswer, Ask, Revision};
use relay_core::register;
use relay_wire::id::{NodeId, StreamId};
use relay_wire::membership::Membership;
use relay_wire::witness::{Answer, Request};

use super::config::ArbiterConfig;
use super::{Created, Lost, Progress};

/// See the module's description.
pub(super) struct WitnessBackend {
    address: SocketAddr,
    secret: Vec<u8>,
    node: NodeId,
    stream: StreamId,
    client: Option<WitnessClient>,
}

impl From<NoAnswer> for Lost {
    fn from(none: NoAnswer) -> Self {
        Self {
            was_sent: none.was_sent,
            why: none.reason.to_string(),
        }
    }
}

impl WitnessBackend {
    pub(super) fn new(config: &ArbiterConfig, address: SocketAddr, secret: Vec<u8>) -> Self {
        Self {
            address,
            secret,
            node: config.node,
            stream: config.stream,
            client: None,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.client.as_ref().is_some_and(WitnessClient::is_quiet)
    }

    pub(super) fn connect(&mut self, until: Instant) -> Progress {
        match WitnessClient::connect(self.address, &self.secret, self.node, until) {
            Ok(client) => {
                self.client = Some(client);
                Progress::Done
            }
            Err(failure) => Progress::Failed(format!("witness {}: {failure}", self.address)),
        }
    }

    pub(super) fn ping(&mut self, until: Instant) -> Progress {
        match self.request(&Request::Status, until) {
            Ok(_) => Progress::Done,
            Err(lost) => Progress::Failed(lost.why),
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.client = None;
    }

    pub(super) fn ask(&mut self, ask: &Ask, deadline: Instant) -> Result<ArbiterAnswer, Lost> {
        let answer = self.request(&register::request(ask), deadline)?;
        Ok(register::answer(self.stream, &answer))
    }

    pub(super) fn create(
        &mut self,
        record: &Membership,
        deadline: Instant,
    ) -> Result<Created, Lost> {
        let record = register::record_value(record);
        Ok(match self.request(&Request::Create { record }, deadline)? {
            Answer::Done(revision) => Created::Done(Revision(revision)),
            Answer::NoRoom => Created::NoRoom,
            Answer::Refused(Some(held)) => Created::Exists(register::registers(self.stream, &held)),
            Answer::Refused(None) | Answer::Registers(_) | Answer::Status(_) => {
                Created::Exists(None)
            }
        })
    }

    fn request(&mut self, request: &Request, deadline: Instant) -> Result<Answer, Lost> {
        let Some(client) = &mut self.client else {
            return Err(Lost {
                was_sent: false,
                why: "no connection".to_owned(),
            });
        };
        let mut lost = match client.ask(self.stream, request, deadline) {
            Ok(answer) => return Ok(answer),
            Err(none) => Lost::from(none),
        };
        lost.why = format!("witness {}: {}", self.address, lost.why);
        Err(lost)
    }
}
