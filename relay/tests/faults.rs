//! Bad input and faults: each is answered with an error that says what to do, and nothing is lost.

mod appliance;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use appliance::disk::{SmallDisk, fill};
use appliance::{Appliance, LIMIT, Shape, eventually, payload, send, take, text};
use relay_client::wire::item::{self, Front, Limits};
use relay_client::wire::message::{Logon, Message, TopicRequest};
use relay_client::{ClientError, Publisher, Start};
use relay_wire::code::{RejectCode, Role};
use relay_wire::id::{Incarnation, PublisherId, StreamId};

/// A start must fail, and its last words contain all of `parts`.
fn refused(appliance: &mut Appliance, parts: &[&str]) {
    let said = appliance.try_start().expect_err("it must not start");
    for part in parts {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
}

#[test]
fn a_configuration_with_an_unknown_key_names_file_line_and_key() {
    let mut shape = Shape::default();
    shape.journal.push_str("\nspeed = 9");
    let mut appliance = Appliance::configured(shape, appliance::scratch());
    refused(
        &mut appliance,
        &["relayd.toml:", "speed", "expected one of"],
    );
}

/// Goal: the kernel's or a container's refusal of io_uring is named with its remedies. Method: a seccomp filter that
/// denies io_uring_setup, as container profiles do.
#[test]
fn io_uring_refused_names_sysctl_and_seccomp() {
    let mut appliance = Appliance::formatted(Shape::default());
    let mut command = appliance::relayd();
    // SAFETY: between fork and exec only prctl is called, which is allowed there.
    unsafe {
        command.pre_exec(|| {
            let step = |code, k| libc::sock_filter {
                code,
                jt: 0,
                jf: 0,
                k,
            };
            let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
            let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
            let answer = (libc::BPF_RET | libc::BPF_K) as u16;
            let mut filter = [
                step(load, 0),
                libc::sock_filter {
                    jf: 1,
                    ..step(equal, libc::SYS_io_uring_setup as u32)
                },
                step(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
                step(answer, libc::SECCOMP_RET_ALLOW),
            ];
            let program = libc::sock_fprog {
                len: 4,
                filter: filter.as_mut_ptr(),
            };
            let is_set = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0;
            if is_set {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    let said = appliance
        .start_as(&mut command)
        .expect_err("it must not start");
    for part in [
        "io_uring was refused",
        "kernel.io_uring_disabled",
        "seccomp",
    ] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
}

#[test]
fn a_filesystem_without_direct_io_is_refused_at_format() {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let appliance = Appliance::configured(Shape::default(), home);
    let output = appliance.relayd("format");
    assert!(!output.status.success());
    let said = text(&output);
    assert!(
        said.contains("no direct I/O") && said.contains("ext4"),
        "{said}"
    );
}

#[test]
fn too_little_disk_is_found_at_format() {
    let mut shape = Shape::default();
    shape.journal = shape.journal.replace("\"16MiB\"", "\"16TiB\"");
    let appliance = Appliance::configured(shape, appliance::scratch());
    let output = appliance.relayd("format");
    assert!(!output.status.success());
    let said = text(&output);
    assert!(
        said.contains("are to be prepared") && said.contains("journal.prepared"),
        "{said}"
    );
    assert!(
        !appliance.directory().join("superblock").exists(),
        "nothing was made"
    );
}

#[test]
fn a_second_format_is_refused() {
    let appliance = Appliance::formatted(Shape::default());
    let output = appliance.relayd("format");
    assert!(!output.status.success());
    assert!(
        text(&output).contains("there is a journal already"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_missing_journal_is_named() {
    let mut appliance = Appliance::configured(Shape::default(), appliance::scratch());
    refused(&mut appliance, &["no journal here", "relayd format"]);
}

#[test]
fn a_journal_of_another_node_stream_geometry_or_version_is_refused() {
    let mut appliance = Appliance::formatted(Shape::default());
    appliance.shape.node = 2;
    appliance.write_config();
    refused(&mut appliance, &["node"]);
    appliance.shape.node = 1;
    appliance.shape.stream = 9;
    appliance.write_config();
    refused(&mut appliance, &["stream"]);
    appliance.shape.stream = 1;
    appliance.shape.journal = appliance.shape.journal.replace("4MiB", "8MiB");
    appliance.write_config();
    refused(&mut appliance, &["segment_size 4194304"]);
    appliance.shape.journal = appliance.shape.journal.replace("8MiB", "4MiB");
    appliance.write_config();
    // A version this program does not know, in both generations, with checksums that fit.
    let path = appliance.directory().join("superblock");
    let mut bytes = std::fs::read(&path).unwrap();
    for version in [0_u8, 2] {
        for generation in bytes.chunks_exact_mut(4096) {
            generation[8] = version;
            let end = generation.len() - 4;
            let checksum = relay_wire::checksum::crc32c(&generation[..end]);
            generation[end..].copy_from_slice(&checksum.to_le_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        refused(&mut appliance, &["version"]);
    }
}

#[test]
fn two_processes_on_one_journal_are_kept_apart() {
    let mut appliance = Appliance::started(Shape::default());
    let first = appliance.process.take();
    appliance.port = appliance::free_port();
    appliance.write_config();
    refused(&mut appliance, &["another relayd has this journal open"]);
    appliance.process = first;
}

#[test]
fn a_port_taken_is_named() {
    let mut appliance = Appliance::formatted(Shape::default());
    let holder = std::net::TcpListener::bind(("127.0.0.1", appliance.port)).unwrap();
    refused(
        &mut appliance,
        &["listening on", "another process has it", "`listen`"],
    );
    drop(holder);
}

#[test]
fn a_cpu_that_is_not_there_is_named() {
    let mut shape = Shape::default();
    shape.threads.push_str("\ncpus = [777]");
    let mut appliance = Appliance::formatted(shape);
    refused(&mut appliance, &["CPU 777", "threads.cpus"]);
}

/// A raw connection.
struct Raw {
    socket: TcpStream,
    inbox: Vec<u8>,
}

impl Raw {
    fn connect(appliance: &Appliance) -> Self {
        let socket = TcpStream::connect(appliance.address()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self {
            socket,
            inbox: Vec::new(),
        }
    }

    /// The next item, or `None` at the end.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Ok(Front::Message { length }) =
                item::front(&self.inbox, Limits::after_logon(1 << 16))
            {
                let taken = relay_wire::stride(length);
                let item = self.inbox[..length].to_vec();
                self.inbox.drain(..taken);
                return Some(item);
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.inbox.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// Everything until the end, shown as text.
    fn rest(&mut self) -> String {
        let mut shown = String::new();
        while let Some(item) = self.next() {
            shown.push_str(&format!("{:?}\n", Message::decode(&item)));
        }
        shown
    }

    fn logon(appliance: &Appliance) -> Self {
        let mut raw = Self::connect(appliance);
        let challenge = raw.next().unwrap();
        raw.socket.write_all(&logon_as_8(&challenge)).unwrap();
        assert!(matches!(
            Message::decode(&raw.next().unwrap()),
            Ok(Message::LogonAck(_))
        ));
        raw
    }
}

/// The LOGON of publisher 8 that answers a CHALLENGE.
fn logon_as_8(challenge: &[u8]) -> Vec<u8> {
    let Ok(Message::Challenge(challenge)) = Message::decode(challenge) else {
        panic!("a challenge comes first");
    };
    let logon = Logon {
        role: Role::Publisher,
        stream: StreamId(0),
        publisher: PublisherId(8),
        incarnation: Incarnation(1),
        nonce: [3; 32],
        proof: [0; 32],
        name: "p8",
    };
    let secret: Vec<u8> = (0..16).collect();
    let logon = logon.with_proof(&secret, &challenge.nonce).unwrap();
    Message::Logon(logon).to_vec().unwrap()
}

/// Goal: malformed frames end their connection with a code and touch nobody else.
#[test]
fn malformed_frames_end_their_connection_alone() {
    let appliance = Appliance::started(Shape::default());
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("a").unwrap();
    let heartbeat = {
        let heartbeat = relay_wire::message::Heartbeat {
            next_seq: relay_wire::id::Seq(0),
            epoch: relay_wire::id::Epoch(0),
            checksum: 0,
            held: relay_wire::code::Held::No,
        };
        Message::Heartbeat(heartbeat).to_vec().unwrap()
    };
    let changed = |at: usize, to: u8| {
        let mut bytes = heartbeat.clone();
        bytes[at] = to;
        bytes
    };
    let cases: Vec<(Vec<u8>, bool, &str)> = vec![
        (vec![0, 0, 0, 0, 132, 1, 0, 0], false, "Protocol"),
        (vec![255, 255, 255, 255, 132, 1, 0, 0], false, "TooLong"),
        (vec![255, 255, 255, 255, 1, 0, 0, 0], true, "TooLong"),
        (vec![72, 0, 0, 0, 1, 0, 0, 0], false, "TooLong"),
        (vec![0; 64], false, "Protocol"),
        (changed(4, 250), false, "Checksum"),
        (changed(5, 9), false, "Version"),
        (changed(20, 9), false, "Checksum"),
        (changed(20, 9), true, "Checksum"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            false,
            "TooLong",
        ),
    ];
    for (bytes, is_logged_on, code) in cases {
        let mut raw = if is_logged_on {
            Raw::logon(&appliance)
        } else {
            Raw::connect(&appliance)
        };
        raw.socket.write_all(&bytes).unwrap();
        let said = raw.rest();
        assert!(said.contains(&format!("code: {code}")), "{code}: {said}");
        send(&mut publisher, topic, &payload(1, 1));
    }
    assert!(publisher.wait_released(LIMIT).unwrap());
}

/// Goal: 2,000 clients at once that say nothing, or stop in the middle of an item, cost nobody else anything and bounded
/// memory. Method: hold them all open, watch a publisher's flow and the process's memory.
#[test]
fn two_thousand_silent_clients_are_bounded() {
    let appliance = Appliance::started(Shape::default());
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("a").unwrap();
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", appliance.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    send(&mut publisher, topic, &payload(1, 1));
    assert!(publisher.wait_released(LIMIT).unwrap());
    let before = resident();
    let mut silent: Vec<TcpStream> = Vec::new();
    for number in 0..2000 {
        let mut socket = TcpStream::connect(appliance.address()).unwrap();
        if number % 2 == 0 {
            // One byte of an item, and no more: like one byte a second, only slower.
            let _ = socket.write_all(&[112]);
        }
        silent.push(socket);
        if number % 100 == 0 {
            send(&mut publisher, topic, &payload(1, number));
            assert!(publisher.wait_released(LIMIT).unwrap());
        }
    }
    eventually("all were accepted", || {
        appliance.counters()["ingress.accepted"] >= 2001
    });
    let grown = resident().saturating_sub(before);
    assert!(
        grown < 16 * 1024,
        "{grown} KiB for clients that never logged on"
    );
    // Those that gave way in one turn are counted until their farewell is sent.
    eventually("only so many wait for their logon", || {
        appliance.counters()["ingress.connections"] <= 1 + 256
    });
    let mut late = appliance.publisher(2);
    let topic = late.topic("b").unwrap();
    send(&mut late, topic, &payload(2, 1));
    assert!(late.wait_released(LIMIT).unwrap());
    eventually("the silent ones are gone", || {
        appliance.counters()["ingress.connections"] <= 2
    });
}

/// Goal: a client that keeps sending, one byte a second, is ended by the logon's time limit all the same, and costs nobody
/// else anything. Method: the drip is a valid LOGON that would take minutes; the limit is shorter than three of its bytes.
#[test]
fn a_slow_drip_does_not_put_the_logon_off() {
    let mut shape = Shape::default();
    shape.limits.push_str("\nlogon_timeout_ms = 2500");
    let appliance = Appliance::started(shape);
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("a").unwrap();
    let mut raw = Raw::connect(&appliance);
    let challenge = raw.next().unwrap();
    let logon = logon_as_8(&challenge);
    let mut drip = raw.socket.try_clone().unwrap();
    let begun = Instant::now();
    let dripping = std::thread::spawn(move || {
        let dripped = logon.chunks(1).take_while(|byte| {
            let is_taken = drip.write_all(byte).is_ok();
            std::thread::sleep(Duration::from_secs(1));
            is_taken && begun.elapsed() < LIMIT
        });
        dripped.count()
    });
    let said = raw.rest();
    let lasted = begun.elapsed();
    assert!(said.contains("code: LogonTimeout"), "{said}");
    assert!(lasted < LIMIT / 2, "{lasted:?}");
    drop(raw);
    let dripped = dripping.join().unwrap();
    assert!(dripped >= 2, "it did send: {dripped}");
    send(&mut publisher, topic, &payload(1, 1));
    assert!(publisher.wait_released(LIMIT).unwrap());
}

#[test]
fn a_wrong_secret_is_final_for_the_client() {
    let appliance = Appliance::started(Shape::default());
    let mut config = appliance.publisher_config(1);
    config.credential.secret = vec![1; 16];
    let error = Publisher::connect(config)
        .err()
        .expect("the secret is wrong");
    assert!(error.to_string().contains("credential"), "{error}");
}

/// Goal: a subscription beyond the tail is an alarm, not a wait.
#[test]
fn a_subscription_beyond_the_tail_is_refused() {
    let appliance = Appliance::started(Shape::default());
    let start = Start::Seq {
        seq: 1000,
        checksum: None,
    };
    let error = relay_client::Subscriber::connect(appliance.subscriber_config(&[">"], start))
        .err()
        .expect("there is nothing there");
    assert!(error.to_string().contains("beyond"), "{error}");
}

/// Goal: prepared space that runs out holds publishers, loses nothing, and goes on by itself when space is added. Method:
/// a small loop-mounted disk, filled up and freed again.
#[test]
fn a_full_disk_holds_publishers_until_there_is_room() {
    let disk = SmallDisk::new(160 << 20);
    let home = tempfile::tempdir_in(&disk.mounted).unwrap();
    let limits = "ring = \"8MiB\"\npublishers = 16\npayload = \"1KiB\"".to_owned();
    let shape = Shape {
        limits,
        ..Shape::default()
    };
    let mut appliance = Appliance::configured(shape, home);
    appliance.log_path = disk.beside("log");
    appliance.shape.journal =
        "segment_size = \"4MiB\"\nprepared = \"8MiB\"\nwrite_method = \"dsync\"".to_owned();
    appliance.write_config();
    let output = appliance.relayd("format");
    assert!(output.status.success(), "{}", text(&output));
    appliance.start();
    // The log's opening is a little of it, so a third segment follows. It must not come when the disk is full.
    eventually("more than what is wanted is prepared", || {
        appliance.counters()["journal.prepared_bytes_ahead"] > 8 << 20
    });
    let filler = disk.mounted.join("filler");
    fill(&filler);
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("a").unwrap();
    let mut sent = 0;
    while publisher.held() != relay_client::Held::NoSpace {
        sent += 1;
        let message = payload(1, sent);
        let queued = publisher.try_send(&relay_client::OutMessage::new(topic, &message));
        if queued.is_err() {
            sent -= 1;
        }
        publisher.flush().unwrap();
        publisher.poll().unwrap();
        assert!(
            sent < 1_000_000,
            "the journal has no end: {:?}",
            appliance.counters()
        );
    }
    eventually("the alarm is at its highest", || {
        appliance.counters()["journal.space_alarm"] == 3
    });
    eventually("the log says what to do", || {
        let log = appliance.log();
        log.contains("free some room") && log.contains("journal space is gone")
    });
    std::fs::remove_file(&filler).unwrap();
    assert!(
        publisher.wait_released(LIMIT).unwrap(),
        "{}",
        appliance.log()
    );
    let mut all = appliance.subscriber(&[">"], Start::Earliest);
    let expected: Vec<_> = (1..=sent).map(|number| payload(1, number)).collect();
    assert!(take(&mut all, sent as usize) == expected);
    eventually("there is space again", || {
        appliance.counters()["journal.space_alarm"] < 3
    });
    drop(appliance);
}

/// Goal: a write that fails with EIO ends the node: it says why, and nothing is acknowledged that is not on disk. Method: a
/// disk in memory whose writes the kernel refuses from some moment on.
#[test]
fn a_failing_disk_ends_the_node_and_loses_nothing() {
    let disk = SmallDisk::new(160 << 20);
    let home = tempfile::tempdir_in(&disk.mounted).unwrap();
    let mut appliance = Appliance::configured(
        Shape {
            journal: "segment_size = \"4MiB\"\nprepared = \"16MiB\"\nwrite_method = \"dsync\""
                .to_owned(),
            ..Shape::default()
        },
        home,
    );
    appliance.log_path = disk.beside("log");
    let output = appliance.relayd("format");
    assert!(output.status.success(), "{}", text(&output));
    appliance.start();
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("a").unwrap();
    let mut subscriber = appliance.subscriber(&[">"], Start::Earliest);
    for number in 1..=100 {
        send(&mut publisher, topic, &payload(1, number));
    }
    assert!(publisher.wait_released(LIMIT).unwrap());
    take(&mut subscriber, 100);
    disk.fail();
    let released = publisher.acked_through().get();
    publisher
        .try_send(&relay_client::OutMessage::new(topic, &payload(1, 101)))
        .unwrap();
    let _ = publisher.flush();
    let status = appliance.wait();
    assert_eq!(status.code(), Some(1), "{status}: {}", appliance.log());
    let log = appliance.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains("failed: Input/output error"), "{last}");
    assert!(
        last.contains("Nothing was acknowledged that is not on disk"),
        "{last}"
    );
    let _ = publisher.poll();
    assert_eq!(publisher.acked_through().get(), released);
    assert!(
        subscriber.poll().ok().flatten().is_none(),
        "101 was never durable"
    );
    drop(appliance);
}

/// Goal: the relay itself refuses a bad name, whatever a client lets through, and the session goes on. Method: raw requests,
/// with bytes that are no UTF-8 among them, then a good one.
#[test]
fn a_topic_request_that_breaks_the_rules_is_answered() {
    let appliance = Appliance::started(Shape::default());
    let mut raw = Raw::logon(&appliance);
    let mut ask = |request, name: &[u8]| {
        let message = Message::TopicRequest(TopicRequest { request, name });
        raw.socket.write_all(&message.to_vec().unwrap()).unwrap();
        loop {
            let item = raw.next().expect("the session goes on");
            match Message::decode(&item) {
                Ok(Message::Topic(topic)) if topic.request == request => return None,
                Ok(Message::Reject(reject)) if reject.request == request => {
                    return Some(reject.code);
                }
                _ => {}
            }
        }
    };
    let too_deep = b"a.b.c.d.e.f.g.h.i";
    let bad: [&[u8]; 6] = [b"", b"a..b", b"a.>", b"a\xff", &[b'x'; 256], too_deep];
    for (request, name) in (1..).zip(bad) {
        assert_eq!(ask(request, name), Some(RejectCode::BadTopic), "{name:?}");
    }
    assert_eq!(ask(7, b"a.b"), None);
}

#[test]
fn a_topic_that_breaks_the_rules_is_refused() {
    let appliance = Appliance::started(Shape::default());
    let mut publisher = appliance.publisher(1);
    for name in ["", "a..b", "a.*", &"x".repeat(256)] {
        let error = publisher
            .topic(name)
            .expect_err("the name breaks the rules");
        let is_named = matches!(error, ClientError::TopicRefused { .. });
        assert!(is_named, "{name:?}: {error}");
    }
}
