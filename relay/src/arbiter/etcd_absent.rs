//! Stands in for the way to etcd in a program built without it: a configuration that asks for etcd is refused with what to do.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use relay_core::arbiter::{ArbiterAnswer, Ask};
use relay_wire::membership::Membership;

use super::config::EtcdConfig;
use super::{ArbiterConfig, Created, Lost, Progress};

pub(super) const SLICE: Duration = Duration::ZERO;

/// There is none.
pub(super) struct EtcdBackend(Infallible);

impl EtcdBackend {
    pub(super) fn new(_: &ArbiterConfig, _: &EtcdConfig) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this relayd was built without etcd: build it with `cargo build --release --features \
             relayd/etcd` (needs protoc), or take kind = \"witness\"",
        ))
    }

    pub(super) const fn is_ready(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn connect(&mut self, _: Instant) -> Progress {
        match self.0 {}
    }

    pub(super) fn ping(&mut self, _: Instant) -> Progress {
        match self.0 {}
    }

    pub(super) fn disconnect(&mut self) {
        match self.0 {}
    }

    pub(super) fn ask(&mut self, _: &Ask, _: Instant) -> Result<ArbiterAnswer, Lost> {
        match self.0 {}
    }

    pub(super) fn create(&mut self, _: &Membership, _: Instant) -> Result<Created, Lost> {
        match self.0 {}
    }
}
