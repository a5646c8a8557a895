//! The witness as a real process, and a node's way to it: what was answered survives everything, nobody is answered who did
//! not prove the secret, and whoever gets no answer knows what that may mean.

mod appliance;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use appliance::asker::{self, Asker, SECRET, STREAM, config, config_in, floor, record, swap};
use appliance::disk::{SmallDisk, fill};
use appliance::witness::Witness;
use appliance::{LIMIT, eventually, text};
use relay_client::witness::{WitnessClient, WitnessFailure};
use relay_core::arbiter::{ArbiterAnswer, Ask, Revision};
use relay_wire::code::WitnessCode;
use relay_wire::id::{NodeId, StreamId};
use relay_wire::witness::{
    Answer, Challenge, FRAME_LENGTH_MAX, Frame, Logon, Message, Registers, Request, Value, Welcome,
};
use relayd::arbiter::config::ArbiterConfig;

fn soon() -> Instant {
    Instant::now() + LIMIT
}

fn value(number: u64) -> Value {
    Value::new(&number.to_le_bytes()).unwrap()
}

fn ask(client: &mut WitnessClient, stream: StreamId, request: Request) -> Answer {
    client.ask(stream, &request, soon()).unwrap()
}

fn done(client: &mut WitnessClient, stream: StreamId, request: Request) -> u64 {
    match ask(client, stream, request) {
        Answer::Done(revision) => revision,
        other => panic!("{request:?} gave {other:?}"),
    }
}

fn held(client: &mut WitnessClient, stream: StreamId) -> Option<Registers> {
    match ask(client, stream, Request::Read) {
        Answer::Registers(held) => held,
        other => panic!("{other:?}"),
    }
}

fn change(base: u64, number: u64) -> Request {
    Request::Swap {
        base,
        floor_base: None,
        next: value(number),
    }
}

/// An arbiter at `witness` whose answers are waited for so long: a shared machine's disk and CPUs have pauses.
fn asking_within(witness: &Witness, deadline: Duration) -> ArbiterConfig {
    let section = witness.section();
    config(&format!("{section}deadline_ms = {}", deadline.as_millis()))
}

#[test]
fn the_contract_is_kept() {
    let witness = Witness::started("");
    asker::keeps_the_contract(&asking_within(&witness, LIMIT));
}

#[test]
fn of_two_swaps_on_one_base_exactly_one_wins() {
    let witness = Witness::started("");
    asker::one_wins_each_race(&asking_within(&witness, LIMIT), 1_000);
}

/// Goal: no answered change is lost by a kill at any moment. Method: three writers, each with a stream of its own, swap and
/// write floors as fast as they are answered; after a number of answers drawn from a seed the process gets SIGKILL; what the
/// next process shows must be the last answered state, or the one that was asked for and not answered. 50 rounds.
#[test]
fn what_was_answered_survives_kills_under_load() {
    let seed = appliance::seed();
    let mut random = appliance::Random::new(seed);
    let mut witness = Witness::started("");
    let streams = [StreamId(1), StreamId(2), StreamId(3)];
    let mut client = witness.client();
    for stream in streams {
        done(&mut client, stream, Request::Create { record: value(0) });
    }
    let mut in_flight_landed = 0;
    for round in 0..50 {
        let target = random.below(60);
        let answered = AtomicU64::new(0);
        let outcomes = std::thread::scope(|scope| {
            let writers: Vec<_> = streams
                .iter()
                .map(|&stream| {
                    let mut client = witness.client();
                    let found = held(&mut client, stream).expect("the record is there");
                    let answered = &answered;
                    scope.spawn(move || load(&mut client, stream, found, round, answered))
                })
                .collect();
            eventually("enough was answered", || {
                answered.load(Ordering::Acquire) >= target
            });
            witness.kill();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect::<Vec<_>>()
        });
        witness.start();
        let mut client = witness.client();
        for (stream, (last, maybe)) in streams.into_iter().zip(outcomes) {
            let found = held(&mut client, stream).expect("the record is there");
            let shown = (found.record.value, found.floor.map(|cell| cell.value));
            let context = format!("seed {seed}, round {round}, stream {stream}");
            if shown != last {
                assert_eq!(Some(shown), maybe, "{context}: {last:?} was answered");
                in_flight_landed += 1;
            }
        }
    }
    println!("seed {seed}: {in_flight_landed} changes without an answer had happened");
}

