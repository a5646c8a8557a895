//! etcd as the arbiter: two keys of a stream, changed by transactions that compare their modification revisions.
//!
//! No lock and no lease of etcd's decides anything. A record is what lies under `<prefix>record`, the floor under
//! `<prefix>floor`, both in the bytes a witness would hold; revisions are etcd's own, which never come twice. One member is
//! talked to at a time and another one tried when that fails: a balancer would send a change to a member that is gone.
//!
//! The client is asynchronous. Its runtime has one thread, this one, and runs only inside the calls here; what takes longer, a
//! logon with a password above all, is a task that goes on in slices between requests.

use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, Identity, TlsOptions, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};
use relay_core::arbiter::{ArbiterAnswer, Ask, Revision};
use relay_core::register;
use relay_wire::id::StreamId;
use relay_wire::membership::Membership;
use relay_wire::witness::{Cell, Registers, Value};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::config::{ArbiterConfig, EtcdConfig};
use super::{Created, Lost, Progress};

/// Longest time an attempt to connect keeps requests waiting.
pub(super) const SLICE: Duration = Duration::from_millis(10);
/// Most time for connecting, TLS and logon (etcd takes some 50 ms of hashing for a password) with one member.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A member that answers nothing for so long is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// gRPC codes with which etcd refuses a request that it did not carry out: INVALID_ARGUMENT, PERMISSION_DENIED,
/// UNAUTHENTICATED.
const REFUSED_CODES: [i32; 3] = [3, 7, 16];

/// See the module's description.
pub(super) struct EtcdBackend {
    endpoints: Vec<String>,
    /// The member tried now.
    endpoint: usize,
    options: ConnectOptions,
    record_key: String,
    floor_key: String,
    stream: StreamId,
    client: Option<Client>,
    connecting: Option<JoinHandle<Result<Client, Error>>>,
    pinging: Option<JoinHandle<Result<TxnResponse, Error>>>,
    // Last, so that what runs in it goes first.
    runtime: Runtime,
}

