//! Goal: `pub`, `sub`, `inspect`, `verify` and `status` do what their help says, and their exit statuses are the documented ones.
//! Method: the built programs, a relayd per test, files and pipes as a user has them.

mod support;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Relayd, last_object, refusal, relay, terminate, text_of, wait_until};

#[test]
fn lines_come_out_as_they_went_in() {
    let relayd = Relayd::start();
    let summary = last_object(&relayd.publish("a.one", "first\nsecond \\ line\n"));
    assert_eq!(
        (&summary["published"], &summary["acknowledged"]),
        (&2.into(), &2.into())
    );
    relayd.publish("a.two", "tab\there\nüñî\n");

    let from_start = ["--from", "earliest", "--until-end"];
    let text = relayd.run_ok("sub", &from_start);
    assert_eq!(
        text,
        "1 a.one first\n2 a.one second \\\\ line\n3 a.two tab\\there\n4 a.two üñî\n"
    );

    let raw = relayd.run_ok("sub", &["--from", "3", "--count", "2", "--raw"]);
    assert_eq!(raw, "tab\thereüñî");

    let format = [
        &from_start[..],
        &["--topic", "a.one", "-f", "%o|%t|%S|%p/%q|%k\\n"],
    ]
    .concat();
    assert_eq!(
        relayd.run_ok("sub", &format),
        "1|a.one|5|1/1|0\n2|a.one|13|1/2|0\n"
    );

    let json = relayd.run_ok(
        "sub",
        &[&from_start[..], &["--topic", "*.two", "--json"]].concat(),
    );
    let message = last_object(&json);
    assert_eq!(
        (&message["seq"], &message["payload"]),
        (&4.into(), &"üñî".into())
    );
    assert_eq!(json.lines().count(), 2);
}

#[test]
fn a_time_finds_the_first_message_received_at_or_after_it() {
    let relayd = Relayd::start();
    relayd.publish("a", "");
    relayd.publish("a.x", "one\n");
    relayd.publish("a.x", "two\nthree\n");
    let second = relayd.run_ok("sub", &["--from", "2", "--count", "1", "-f", "%T"]);
    let nanoseconds: i128 = second.parse().expect("a time");
    let time = jiff::Timestamp::from_nanosecond(nanoseconds)
        .expect("in range")
        .to_string();
    let text = relayd.run_ok("sub", &["--from", &time, "--until-end", "-f", "%s "]);
    assert_eq!(text, "two three ");
}

#[test]
fn generated_messages_are_hashed_on_both_sides_alike() {
    let relayd = Relayd::start();
    let (published, received) = (
        relayd.directory.path().join("published"),
        relayd.directory.path().join("received"),
    );
    let (published, received) = (
        published.to_str().expect("text"),
        received.to_str().expect("text"),
    );
    let generate = [
        "--generate",
        "capture-like",
        "--count",
        "2000",
        "--pace",
        "max",
    ];
    let arguments = [
        &[
            "--publisher",
            "1",
            "--topic",
            "a.feed",
            "--hash-file",
            published,
        ],
        &generate[..],
    ]
    .concat();
    relayd.run_ok("pub", &arguments);
    let arguments = [
        "--from",
        "earliest",
        "--until-end",
        "--quiet",
        "--hash-file",
        received,
    ];
    relayd.run_ok("sub", &arguments);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/compare_hashes.py");
    let output = Command::new("python3")
        .arg(script)
        .args([published, received])
        .output();
    let comparison = last_object(&text_of(output.expect("python3 runs")));
    assert_eq!(comparison["subscribers"][0]["received"], 2000);
}