type Shown = (Value, Option<Value>);

/// Changes a stream until there is no answer; the last state answered for, and the one asked for at the end.
fn load(
    client: &mut WitnessClient,
    stream: StreamId,
    found: Registers,
    round: u64,
    answered: &AtomicU64,
) -> (Shown, Option<Shown>) {
    let mut base = found.record.revision;
    let mut last = (found.record.value, found.floor.map(|cell| cell.value));
    for number in 0.. {
        let content = value(round << 32 | number);
        let (request, next) = if number % 3 == 2 {
            let floor = content;
            (Request::Floor { base, floor }, (last.0, Some(content)))
        } else {
            (change(base, round << 32 | number), (content, last.1))
        };
        match client.ask(stream, &request, soon()) {
            Ok(Answer::Done(revision)) => {
                if number % 3 != 2 {
                    base = revision;
                }
                last = next;
                answered.fetch_add(1, Ordering::AcqRel);
            }
            Ok(other) => panic!("{request:?} gave {other:?}"),
            Err(none) => return (last, none.was_sent.then_some(next)),
        }
    }
    unreachable!("the loop ends with the process");
}

#[test]
fn a_wrong_secret_is_turned_away_and_both_say_so() {
    let witness = Witness::started("");
    let mut other = SECRET;
    other[0] ^= 1;
    let refused = WitnessClient::connect(witness.address(), &other, NodeId(1), soon());
    let error = refused.expect_err("the secret is wrong");
    assert!(
        matches!(
            error,
            WitnessFailure::Terminated(WitnessCode::Authentication)
        ),
        "{error}"
    );
    assert!(error.to_string().contains("secret"), "{error}");
    eventually("the log names it", || {
        witness.log().contains("another secret")
    });
}

/// Goal: a client asks nothing of whoever can't prove the secret. Method: a listener that plays the witness, with proofs of
/// its own and with the client's played back.
#[test]
fn a_witness_without_the_secret_is_not_believed() {
    for is_played_back in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let impostor = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut raw = Raw::new(socket);
            raw.say(Message::Challenge(Challenge::new([7; 32])));
            let Some(Message::Logon(logon)) = raw.next() else {
                panic!("a logon comes");
            };
            let welcome = if is_played_back {
                Welcome { proof: logon.proof }
            } else {
                Welcome::new(b"another secret", &logon.nonce, &[7; 32])
            };
            raw.say(Message::Welcome(welcome));
            assert_eq!(raw.next(), None, "nothing is asked");
        });
        let error = WitnessClient::connect(address, &SECRET, NodeId(1), soon()).unwrap_err();
        assert!(matches!(error, WitnessFailure::Unproven), "{error}");
        impostor.join().unwrap();
    }
}

/// A raw connection.
struct Raw {
    socket: TcpStream,
    inbox: Vec<u8>,
}

impl Raw {
    fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let inbox = Vec::new();
        Self { socket, inbox }
    }

    fn connect(witness: &Witness) -> (Self, Challenge) {
        let mut raw = Self::new(TcpStream::connect(witness.address()).unwrap());
        let Some(Message::Challenge(challenge)) = raw.next() else {
            panic!("a challenge comes first");
        };
        (raw, challenge)
    }

    fn logged_on(witness: &Witness) -> Self {
        let (mut raw, challenge) = Self::connect(witness);
        let logon = Logon::new(&SECRET, &challenge.nonce, [3; 32], NodeId(9));
        raw.say(Message::Logon(logon));
        assert!(matches!(raw.next(), Some(Message::Welcome(_))));
        raw
    }

    fn bytes(message: Message) -> Vec<u8> {
        let mut bytes = [0; FRAME_LENGTH_MAX];
        let length = Frame::of(message).encode(&mut bytes);
        bytes[..length].to_vec()
    }

    fn say(&mut self, message: Message) {
        self.socket.write_all(&Self::bytes(message)).unwrap();
    }

    /// The next frame, or `None` at the end.
    fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(length) = self.inbox.first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                if length <= self.inbox.len() {
                    let frame: Vec<u8> = self.inbox.drain(..length).collect();
                    return Some(Frame::decode(&frame).unwrap().message);
                }
            }
            let mut chunk = [0; 1024];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Ok(length) => self.inbox.extend_from_slice(&chunk[..length]),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// How the connection ends.
    fn ending(&mut self) -> Option<WitnessCode> {
        match self.next() {
            Some(Message::Terminate(code)) => {
                assert_eq!(self.next(), None, "a farewell is the last");
                Some(code)
            }
            None => None,
            other => panic!("{other:?}"),
        }
    }
}

