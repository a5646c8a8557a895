//! Goal: what was recorded goes out again as it was: from a directory and from a live relay alike, to every target, into
//! another relay with the original identities, and never more than is released. Method: the built programs and sockets of
//! the test's own; whether gaps are held in time is not judged here, that they are kept apart is.

mod host;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use serde_json::Value;
use support::{Relayd, last_object, refusal, relay, terminate, text_of};
use tempfile::TempDir;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f";

fn command(arguments: &[&str]) -> Command {
    let mut built = Command::new(relay());
    built.args(arguments).env_clear().stdin(Stdio::null());
    built
}

fn run(arguments: &[&str]) -> String {
    text_of(command(arguments).output().expect("relay runs"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A journal of messages at these times, ns after 2026-01-05T09:30:00Z, payloads 1, 2, 3 ...
fn journal_of(times_ns: &[u64]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let lines: String = times_ns
        .iter()
        .enumerate()
        .map(|(index, time_ns)| {
            let line = serde_json::json!({
                "topic": "a.x", "payload": (index + 1).to_string(),
                "receive_time_ns": 1_767_605_400_000_000_000 + time_ns,
            });
            format!("{line}\n")
        })
        .collect();
    fs::write(directory.path().join("lines"), lines).expect("written");
    let journal = directory.path().join("journal");
    let from = directory.path().join("lines");
    run(&[
        "import",
        text(&journal),
        "--jsonl",
        text(&from),
        "--segment-size",
        "4MiB",
    ]);
    directory
}

fn objects(lines: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).expect("JSON");
    lines.lines().map(parse).collect()
}

/// Goal: a directory and the live relay that writes it replay the same, also while it writes.
#[test]
fn a_directory_and_a_live_relay_replay_the_same() {
    let mut relayd = Relayd::start();
    let lines: String = (0..3_000)
        .map(|number| format!("message {number}\n"))
        .collect();
    relayd.publish("a.one", &lines);
    relayd.publish("a.two", "last\n");
    let live = relayd.run_ok("replay", &["--pace", "max", "--json"]);
    assert_eq!(live.lines().count(), 3_001);
    let stream = relayd.stream();
    // A mark follows the last release within 10 ms of quiet and proves it to who reads the directory.
    support::wait_until("the release is proven", || {
        run(&["replay", text(&stream), "--dry-run", "--json"]).contains("\"last_seq\":3001")
    });
    assert!(run(&["replay", text(&stream), "--pace", "max", "--json"]) == live);
    let some = [
        "--from", "10", "--to", "2990", "--topic", "*.one", "--pace", "max", "--raw",
    ];
    let from_live = relayd.run_ok("replay", &some);
    assert!(run(&[&["replay", text(&stream)], &some[..]].concat()) == from_live);
    assert!(from_live.starts_with("message 9message 10"));
    assert_eq!(relayd.run_ok("export", &["--format", "json"]), live);
    for range in [["--from", "3002"], ["--to", "3002"]] {
        let mut outside = relayd.command("replay", &range);
        let (status, said) = refusal(&mut outside);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("seq 1 to 3001"), "{said}");
    }
    relayd.stop();
    assert!(run(&["replay", text(&stream), "--pace", "max", "--json"]) == live);
}

/// Goal: who reads a directory that is being written gets a prefix without a hole, all of it acknowledged or on its way to
/// be, and no false alarm.
#[test]
fn a_directory_is_read_while_relayd_writes_it() {
    let relayd = Relayd::start();
    let stream = relayd.stream();
    let load = ["--publisher", "1", "--topic", "a.load", "--size", "700"];
    let mut writer = relayd
        .command(
            "pub",
            &[&load[..], &["--count", "60000", "--rate", "20000"]].concat(),
        )
        .stdout(Stdio::null())
        .spawn()
        .expect("relay runs");
    let mut before = 0;
    let mut reads = 0;
    while writer.try_wait().expect("asked").is_none() {
        let output = command(&["replay", text(&stream), "--pace", "max", "-f", "%o\\n"]);
        let out = text_of({ output }.output().expect("relay runs"));
        let seqs: Vec<u64> = out.lines().map(|seq| seq.parse().expect("a seq")).collect();
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "no hole");
        assert!(seqs.len() >= before, "what was released stays so");
        before = seqs.len();
        reads += 1;
    }
    assert!(writer.wait().expect("it ends").success());
    assert!(reads > 0 && before > 0, "{reads} reads, {before} messages");
    // Everything that was read was released: the relay hands out the same.
    let released = relayd.run_ok(
        "sub",
        &[
            "--from",
            "earliest",
            "--count",
            &before.to_string(),
            "-f",
            "%o\\n",
        ],
    );
    assert_eq!(released.lines().count(), before);
}