#[test]
fn a_capture_is_published_by_port() {
    let relayd = Relayd::start();
    let capture = relayd.directory.path().join("capture.pcap");
    let mut bytes = Vec::from([0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
    bytes.extend([0; 8]);
    bytes.extend(65_535u32.to_le_bytes());
    bytes.extend(101u32.to_le_bytes());
    for port in [7001u16, 7002] {
        let mut packet = vec![
            0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        packet.extend([0, 9]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 13, 0, 0]);
        packet.extend(b"quote");
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend((packet.len() as u32).to_le_bytes());
        bytes.extend((packet.len() as u32).to_le_bytes());
        bytes.extend(packet);
    }
    fs::write(&capture, &bytes).expect("written");
    let path = capture.to_str().expect("text");
    let arguments = [
        "--publisher",
        "1",
        "--topic",
        "a",
        "--topic-per-port",
        "--pcap",
        path,
    ];
    relayd.run_ok("pub", &arguments);
    let text = relayd.run_ok("sub", &["--from", "earliest", "--until-end"]);
    assert_eq!(text, "1 a.7001 quote\n2 a.7002 quote\n");

    fs::write(&capture, &bytes[..bytes.len() - 3]).expect("written");
    let (status, said) = refusal(&mut relayd.command("pub", &arguments));
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("byte 73"), "{said}");
}

#[test]
fn exit_statuses_are_the_documented_ones() {
    let relayd = Relayd::start();
    let mut wrong_secret = relayd.command("sub", &["--until-end", "--secret", "00"]);
    assert_eq!(refusal(&mut wrong_secret).0, 4);
    let nobody = ["--address", "127.0.0.1:1", "--give-up-after", "0.2"];
    let (status, said) = refusal(&mut relayd.command("sub", &nobody));
    assert_eq!(status, 4, "{said}");
    assert!(said.starts_with("relay: "), "{said}");
    assert_eq!(
        refusal(&mut relayd.command("sub", &["--from", "yesterday"])).0,
        2
    );
    assert_eq!(refusal(Command::new(relay()).arg("sub").env_clear()).0, 2);
    let (status, said) = refusal(&mut relayd.command(
        "pub",
        &[
            "--publisher",
            "1",
            "--topic",
            "b",
            "--size",
            "8",
            "--count",
            "1",
        ],
    ));
    assert_eq!(status, 1, "not entitled: {said}");
    let mut nodes = Command::new(relay());
    nodes.args(["bench", "latency", "--nodes", "4"]);
    let (status, said) = refusal(&mut nodes);
    assert_eq!(status, 2);
    assert!(said.contains("1 to 3"), "{said}");
    let help = text_of(
        Command::new(relay())
            .arg("--help")
            .output()
            .expect("relay runs"),
    );
    assert!(help.contains("130  interrupted"), "{help}");
}

#[test]
fn a_reader_that_leaves_and_a_signal_end_it_quietly() {
    let relayd = Relayd::start();
    let lines: String = (0..20_000)
        .map(|number| format!("message {number}\n"))
        .collect();
    relayd.publish("a.many", &lines);
    let mut command = relayd.command("sub", &["--from", "earliest"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("relay runs");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut first)
        .expect("a line");
    assert_eq!(first, "1 a.many message 0\n");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());

    let mut child = relayd
        .command("sub", &["--verbose"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("relay runs");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert!(line.contains("subscribed: from 20001"), "{line}");
    terminate(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn a_journal_is_looked_at_and_damage_is_named_by_position() {
    let mut relayd = Relayd::start();
    let stream = relayd.stream();
    let stream = stream.to_str().expect("text");
    for part in 0..5 {
        relayd.publish("a.b", &format!("first {part}\nsecond {part}\n"));
    }
    relayd.stop();

    let summary = last_object(&relayd.run_ok("inspect", &[stream, "--json"]));
    assert_eq!(
        (&summary["next_seq"], &summary["verdict"]),
        (&11.into(), &"intact".into())
    );
    assert_eq!(summary["stopped_cleanly"], true);
    // The key of the seals is there from the start; no segment is full.
    let key = summary["seal_key"].as_str().expect("a key");
    assert_eq!((key.len(), &summary["sealed"]), (64, &0.into()));
    let control = relayd.run_ok("inspect", &[stream, "--records"]);
    assert!(control.contains(&format!("node 1 seals with key {key}")));
    assert!(control.contains("the clock of node 1 is "));
    assert!(
        relayd
            .run_ok("inspect", &[stream])
            .contains("next seq           11")
    );
    let segments = relayd.run_ok("inspect", &[stream, "--segments", "--json"]);
    assert_eq!(last_object(&segments)["is_whole"], true);
    let records = relayd.run_ok(
        "inspect",
        &[stream, "--records", "--from-seq", "4", "--json"],
    );
    // A change of the machine's clock may be recorded behind the last message.
    let record = records
        .lines()
        .map(last_object)
        .rfind(|record| !record["topic_name"].is_null())
        .expect("a message");
    assert_eq!(
        (&record["seq"], &record["topic_name"]),
        (&10.into(), &"a.b".into())
    );
    let limited = relayd.run_ok("inspect", &[stream, "--records", "--limit", "3"]);
    assert_eq!(limited.lines().count(), 3);
    let blocks = relayd.run_ok(
        "inspect",
        &[stream, "--blocks", "--from-seq", "7", "--json"],
    );
    let block: serde_json::Value =
        serde_json::from_str(blocks.lines().next().expect("a block")).expect("JSON");
    let position = block["position"].as_u64().expect("a number");
    let again = [
        "--blocks",
        "--from-position",
        &position.to_string(),
        "--limit",
        "1",
        "--json",
    ];
    let again = relayd.run_ok("inspect", &[&[stream], &again[..]].concat());
    assert_eq!(last_object(&again), block);
    let verified = last_object(&relayd.run_ok("verify", &[stream, "--json"]));
    assert_eq!(
        (&verified["status"], &verified["records"]),
        (&"clean".into(), &10.into())
    );

    // One byte of a record in the middle.
    let segment = Path::new(stream).join("segments/0000000000000000");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(segment)
        .expect("it is there");
    let mut byte = [0];
    file.seek(SeekFrom::Start(position + 200)).expect("within");
    file.read_exact(&mut byte).expect("there");
    file.seek(SeekFrom::Start(position + 200)).expect("within");
    file.write_all(&[byte[0] ^ 1]).expect("written");
    for command in [
        &["inspect", stream, "--blocks"][..],
        &["inspect", stream, "--records"],
        &["verify", stream],
    ] {
        let (status, said) = refusal(&mut relayd.command(command[0], &command[1..]));
        assert_eq!(status, 3, "{command:?}: {said}");
        assert!(
            said.contains(&format!("position {position}")),
            "{command:?}: {said}"
        );
    }
    assert_eq!(refusal(&mut relayd.command("inspect", &["/"])).0, 1);
    let odd = [stream, "--blocks", "--from-position", "7"];
    assert_eq!(refusal(&mut relayd.command("inspect", &odd)).0, 2);
}

/// Goal: two journals that hold the same log are told from two that don't, and only the log counts. Method: a copy, the copy
/// with other bytes behind a filler's first unit, and another relay's journal.
#[test]
fn journals_are_compared_over_the_log() {
    const SEGMENT: u64 = 4 << 20;
    let mut one = Relayd::start();
    let large = "x".repeat(60_000);
    let lines: String = (0..80)
        .map(|number| format!("{number} {large}\n"))
        .collect();
    // How messages share blocks is up to chance, so that a segment may end with a block, or with a filler's first unit.
    let position = (0..20).find_map(|_| {
        one.publish("a.b", &lines);
        let stream = one.stream();
        let stream = stream.to_str().expect("text");
        let blocks = one.run_ok("inspect", &[stream, "--blocks", "--json"]);
        let fillers = blocks
            .lines()
            .map(last_object)
            .filter(|block| block["kind"] == "filler");
        fillers
            .map(|filler| filler["position"].as_u64().expect("a number"))
            .find(|position| position % SEGMENT + 4096 < SEGMENT)
    });
    let position = position.expect("a segment ends with more than a filler's first unit");
    one.stop();
    let copy = one.directory.path().join("copy");
    let status = Command::new("cp")
        .arg("-r")
        .args([&one.stream(), &copy])
        .status();
    assert!(status.expect("cp runs").success());
    let (stream, copied) = (one.stream(), copy.to_str().expect("text").to_owned());
    let stream = stream.to_str().expect("text");
    let compared = |other: &str| last_object(&one.run_ok("verify", &[stream, other, "--json"]));
    let same = compared(&copied);
    assert!(same["identical_bytes"].as_u64() > Some(SEGMENT), "{same}");

    let segment = format!("segments/{:016x}", position / SEGMENT);
    let mut file = OpenOptions::new()
        .write(true)
        .open(copy.join(segment))
        .expect("it is there");
    let behind = position % SEGMENT + 4096;
    file.seek(SeekFrom::Start(behind)).expect("within");
    file.write_all(b"nobody reads this").expect("written");
    // It is no part of the log, so the logs do not differ; but it is not what was left there.
    let output = one.command("verify", &[stream, &copied, "--json"]).output();
    let output = output.expect("relay runs");
    let found = last_object(&String::from_utf8(output.stdout).expect("text"));
    assert_eq!(output.status.code(), Some(3), "{found}");
    assert_eq!(found["identical_bytes"], same["identical_bytes"]);
    assert_eq!(found["findings"][0]["offset"], behind, "{found}");

    let mut other = Relayd::start();
    other.publish("a.b", "something else\n");
    other.stop();
    let other = other.stream().to_str().expect("text").to_owned();
    let (status, said) = refusal(&mut one.command("verify", &[stream, &other]));
    assert_eq!(status, 5, "each fits in itself: {said}");
    assert!(said.contains("position 0"), "{said}");
}

/// Goal: a tail that was set aside can be read. Method: the blocks of a journal from a position on, one of them torn, under the
/// name that relayd gives such a file.
#[test]
fn a_set_aside_tail_is_looked_at() {
    let mut relayd = Relayd::start();
    for part in 0..5 {
        relayd.publish("a.b", &format!("message {part}\n"));
    }
    relayd.stop();
    let stream = relayd.stream();
    let stream = stream.to_str().expect("text");
    let blocks = relayd.run_ok("inspect", &[stream, "--blocks", "--json"]);
    let with_messages: Vec<_> = blocks
        .lines()
        .map(last_object)
        .filter(|block| block["messages"] == 1)
        .map(|block| block["position"].as_u64().expect("a number") as usize)
        .collect();
    let [_, second, third, fourth, _] = with_messages[..] else {
        panic!("a block for each message: {with_messages:?}");
    };
    let segment = Path::new(stream).join("segments/0000000000000000");
    let mut bytes = std::fs::read(segment).expect("it is there");
    bytes[third + 200] ^= 1;
    let name = format!("set-aside-{:016x}-{second:016x}", 9);
    let path = Path::new(stream).join(&name);
    std::fs::write(&path, &bytes[second..fourth + 4096]).expect("written");
    let path = path.to_str().expect("text");

    let summary = last_object(&relayd.run_ok("inspect", &[path, "--json"]));
    let found = ["joined_epoch", "start", "messages", "first_seq", "last_seq"];
    let found = found.map(|field| summary[field].as_u64().expect("a number"));
    assert_eq!(found, [9, second as u64, 2, 2, 4], "{summary}");
    let broken = 4096_u64;
    assert_eq!(summary["broken_bytes"].as_u64(), Some(broken), "{summary}");
    let records = relayd.run_ok("inspect", &[path, "--records"]);
    assert!(
        records.contains("message 1") && records.contains("message 3"),
        "{records}"
    );
    assert!(
        records.contains(&format!("{broken} bytes that are no intact block")),
        "{records}"
    );
    let listed = last_object(&relayd.run_ok("inspect", &[stream, "--json"]));
    assert_eq!(listed["set_aside"][0], *name);
    let (status, said) = refusal(&mut relayd.command("inspect", &[path, "--segments"]));
    assert_eq!(status, 2, "{said}");
}

#[test]
fn counters_are_read_without_asking_the_process() {
    let mut relayd = Relayd::start();
    relayd.publish("a.b", "x\ny\nz\n");
    let (config, stream) = (relayd.config(), relayd.stream());
    let by_config = ["--config", config.to_str().expect("text"), "--json"];
    let by_directory = ["--dir", stream.to_str().expect("text")];
    let status = last_object(&relayd.run_ok("status", &by_config));
    assert_eq!(
        (&status["running"], &status["stream"]),
        (&true.into(), &1.into())
    );
    assert!(
        !status["counters"]
            .as_object()
            .expect("an object")
            .is_empty()
    );
    assert!(!status["hops"].as_object().expect("an object").is_empty());
    assert!(
        relayd
            .run_ok("status", &by_directory)
            .contains(" runs, started")
    );
    relayd.kill();
    wait_until("the process is gone", || {
        relayd
            .run_ok("status", &by_directory)
            .contains("DOES NOT RUN")
    });
}