/// Goal: what is no frame, or not allowed, ends its connection with a code and touches nobody else.
#[test]
fn garbage_ends_its_connection_alone() {
    let witness = Witness::started("");
    let mut bystander = witness.client();
    let create = Request::Create { record: value(0) };
    let mut base = done(&mut bystander, STREAM, create);
    let status = |flipped: usize| {
        let mut bytes = Raw::bytes(Message::Request(Request::Status));
        bytes[flipped] ^= 2;
        bytes
    };
    let too_long = 561_u32.to_le_bytes().to_vec();
    let cases = [
        (vec![0; 64], false, WitnessCode::Protocol),
        (vec![255; 64], false, WitnessCode::Protocol),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            false,
            WitnessCode::Protocol,
        ),
        (97_u32.to_le_bytes().to_vec(), false, WitnessCode::Protocol),
        (
            Raw::bytes(Message::Request(Request::Status)),
            false,
            WitnessCode::Protocol,
        ),
        (too_long, true, WitnessCode::Protocol),
        (status(5), true, WitnessCode::Version),
        (status(13), true, WitnessCode::Checksum),
        (
            Raw::bytes(Message::Terminate(WitnessCode::Full)),
            true,
            WitnessCode::Protocol,
        ),
        (vec![0; 64], true, WitnessCode::Protocol),
    ];
    for (number, (bytes, is_logged_on, code)) in cases.into_iter().enumerate() {
        let mut raw = if is_logged_on {
            Raw::logged_on(&witness)
        } else {
            Raw::connect(&witness).0
        };
        raw.socket.write_all(&bytes).unwrap();
        assert_eq!(raw.ending(), Some(code), "{bytes:?}");
        base = done(&mut bystander, STREAM, change(base, number as u64));
    }
}

/// Goal: nobody holds a place by being slow. Method: a client that says nothing, one that sends a byte now and then, one that
/// logs on and asks half a thing, one that logs on and asks nothing; all are cut with a reason.
#[test]
fn silent_and_slow_clients_are_cut() {
    let witness = Witness::started("logon_timeout_ms = 1500\nidle_timeout_ms = 3000");
    let (mut silent, _) = Raw::connect(&witness);
    assert_eq!(silent.ending(), Some(WitnessCode::TooSlow));

    let (mut slow, challenge) = Raw::connect(&witness);
    let logon = Logon::new(&SECRET, &challenge.nonce, [3; 32], NodeId(9));
    let begun = Instant::now();
    let mut dripped = 0;
    slow.socket.set_nonblocking(true).unwrap();
    for byte in Raw::bytes(Message::Logon(logon)) {
        let is_open = slow.socket.peek(&mut [0]).is_err();
        if !is_open || slow.socket.write_all(&[byte]).is_err() {
            break;
        }
        dripped += 1;
        // The pace of a hostile client, not a wait for anything.
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        dripped < 96,
        "cut in the middle, after {:?}",
        begun.elapsed()
    );
    slow.socket.set_nonblocking(false).unwrap();
    assert_eq!(slow.ending(), Some(WitnessCode::TooSlow));

    let mut half = Raw::logged_on(&witness);
    let asked = Raw::bytes(Message::Request(Request::Status));
    half.socket.write_all(&asked[..asked.len() - 1]).unwrap();
    assert_eq!(half.ending(), Some(WitnessCode::TooSlow));

    let mut idle = Raw::logged_on(&witness);
    assert_eq!(idle.ending(), Some(WitnessCode::Silent));

    let mut gone = Raw::logged_on(&witness);
    gone.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(gone.ending(), None);
}