/// Goal: a TCP peer gets payloads, with lengths in front where asked; a UDP peer gets a datagram each.
#[test]
fn tcp_and_udp_get_the_payloads() {
    let directory = journal_of(&[0, 1_000, 2_000_000, 2_001_000]);
    let journal = directory.path().join("journal");
    for (prefix, expected) in [
        (&[][..], &b"1234"[..]),
        (&["--length-prefix", "2"], b"\0\x011\0\x012\0\x013\0\x014"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let reader = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a connection");
            let mut all = Vec::new();
            socket.read_to_end(&mut all).expect("read");
            all
        });
        run(&[&["replay", text(&journal), "--to-tcp", &address], prefix].concat());
        assert_eq!(reader.join().expect("it ends"), expected);
    }
    // One that says something, and takes everything only when the replay is over.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let (over, is_over) = channel();
    let reader = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        socket.write_all(b"welcome").expect("written");
        is_over.recv().expect("it ends");
        let mut all = Vec::new();
        socket.read_to_end(&mut all).expect("read");
        all
    });
    run(&["replay", text(&journal), "--to-tcp", &address]);
    over.send(()).expect("it waits");
    assert_eq!(reader.join().expect("it ends"), b"1234");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let timeout = Some(Duration::from_secs(20));
    socket.set_read_timeout(timeout).expect("set");
    let address = socket.local_addr().expect("bound").to_string();
    run(&[
        "replay",
        text(&journal),
        "--to-udp",
        &address,
        "-f",
        "%o:%s",
    ]);
    for expected in ["1:1", "2:2", "3:3", "4:4"] {
        let mut datagram = [0; 64];
        let length = socket.recv(&mut datagram).expect("a datagram");
        assert_eq!(&datagram[..length], expected.as_bytes());
    }
    let (status, said) = refusal(&mut command(&[
        "replay",
        text(&journal),
        "--to-tcp",
        "127.0.0.1:1",
    ]));
    assert_eq!(status, 4, "{said}");
    let both = [
        "replay",
        text(&journal),
        "--to-tcp",
        "127.0.0.1:1",
        "--dry-run",
    ];
    assert_eq!(refusal(&mut command(&both)).0, 2);
}