impl EtcdBackend {
    pub(super) fn new(config: &ArbiterConfig, etcd: &EtcdConfig) -> io::Result<Self> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_tcp_keepalive(Duration::from_secs(5))
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &etcd.user {
            options = options.with_user(user, password);
        }
        if let Some(tls) = &etcd.tls {
            let mut given = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                given = given.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(given);
        }
        Ok(Self {
            endpoints: etcd.endpoints.clone(),
            endpoint: 0,
            options,
            record_key: format!("{}record", etcd.prefix),
            floor_key: format!("{}floor", etcd.prefix),
            stream: config.stream,
            client: None,
            connecting: None,
            pinging: None,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.client.is_some()
    }

    pub(super) fn connect(&mut self, until: Instant) -> Progress {
        let read = self.read_both();
        let connecting = self.connecting.get_or_insert_with(|| {
            let (endpoint, options) = (self.endpoints[self.endpoint].clone(), self.options.clone());
            self.runtime.spawn(async move {
                let connect = async {
                    // Connecting is lazy: only an answer shows that somebody is there, and that there is a majority.
                    let mut client = Client::connect([endpoint], Some(options)).await?;
                    client.txn(read).await?;
                    Ok(client)
                };
                let in_time = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
                in_time.unwrap_or_else(|_| Err(Error::IoError(io::ErrorKind::TimedOut.into())))
            })
        });
        let waited = self
            .runtime
            .block_on(async { tokio::time::timeout_at(until.into(), connecting).await });
        let Ok(joined) = waited else {
            return Progress::Pending;
        };
        self.connecting = None;
        match joined.expect("nobody stops the task") {
            Ok(client) => {
                self.client = Some(client);
                Progress::Done
            }
            Err(error) => {
                let why = self.told(&error);
                self.endpoint = (self.endpoint + 1) % self.endpoints.len();
                Progress::Failed(why)
            }
        }
    }

    pub(super) fn ping(&mut self, until: Instant) -> Progress {
        let read = self.read_both();
        let Some(client) = &self.client else {
            return Progress::Failed("no connection".to_owned());
        };
        let pinging = self.pinging.get_or_insert_with(|| {
            let mut client = client.clone();
            self.runtime.spawn(async move {
                let in_time = tokio::time::timeout(PING_TIMEOUT, client.txn(read)).await;
                in_time.unwrap_or_else(|_| Err(Error::IoError(io::ErrorKind::TimedOut.into())))
            })
        });
        let waited = self
            .runtime
            .block_on(async { tokio::time::timeout_at(until.into(), pinging).await });
        let Ok(joined) = waited else {
            return Progress::Pending;
        };
        self.pinging = None;
        match joined.expect("nobody stops the task") {
            Ok(_) => Progress::Done,
            Err(error) => Progress::Failed(self.told(&error)),
        }
    }

    pub(super) fn disconnect(&mut self) {
        if self.client.take().is_some() {
            // Whoever failed is not asked first again.
            self.endpoint = (self.endpoint + 1) % self.endpoints.len();
        }
        for task in [
            self.pinging.take().map(|task| task.abort_handle()),
            self.connecting.take().map(|task| task.abort_handle()),
        ]
        .into_iter()
        .flatten()
        {
            task.abort();
        }
    }

    pub(super) fn ask(&mut self, ask: &Ask, deadline: Instant) -> Result<ArbiterAnswer, Lost> {
        let (txn, is_change) = match ask {
            Ask::Read => (self.read_both(), false),
            // A key that is not there has revision 0 in etcd's eyes too, and the swap would make it: nothing but an
            // initialisation may.
            Ask::Swap { base, .. } | Ask::Floor { base, .. } if *base == Revision(0) => {
                let held = self.held(self.read_both(), deadline)?;
                return Ok(self.understood(held, ArbiterAnswer::Refused));
            }
            Ask::Swap {
                base,
                floor_base,
                next,
            } => {
                let mut due = vec![self.record_is(*base)];
                if let Some(floor_base) = floor_base {
                    let revision = floor_base.0 as i64;
                    let key = self.floor_key.clone();
                    due.push(Compare::mod_revision(key, CompareOp::Equal, revision));
                }
                let value = register::record_value(next);
                let put = TxnOp::put(self.record_key.clone(), value.as_slice(), None);
                (self.change(due, vec![put]), true)
            }
            Ask::Floor { base, floor } => {
                let value = register::floor_value(floor);
                let put = TxnOp::put(self.floor_key.clone(), value.as_slice(), None);
                (self.change(vec![self.record_is(*base)], vec![put]), true)
            }
        };
        let response = self.transact(txn, deadline)?;
        if is_change && response.succeeded() {
            return Ok(revision_of(&response).map_or(ArbiterAnswer::Unknown, ArbiterAnswer::Done));
        }
        let wrap = if is_change {
            ArbiterAnswer::Refused
        } else {
            ArbiterAnswer::Read
        };
        Ok(self.understood(held_in(&response), wrap))
    }

    pub(super) fn create(
        &mut self,
        record: &Membership,
        deadline: Instant,
    ) -> Result<Created, Lost> {
        let value = register::record_value(record);
        let absent = Compare::create_revision(self.record_key.clone(), CompareOp::Equal, 0);
        let make = vec![
            TxnOp::put(self.record_key.clone(), value.as_slice(), None),
            // Left over where an operator removed a group's record by hand; it is not this group's.
            TxnOp::delete(self.floor_key.clone(), None),
        ];
        let response = self.transact(self.change(vec![absent], make), deadline)?;
        if response.succeeded() {
            return match revision_of(&response) {
                Some(revision) => Ok(Created::Done(revision)),
                None => Err(Lost {
                    was_sent: true,
                    why: "etcd answered without a revision".to_owned(),
                }),
            };
        }
        let held = held_in(&response).ok().flatten();
        let found = held.and_then(|held| register::registers(self.stream, &held));
        Ok(Created::Exists(found))
    }

    fn record_is(&self, base: Revision) -> Compare {
        Compare::mod_revision(self.record_key.clone(), CompareOp::Equal, base.0 as i64)
    }

    fn both(&self) -> Vec<TxnOp> {
        vec![
            TxnOp::get(self.record_key.clone(), None),
            TxnOp::get(self.floor_key.clone(), None),
        ]
    }

    /// Without a comparison; etcd reads linearizably unless told otherwise.
    fn read_both(&self) -> Txn {
        Txn::new().and_then(self.both())
    }

    fn change(&self, due: Vec<Compare>, then: Vec<TxnOp>) -> Txn {
        Txn::new().when(due).and_then(then).or_else(self.both())
    }

    fn held(&mut self, txn: Txn, deadline: Instant) -> Result<Held, Lost> {
        Ok(held_in(&self.transact(txn, deadline)?))
    }

    fn understood(
        &self,
        held: Held,
        wrap: fn(Option<relay_core::arbiter::Registers>) -> ArbiterAnswer,
    ) -> ArbiterAnswer {
        match held {
            Ok(None) => wrap(None),
            Ok(Some(held)) => register::registers(self.stream, &held)
                .map_or(ArbiterAnswer::Garbled, |found| wrap(Some(found))),
            Err(Garbled) => ArbiterAnswer::Garbled,
        }
    }

    fn transact(&mut self, txn: Txn, deadline: Instant) -> Result<TxnResponse, Lost> {
        let Some(client) = &mut self.client else {
            return Err(Lost {
                was_sent: false,
                why: "no connection".to_owned(),
            });
        };
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout_at(deadline.into(), client.txn(txn)).await });
        match answered {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Lost {
                was_sent: !is_unsent(&error),
                why: self.told(&error),
            }),
            Err(_) => Err(Lost {
                was_sent: true,
                why: format!("etcd {}: no answer in time", self.endpoints[self.endpoint]),
            }),
        }
    }

    fn told(&self, error: &Error) -> String {
        let mut told = format!("etcd {}: {error}", self.endpoints[self.endpoint]);
        let mut source = source_of(error);
        while let Some(cause) = source {
            let cause_told = cause.to_string();
            if !told.contains(&cause_told) {
                told = format!("{told}: {cause_told}");
            }
            source = cause.source();
        }
        told
    }
}