/// Goal: 500 connections that say nothing cost a bounded number of threads and memory, and keep nobody out. Method: hold them
/// all open; meanwhile a client that is logged on asks, and new ones log on.
#[test]
fn five_hundred_silent_connections_are_bounded() {
    let witness =
        Witness::started("connections = 32\nunauthenticated = 8\nlogon_timeout_ms = 60000");
    let mut client = witness.client();
    let mut base = done(&mut client, STREAM, Request::Create { record: value(0) });
    let before = witness.status("VmRSS");
    let mut silent = Vec::new();
    for number in 0..500 {
        let mut socket = TcpStream::connect(witness.address()).unwrap();
        if number % 2 == 0 {
            let _ = socket.write_all(&[96]);
        }
        silent.push(socket);
        if number % 50 == 0 {
            base = done(&mut client, STREAM, change(base, number));
            drop(witness.client());
            // Main, accept, the client logged on, a newcomer coming or going, and the strangers; one that ends may linger.
            eventually("its threads are bounded", || {
                witness.status("Threads") <= 2 + 1 + 2 + 8
            });
        }
    }
    assert!(held(&mut witness.client(), STREAM).is_some());
    let grown = witness.status("VmRSS").saturating_sub(before);
    assert!(
        grown < 8 * 1024,
        "{grown} KiB for clients that never logged on"
    );
    eventually("those who left are counted no more", || {
        let Answer::Status(status) = ask(&mut client, STREAM, Request::Status) else {
            panic!("a status is due");
        };
        status.connections <= 2
    });
    let mut closed = 0;
    for socket in &silent {
        socket.set_nonblocking(true).unwrap();
        let mut rest = socket;
        let mut byte = [0; 256];
        while matches!(rest.read(&mut byte), Ok(length) if length > 0) {}
        closed += usize::from(
            !matches!(rest.read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock),
        );
    }
    assert!(closed >= 500 - 8, "{closed} of 500 gave way");
}

#[test]
fn connections_in_use_are_not_pushed_out() {
    let witness = Witness::started("connections = 2\nunauthenticated = 2");
    let mut clients = [witness.client(), witness.client()];
    let mut late = Raw::new(TcpStream::connect(witness.address()).unwrap());
    assert_eq!(late.ending(), Some(WitnessCode::Full));
    for client in &mut clients {
        assert_eq!(held(client, STREAM), None);
    }
    let [one, two] = clients;
    drop(one);
    eventually("a place is free again", || {
        WitnessClient::connect(witness.address(), &SECRET, NodeId(1), soon()).is_ok()
    });
    drop(two);
}

#[test]
fn a_directory_has_one_witness_and_one_store() {
    let witness = Witness::started("");
    let second = appliance::run(&mut witness.command());
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second);
    assert!(
        said.contains("another witness has this directory open"),
        "{said}"
    );
    let again = witness.relayd("format");
    assert!(!again.status.success());
    let said = text(&again);
    assert!(
        said.contains("another witness has") || said.contains("already"),
        "{said}"
    );
    drop(witness);

    let mut witness = Witness::formatted("", appliance::scratch());
    let checked = witness.relayd("check");
    assert!(
        text(&checked).contains("0 of 64 streams"),
        "{}",
        text(&checked)
    );
    let again = text(&witness.relayd("format"));
    assert!(
        again.contains("there is a witness's store already"),
        "{again}"
    );
    std::fs::remove_dir_all(witness.directory()).unwrap();
    let said = witness.try_start().unwrap_err();
    assert!(
        said.contains("no witness's store here") && said.contains("relayd format"),
        "{said}"
    );
}

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    let mut witness = Witness::formatted("", appliance::scratch());
    witness.limits = "speed = 9".to_owned();
    witness.write_config();
    let said = witness.try_start().unwrap_err();
    for part in ["witness.toml:6", "speed", "expected one of"] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
    witness.limits.clear();
    witness.write_config();
    let holder = TcpListener::bind(witness.address()).unwrap();
    let said = witness.try_start().unwrap_err();
    assert!(
        said.contains("another process has it") && said.contains("`listen`"),
        "{said}"
    );
    drop(holder);
}