/// Goal: who has joined a multicast group on another host gets the messages, a datagram each, by the interface that was named or
/// by the host's own route; without either the failure says what to do. Method: two hosts with a cable between them, so that
/// nothing else is on it.
#[test]
fn a_multicast_group_gets_the_payloads() {
    let Some((sender, receiver)) = Host::pair() else {
        assert!(
            std::env::var_os("RELAY_REQUIRE_ROOT_TESTS").is_none(),
            "RELAY_REQUIRE_ROOT_TESTS is set and this is not root"
        );
        println!("skipped: only root may make network namespaces");
        return;
    };
    let directory = journal_of(&[0, 1_000, 2_000_000, 2_001_000]);
    let journal = directory.path().join("journal");
    let group = Ipv4Addr::new(239, 192, 0, 1);
    let to = format!("{group}:30000");
    let replay = |options: &[&str]| {
        let arguments = [&["replay", text(&journal), "--to-udp", &to], options].concat();
        sender.on(|| command(&arguments).output().expect("relay runs"))
    };
    let nowhere = replay(&[]);
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert_eq!(nowhere.status.code(), Some(1), "{said}");
    assert!(said.contains("--interface"), "{said}");

    let (joined, is_joined) = channel();
    let (expected, rounds) = (["1", "2", "3", "4"], 2);
    let address = receiver.address;
    let received = thread::scope(|scope| {
        let listener = scope.spawn(|| {
            receiver.on(move || {
                let socket = UdpSocket::bind((group, 30_000)).expect("a port");
                let timeout = Some(Duration::from_secs(20));
                socket.set_read_timeout(timeout).expect("set");
                socket.join_multicast_v4(&group, &address).expect("joined");
                joined.send(()).expect("waited for");
                let datagrams = (0..rounds * expected.len()).map(|_| {
                    let mut datagram = [0; 64];
                    let (length, from) = socket.recv_from(&mut datagram).expect("a datagram");
                    (datagram[..length].to_vec(), from.ip())
                });
                datagrams.collect::<Vec<_>>()
            })
        });
        is_joined.recv().expect("it joins");
        let by = sender.address.to_string();
        text_of(replay(&["--interface", &by, "--ttl", "3"]));
        sender.ip("route add 239.0.0.0/8 dev cable");
        text_of(replay(&["--pace", "max"]));
        listener.join().expect("it ends")
    });
    for (index, (datagram, from)) in received.iter().enumerate() {
        assert_eq!(datagram, expected[index % 4].as_bytes(), "datagram {index}");
        assert_eq!(*from, sender.address);
    }
}

/// Goal: the original pace keeps messages apart, xN divides, and the summary says how well. Only lower bounds are judged: no
/// machine can make time go faster.
#[test]
fn the_pace_is_kept_and_told() {
    let directory = journal_of(&[0, 100_000_000, 100_001_000, 300_000_000]);
    let journal = directory.path().join("journal");
    let summary_file = directory.path().join("summary");
    let hgrm = directory.path().join("hgrm");
    for (pace, least) in [("original", 300), ("x3", 100), ("max", 0)] {
        let begun = Instant::now();
        let told = [
            "--pace",
            pace,
            "--summary-file",
            text(&summary_file),
            "--hgrm",
            text(&hgrm),
        ];
        let out = run(&[&["replay", text(&journal), "--raw"], &told[..]].concat());
        assert_eq!(out, "1234");
        assert!(begun.elapsed() >= Duration::from_millis(least), "{pace}");
        let summary = last_object(&fs::read_to_string(&summary_file).expect("written"));
        assert_eq!(summary["messages"], 4);
        assert_eq!(summary["gap_error"].is_null(), pace == "max", "{pace}");
        // The rest of it was slept.
        let spun = summary["spun_seconds"].as_f64();
        assert_eq!(spun.is_none(), pace == "max", "{pace}");
        assert!(spun.unwrap_or(0.0) < summary["seconds"].as_f64().expect("a number"));
        if pace != "max" {
            let text = fs::read_to_string(&hgrm).expect("written");
            assert!(text.contains("TotalCount"));
        }
    }
    let dry = last_object(&run(&[
        "replay",
        text(&journal),
        "--dry-run",
        "--json",
        "--from",
        "2",
    ]));
    assert_eq!(
        (&dry["messages"], &dry["bytes"], &dry["first_seq"]),
        (&3.into(), &3.into(), &2.into())
    );
    let dry = run(&["replay", text(&journal), "--dry-run", "--topic", "nothing"]);
    assert!(dry.contains("nothing"), "{dry}");
}

/// Goal: one message for each line of standard input, and a quiet end with it.
#[test]
fn a_replay_goes_step_by_step() {
    let directory = journal_of(&[0, 1, 2, 3]);
    let journal = directory.path().join("journal");
    let mut command = command(&["replay", text(&journal), "--pace", "step"]);
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("relay runs");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    for number in 1..=2 {
        stdin.write_all(b"\n").expect("taken");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, format!("{number} a.x {number}\n"));
    }
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("read");
    assert_eq!(rest, "");
    assert!(child.wait().expect("it ends").success());
}