/// What lies under a stream's keys, or that it can't be what belongs there.
type Held = Result<Option<Registers>, Garbled>;
struct Garbled;

fn held_in(response: &TxnResponse) -> Held {
    let mut cells = response.op_responses().into_iter().map(|op| {
        let TxnOpResponse::Get(got) = op else {
            return Err(Garbled);
        };
        let Some(found) = got.kvs().first() else {
            return Ok(None);
        };
        let revision = u64::try_from(found.mod_revision()).map_err(|_| Garbled)?;
        let value = Value::new(found.value()).ok_or(Garbled)?;
        Ok(Some(Cell { revision, value }))
    });
    let record = cells.next().ok_or(Garbled)??;
    let floor = cells.next().ok_or(Garbled)??;
    match (record, floor) {
        (Some(record), floor) => Ok(Some(Registers { record, floor })),
        (None, _) => Ok(None),
    }
}

fn revision_of(response: &TxnResponse) -> Option<Revision> {
    let revision = response.header()?.revision();
    u64::try_from(revision).ok().map(Revision)
}

fn source_of(error: &Error) -> Option<&(dyn std::error::Error + 'static)> {
    match error {
        Error::GRpcStatus(status) => status.source(),
        Error::TransportError(error) => error.source(),
        other => other.source(),
    }
}

/// Whether a request that ended so was surely never carried out: no connection could be made for it, or etcd refused it.
fn is_unsent(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else {
        return false;
    };
    if REFUSED_CODES.contains(&(status.code() as i32)) {
        return true;
    }
    let mut source = status.source();
    while let Some(cause) = source {
        let io = cause.downcast_ref::<io::Error>();
        // Only connect(2) gives this one.
        if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = cause.source();
    }
    false
}