/// Goal: a full disk is no fault, since the space was written before; a disk that errs is final, and no change is answered
/// that is not on it. Method: a small loop-mounted disk, filled up, then made to fail.
#[test]
fn a_full_disk_is_nothing_and_a_failed_one_is_final() {
    let disk = SmallDisk::new(32 << 20);
    let home = tempfile::tempdir_in(&disk.mounted).unwrap();
    let mut witness = Witness::formatted("", home);
    witness.log_path = disk.beside("log");
    witness.start();
    let mut client = witness.client();
    let mut bystander = witness.client();
    let base = done(&mut client, STREAM, Request::Create { record: value(0) });
    fill(&disk.mounted.join("filler"));
    let base = done(&mut client, STREAM, change(base, 1));
    std::fs::remove_file(disk.mounted.join("filler")).unwrap();

    disk.fail();
    let none = client.ask(STREAM, &change(base, 2), soon()).unwrap_err();
    assert!(none.was_sent, "whether it happened is unknown: {none}");
    let status = witness.wait();
    assert_eq!(status.code(), Some(1));
    let log = witness.log();
    let parts = [
        "writing the store failed",
        "Input/output error",
        "Nothing was answered that is not on disk",
    ];
    let mut lines = log.lines();
    assert!(
        lines.any(|line| parts.iter().all(|part| line.contains(part))),
        "{log}"
    );
    bystander
        .ask(STREAM, &Request::Read, soon())
        .expect_err("nothing is told after that");
    drop(witness);
}

#[test]
fn an_old_backup_shows_older_revisions() {
    let mut witness = Witness::started("");
    let mut client = witness.client();
    let created = done(&mut client, STREAM, Request::Create { record: value(0) });
    assert_eq!(witness.stop().code(), Some(0));
    assert!(
        witness.log().contains("stopped cleanly"),
        "{}",
        witness.log()
    );
    let backup = std::fs::read(witness.store()).unwrap();
    witness.start();
    let mut client = witness.client();
    let changed = done(&mut client, STREAM, change(created, 1));
    witness.kill();
    std::fs::write(witness.store(), backup).unwrap();
    witness.start();
    let mut client = witness.client();
    let found = held(&mut client, STREAM).unwrap();
    assert_eq!(
        (found.record.revision, found.record.value),
        (created, value(0))
    );
    let anew = done(&mut client, STREAM, change(created, 2));
    assert_ne!(anew, changed, "a revision names one state");
    let stale = ask(&mut client, STREAM, change(changed, 3));
    assert!(matches!(stale, Answer::Refused(Some(_))), "{stale:?}");
}

#[test]
fn a_damaged_store_is_refused_with_its_place() {
    let mut witness = Witness::started("");
    done(
        &mut witness.client(),
        STREAM,
        Request::Create { record: value(0) },
    );
    witness.kill();
    let mut bytes = std::fs::read(witness.store()).unwrap();
    for page in [2, 3] {
        bytes[page * 4096 + 70] ^= 1;
    }
    std::fs::write(witness.store(), bytes).unwrap();
    let said = witness.try_start().unwrap_err();
    assert!(
        said.contains("at byte 8192") && said.contains("both generations"),
        "{said}"
    );
}

/// Goal: with the witness frozen each request is answered by its deadline, with what is certain; what landed late is seen for
/// what it is, and no late answer is taken for a later request. Method: SIGSTOP, ask everything, SIGCONT.
#[test]
fn a_frozen_witness_leaves_changes_unknown_and_reads_unavailable() {
    let witness = Witness::started("");
    let deadline = Duration::from_secs(1);
    let config = asking_within(&witness, deadline);
    let base = relayd::arbiter::init(&config, &record(1, 1), LIMIT).unwrap();
    let mut node = Asker::connected(&config);
    assert_eq!(node.read().unwrap().revision, base);
    witness.signal(libc::SIGSTOP);
    let begun = Instant::now();
    let late = swap(base, None, record(2, 77));
    assert_eq!(node.ask(late), ArbiterAnswer::Unknown);
    assert!(begun.elapsed() >= deadline, "the deadline is waited for");
    // The kernel still takes connections for the frozen process, but nobody proves anything there.
    let begun = Instant::now();
    assert_eq!(node.ask(Ask::Read), ArbiterAnswer::Unavailable);
    assert_eq!(
        node.ask(swap(base, None, record(2, 78))),
        ArbiterAnswer::Unavailable
    );
    let base_floor = Ask::Floor {
        base,
        floor: floor(4_096),
    };
    assert_eq!(node.ask(base_floor), ArbiterAnswer::Unavailable);
    assert!(begun.elapsed() < LIMIT);
    let health = node.handle.health();
    assert!(!health.is_connected);
    assert_eq!((health.unavailable, health.unknown), (3, 1));

    witness.signal(libc::SIGCONT);
    node.wait_connected(true);
    // The swap given up was in the frozen process's socket, and lands.
    eventually(
        "it landed late",
        || matches!(node.read(), Some(held) if held.membership == record(2, 77)),
    );
    let again = node.refused(late).unwrap();
    assert_eq!(again.membership.nonce, 77, "its asker finds its own nonce");
}