/// Goal: a second relay gets every message with the identity it had in the first, from a directory and live; a replay of the
/// replay keeps the first one.
#[test]
fn another_relay_gets_the_original_identities() {
    let one = Relayd::start();
    let lines: String = (0..500).map(|number| format!("order {number}\n")).collect();
    one.publish("a.orders", &lines);
    one.publish("a.fills", "fill\n");
    let first = objects(&one.run_ok("export", &["--format", "json"]));
    assert_eq!(first.len(), 501);
    let identity = |message: &Value| {
        let names = [
            "publisher",
            "incarnation",
            "publisher_seq",
            "seq",
            "receive_time_ns",
        ];
        names.map(|name| message[name].as_u64().expect("a number"))
    };
    let into = |two: &Relayd, from: &mut Command| {
        let options = [
            "--into",
            &two.address,
            "--into-credential",
            "desk",
            "--pace",
            "max",
        ];
        from.args(options).env("RELAY_INTO_SECRET", SECRET);
        text_of(from.output().expect("relay runs"));
    };
    let check = |two: &Relayd, topic: &str| {
        let second = objects(&two.run_ok("export", &["--format", "json"]));
        assert_eq!(second.len(), first.len());
        for (index, (before, after)) in first.iter().zip(&second).enumerate() {
            assert_eq!(
                identity(&after["original"]),
                identity(before),
                "message {index}"
            );
            assert_eq!(after["seq"], index + 1);
            assert_eq!(after["payload"], before["payload"]);
            assert_eq!(after["origin_time_ns"], before["origin_time_ns"]);
            let expected = format!("{topic}{}", before["topic"].as_str().expect("text"));
            assert_eq!(after["topic"], expected.as_str());
        }
    };
    let live = Relayd::start();
    into(&live, &mut one.command("replay", &[]));
    check(&live, "");
    let again = Relayd::start();
    into(
        &again,
        &mut live.command("replay", &["--into-prefix", "a.test"]),
    );
    check(&again, "a.test.");
    let mut one = one;
    one.stop();
    let third = Relayd::start();
    let stream = one.stream();
    into(&third, &mut command(&["replay", text(&stream)]));
    check(&third, "");

    // Topics that it may not publish there, and a wrong secret.
    let wrong = ["--into", &third.address, "--into-credential", "desk"];
    let wrong = [&["replay", text(&stream)], &wrong[..]].concat();
    let (status, said) = refusal(command(&wrong).env("RELAY_INTO_SECRET", "00"));
    assert_eq!(status, 4, "{said}");
    let mut forbidden = command(&[&wrong[..], &["--into-prefix", "b"]].concat());
    let (status, said) = refusal(forbidden.env("RELAY_INTO_SECRET", SECRET));
    assert_eq!(status, 1, "{said}");
    let (status, said) = refusal(&mut command(&wrong));
    assert_eq!(status, 2);
    assert!(said.contains("RELAY_INTO_SECRET"), "{said}");
}

/// Goal: a replay to a capture is the export of one; a signal ends a long replay with its status and removes the partial file.
#[test]
fn a_capture_and_a_signal() {
    let directory = journal_of(&[0, 1_000_000, 3_600_000_000_000]);
    let journal = directory.path().join("journal");
    let place = |name: &str| directory.path().join(name);
    run(&[
        "replay",
        text(&journal),
        "--to-pcap",
        text(&place("one.pcap")),
    ]);
    let to = ["--format", "pcap", "-o", text(&place("two.pcap"))].map(str::to_owned);
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    run(&[&["export", text(&journal)], &to[..]].concat());
    let bytes = fs::read(place("one.pcap")).expect("written");
    assert!(bytes == fs::read(place("two.pcap")).expect("written"));

    let mut long = command(&["replay", text(&journal)]);
    let mut child = long.stdout(Stdio::piped()).spawn().expect("relay runs");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = String::new();
    out.read_line(&mut lines).expect("a line");
    out.read_line(&mut lines).expect("a line");
    assert_eq!(
        lines, "1 a.x 1\n2 a.x 2\n",
        "what is due is out before the hour's wait"
    );
    terminate(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}