/// Goal: what surely never left is told as that, and the thread comes back by itself.
#[test]
fn a_dead_witness_is_unavailable_and_found_again() {
    let mut witness = Witness::started("");
    let config = asking_within(&witness, Duration::from_millis(400));
    let base = relayd::arbiter::init(&config, &record(1, 1), LIMIT).unwrap();
    let mut node = Asker::connected(&config);
    for round in 0..5 {
        witness.kill();
        for ask in [
            swap(base, None, record(2, 2)),
            Ask::Floor {
                base,
                floor: floor(1),
            },
            Ask::Read,
        ] {
            assert_eq!(node.ask(ask), ArbiterAnswer::Unavailable, "round {round}");
        }
        assert!(!node.handle.health().is_connected);
        witness.start();
        node.wait_connected(true);
        eventually("the record is read", || match node.ask(Ask::Read) {
            ArbiterAnswer::Read(held) => {
                assert_eq!(held.unwrap().revision, base, "nothing happened");
                true
            }
            other => {
                assert_eq!(other, ArbiterAnswer::Unavailable, "round {round}");
                false
            }
        });
    }
    assert!(node.handle.health().connections >= 6);
}

/// Goal: a request whose deadline lasts longer than the witness's restart is carried out. Method: ask while nothing listens,
/// start the witness, look at the answer.
#[test]
fn a_request_waits_for_a_witness_that_restarts() {
    let mut witness = Witness::started("");
    let patient = asking_within(&witness, LIMIT);
    let base = relayd::arbiter::init(&patient, &record(1, 1), LIMIT).unwrap();
    let node = Asker::connected(&patient);
    witness.kill();
    let asked = std::thread::spawn(move || {
        let mut node = node;
        node.done(swap(base, None, record(2, 2)))
    });
    witness.start();
    assert!(asked.join().unwrap() > base);
}

#[test]
fn what_is_no_record_of_the_stream_is_garbled() {
    let witness = Witness::started("");
    let mut client = witness.client();
    let create = Request::Create { record: value(5) };
    let revision = Revision(done(&mut client, STREAM, create));
    let config = asking_within(&witness, LIMIT);
    let mut node = Asker::connected(&config);
    assert_eq!(node.ask(Ask::Read), ArbiterAnswer::Garbled);
    let stale = swap(Revision(0), None, record(2, 2));
    assert_eq!(node.ask(stale), ArbiterAnswer::Garbled);
    let error = relayd::arbiter::init(&config, &record(1, 1), LIMIT).unwrap_err();
    assert!(
        error.to_string().contains("no record of this stream"),
        "{error}"
    );
    node.done(swap(revision, None, record(2, 2)));
    assert_eq!(node.read().unwrap().membership, record(2, 2));
}

#[test]
fn a_manual_arbiter_is_a_register_of_the_nodes_own() {
    let home = appliance::scratch();
    let manual = config_in(home.path(), "kind = \"manual\"");
    let mut node = Asker::start(&manual);
    assert_eq!(node.read(), None);
    assert!(node.handle.health().is_connected);
    drop(node);
    let revision = relayd::arbiter::init(&manual, &record(1, 1), LIMIT).unwrap();
    let error = relayd::arbiter::init(&manual, &record(1, 2), LIMIT).unwrap_err();
    assert!(
        error.to_string().contains("has a record already"),
        "{error}"
    );
    let mut node = Asker::start(&manual);
    node.done(swap(revision, Some(Revision(0)), record(2, 2)));
    drop(node);
    let held = Asker::start(&manual).read().unwrap();
    assert_eq!(held.membership, record(2, 2));
    assert!(held.revision > revision);
}

#[test]
fn an_arbiter_that_is_not_reached_says_why() {
    let nobody = format!(
        "kind = \"witness\"\naddress = \"127.0.0.1:{}\"",
        appliance::free_port()
    );
    let patience = Duration::from_secs(5);
    let error = relayd::arbiter::init(&config(&nobody), &record(1, 1), patience).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("nothing was made") && said.contains("refused"),
        "{said}"
    );
}
