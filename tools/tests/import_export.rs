//! Goal: what is imported is a journal that relayd starts on, and comes out again bit-exact: as CSV, JSON lines and pcap, read
//! by programs that are not of this project. Bad input is an error that says what to do. Method: the built programs, real
//! captures where they lie beside the sources, a generated flow always.

mod support;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{Relayd, last_object, refusal, relay, text_of};
use tempfile::TempDir;

/// `relay` with these arguments and no relay to connect to.
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

/// A directory, and a journal in it made of a generated flow.
fn generated(count: u64) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = directory.path().join("journal");
    let count = count.to_string();
    let flow = ["--generate", "capture-like", "--count", &count];
    let shape = ["--segment-size", "4MiB", "--topic", "a.feed"];
    run(&[&["import", text(&journal)], &flow[..], &shape].concat());
    (directory, journal)
}

/// Captures beside the sources, where there are some.
fn captures() -> Vec<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "pcap"))
        .collect()
}

/// Says loudly that something is not tested; where everything must be, that is a failure.
fn missing(program: &str, package: &str) {
    let text = format!("{program} is missing: on Debian, apt-get install {package}");
    let is_required = std::env::var_os("RELAY_REQUIRE_READERS").is_some();
    assert!(!is_required, "{text}");
    eprintln!("\n*** NOT TESTED: {text} ***\n");
}

fn has_tshark() -> bool {
    let mut probe = Command::new("tshark");
    let found = probe
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there {
        missing("tshark", "tshark");
    }
    is_there
}

/// The hashes of a file, without the seqs that a receiver's has in front.
fn hashes(path: &Path, has_seq: bool) -> Vec<String> {
    let text = fs::read_to_string(path).expect("it was written");
    let lines = text.lines().enumerate().map(|(index, line)| {
        if !has_seq {
            return line.to_owned();
        }
        let (seq, rest) = line.split_once(' ').expect("a seq");
        assert_eq!(seq, (index + 1).to_string());
        rest.to_owned()
    });
    lines.collect()
}

fn export(journal: &Path, format: &str, output: &Path) -> Vec<String> {
    let list = output.with_extension("hashes");
    let to = ["--format", format, "--output", text(output)];
    run(&[
        &["export", text(journal)],
        &to[..],
        &["--hash-file", text(&list)],
    ]
    .concat());
    hashes(&list, true)
}

/// Goal: payloads and topics come out as they went in, however often they go round; so do the identities in JSON lines.
#[test]
fn what_goes_in_comes_out_bit_exact() {
    let (directory, made) = generated(5_000);
    let place = |name: &str| directory.path().join(name);
    let mut sources = vec![place("generated.pcap")];
    export(&made, "pcap", &sources[0]);
    sources.extend(captures());
    for (number, source) in sources.iter().enumerate() {
        let journal = place(&format!("journal-{number}"));
        let list = place("imported");
        let from = ["--pcap", text(source), "--topic", "a", "--topic-per-port"];
        let shape = [
            "--segment-size",
            "4MiB",
            "--hash-file",
            text(&list),
            "--json",
        ];
        let summary = run(&[&["import", text(&journal)], &from[..], &shape].concat());
        let before = hashes(&list, false);
        assert_eq!(last_object(&summary)["messages"], before.len());
        assert!(!before.is_empty());
        let verified = last_object(&run(&["verify", text(&journal), "--json"]));
        assert_eq!(verified["status"], "clean");
        assert_eq!(verified["records"], before.len());

        let (lines, capture) = (place("x.jsonl"), place("x.pcap"));
        assert!(
            export(&journal, "json", &lines) == before,
            "{}",
            source.display()
        );
        assert!(export(&journal, "csv", &place("x.csv")) == before);
        assert!(export(&journal, "pcap", &capture) == before);

        let again = place(&format!("again-{number}"));
        let shape = ["--segment-size", "4MiB", "--hash-file", text(&list)];
        run(&[
            &["import", text(&again), "--jsonl", text(&lines)],
            &shape[..],
        ]
        .concat());
        assert!(hashes(&list, false) == before);
        let copy = place("y.jsonl");
        assert!(export(&again, "json", &copy) == before);
        let same = fs::read(&lines).expect("written") == fs::read(&copy).expect("written");
        assert!(same, "identities and times too");

        let again = place(&format!("third-{number}"));
        let from = ["--pcap", text(&capture), "--topic", "a", "--topic-per-port"];
        run(&[&["import", text(&again)], &from[..], &shape].concat());
        assert!(hashes(&list, false) == before, "ports and payloads");
    }
}

/// Goal: a part of a day that becomes a journal of its own still says where each message stood.
#[test]
fn a_selection_keeps_the_original_identities() {
    let (directory, journal) = generated(1_000);
    let place = |name: &str| directory.path().join(name);
    let (part, copy) = (place("part.jsonl"), place("copy"));
    let range = ["--from", "101", "--to", "110"];
    let to = ["--format", "json", "--output", text(&part)];
    run(&[&["export", text(&journal)], &range[..], &to].concat());
    let from = ["--jsonl", text(&part), "--segment-size", "4MiB"];
    run(&[&["import", text(&copy)], &from[..]].concat());
    let first = fs::read_to_string(&part).expect("written");
    let second = run(&["export", text(&copy), "--format", "json"]);
    assert_eq!(second.lines().count(), 10);
    for (index, (before, after)) in first.lines().zip(second.lines()).enumerate() {
        let before: Value = serde_json::from_str(before).expect("JSON");
        let after: Value = serde_json::from_str(after).expect("JSON");
        assert_eq!(after["seq"], index + 1);
        assert_eq!(after["publisher_seq"], index + 1);
        assert_eq!(after["receive_time_ns"], before["receive_time_ns"]);
        for name in [
            "publisher",
            "incarnation",
            "publisher_seq",
            "seq",
            "receive_time_ns",
        ] {
            assert_eq!(after["original"][name], before[name], "{name}");
        }
    }
}

/// Goal: relayd starts on an imported journal and goes on with it.
#[test]
fn a_relay_goes_on_with_an_imported_journal() {
    let mut relayd = Relayd::start_on(|relayd| {
        let stream = relayd.stream();
        let flow = ["--size", "1000", "--count", "5000", "--topic", "a.old"];
        run(&[
            &["import", text(&stream), "--segment-size", "4MiB"],
            &flow[..],
        ]
        .concat());
    });
    relayd.publish("a.new", "one more\n");
    let from = ["--from", "5000", "--until-end", "-f", "%o %t\\n"];
    assert_eq!(relayd.run_ok("sub", &from), "5000 a.old\n5001 a.new\n");
    relayd.stop();
    let stream = relayd.stream();
    let verified = last_object(&run(&["verify", text(&stream), "--json"]));
    assert_eq!(verified["records"], 5001);
}

/// Goal: `--port` takes what comes from or goes to a port; `--lone` gives each message its block.
#[test]
fn an_import_is_filtered_and_laid_out_as_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let lines: String = (0..30)
        .map(|number| {
            format!(
                "{{\"topic\":\"a.{}\",\"payload\":\"{number}\"}}\n",
                7001 + number % 3
            )
        })
        .collect();
    fs::write(place("lines"), lines).expect("written");
    let shape = ["--segment-size", "4MiB", "--json"];
    let (all, capture) = (place("all"), place("all.pcap"));
    let lone = ["--jsonl", text(&place("lines")), "--lone"].map(str::to_owned);
    let lone: Vec<&str> = lone.iter().map(String::as_str).collect();
    let summary = run(&[&["import", text(&all)], &lone[..], &shape].concat());
    let blocks = last_object(&summary)["blocks"].as_u64().expect("a number");
    assert!(blocks >= 30, "{blocks}");
    export(&all, "pcap", &capture);
    let some = place("some");
    let ports = [
        "--port",
        "7001",
        "--port",
        "7003",
        "--topic-per-port",
        "--topic",
        "a",
    ];
    run(&[
        &["import", text(&some), "--pcap", text(&capture)],
        &ports[..],
        &shape,
    ]
    .concat());
    let out = run(&["replay", text(&some), "--pace", "max"]);
    let expected: String = (0..30)
        .filter(|number| number % 3 != 1)
        .enumerate()
        .map(|(index, number)| format!("{} a.{} {number}\n", index + 1, 7001 + number % 3))
        .collect();
    assert_eq!(out, expected);
}

/// Goal: pandas reads the table as it is meant, odd payloads included.
#[test]
fn pandas_reads_the_table() {
    // Debian's package is that of Debian's Python, which need not be the first on the path.
    let imports = |python: &&str| {
        let mut probe = Command::new(python);
        let found = probe
            .args(["-c", "import pandas"])
            .stderr(Stdio::null())
            .status();
        found.is_ok_and(|status| status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(imports) else {
        missing("pandas", "python3-pandas");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let payloads = [
        "",
        "plain",
        "a,b;\"c\"",
        "two\nlines\r\n",
        "价 üñî",
        "8=FIX.4.2\u{1}9=5",
        "NA",
    ];
    let mut lines = String::new();
    for (number, payload) in payloads.iter().enumerate() {
        let line = serde_json::json!({
            "topic": "a.\"odd\",name", "payload": payload, "publisher": number + 1,
            "key_hash": u64::MAX, "receive_time_ns": 1_767_605_400_000_000_000_u64 + number as u64,
        });
        lines += &format!("{line}\n");
    }
    lines += "{\"topic\":\"b\",\"payload_hex\":\"00ff\",\"original\":{\"publisher\":7,\
              \"incarnation\":8,\"publisher_seq\":9,\"seq\":10,\"receive_time_ns\":11}}\n";
    fs::write(place("lines"), lines).expect("written");
    let journal = place("journal");
    run(&[
        "import",
        text(&journal),
        "--jsonl",
        text(&place("lines")),
        "--segment-size",
        "4MiB",
    ]);
    let table = place("table.csv");
    let list = export(&journal, "csv", &table);
    let script = "
import hashlib, json, sys, pandas
table = pandas.read_csv(sys.argv[1], dtype=str, keep_default_na=False)
hashes = []
for row in table.itertuples():
    payload = bytes.fromhex(row.payload_hex) if row.payload_hex else row.payload.encode()
    hashes.append(hashlib.sha256(payload).hexdigest() + ' ' + row.topic)
numbers = pandas.read_csv(sys.argv[1])
times = pandas.to_datetime(numbers['receive_time_ns'])
print(json.dumps({'hashes': hashes, 'key': str(numbers['key_hash'][0]), 'time': str(times[1]),
    'original': [int(v) for v in table.iloc[-1][-5:]], 'columns': len(table.columns)}))
";
    let output = Command::new(python)
        .args(["-c", script, text(&table)])
        .output()
        .expect("python3 runs");
    let read: Value = serde_json::from_str(&text_of(output)).expect("JSON");
    assert_eq!(read["hashes"], Value::from(list));
    assert_eq!(read["key"], u64::MAX.to_string());
    assert_eq!(read["time"], "2026-01-05 09:30:00.000000001");
    assert_eq!(read["original"], serde_json::json!([7, 8, 9, 10, 11]));
    assert_eq!(read["columns"], 15);
}

/// Goal: tshark finds every datagram whole, its checksums right and its time to the nanosecond, also over 64 KiB; and a
/// dissector of the field takes the payloads for its own.
#[test]
fn tshark_reads_the_capture() {
    if !has_tshark() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let lengths = [
        1, 2, 77, 1_472, 9_000, 65_507, 65_508, 65_527, 65_528, 65_536, 131_073, 262_074,
    ];
    let mut lines = String::new();
    let mut payloads = Vec::new();
    for (number, length) in lengths.into_iter().enumerate() {
        let payload: String = (0..length)
            .map(|at| format!("{:02x}", (at * 7 + number) % 256))
            .collect();
        let time_ns = 1_767_605_400_000_000_000_u64 + number as u64;
        lines += &format!(
            "{{\"topic\":\"a.40123\",\"payload_hex\":\"{payload}\",\"receive_time_ns\":{time_ns}}}\n"
        );
        payloads.push(payload);
    }
    fs::write(place("lines"), lines).expect("written");
    let (journal, capture) = (place("journal"), place("day.pcap"));
    run(&[
        "import",
        text(&journal),
        "--jsonl",
        text(&place("lines")),
        "--segment-size",
        "8MiB",
    ]);
    export(&journal, "pcap", &capture);
    let checks = ["ip.check_checksum:TRUE", "udp.check_checksum:TRUE"];
    let fields = [
        "frame.time_epoch",
        "udp.dstport",
        "ip.checksum.status",
        "udp.checksum.status",
        "_ws.malformed",
        "data.data",
    ];
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", text(&capture), "-T", "fields"]);
    for check in checks {
        tshark.args(["-o", check]);
    }
    for field in fields {
        tshark.args(["-e", field]);
    }
    let read = text_of(tshark.output().expect("tshark runs"));
    let rows: Vec<Vec<&str>> = read
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(rows.len(), lengths.len());
    for ((number, row), payload) in rows.iter().enumerate().zip(&payloads) {
        let length = lengths[number];
        assert!(
            row[0].ends_with(&format!(".{number:09}")),
            "{length}: {}",
            row[0]
        );
        assert_eq!(row[1], "40123", "{length}");
        let is_ipv4 = length <= 65_507;
        assert_eq!(
            row[2],
            if is_ipv4 { "1" } else { "" },
            "{length}: IPv4 checksum"
        );
        assert_eq!(row[3], "1", "{length}: UDP checksum");
        assert_eq!(row[4], "", "{length}: malformed");
        assert!(row[5] == payload, "{length}: payload");
    }
}

/// Goal: the frames are taken for those of the feed they came from. Method: a capture of the field goes in and comes out,
/// and tshark's dissection of both is compared. A capture's times may go back, receive times don't: there the latest one is
/// kept.
#[test]
fn tshark_dissects_an_export_as_the_capture_it_came_from() {
    if !has_tshark() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let dissect = |capture: &Path| {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-r", text(capture), "-Y", "udp", "-T", "fields"]);
        tshark.args([
            "-e",
            "udp.dstport",
            "-e",
            "udp.length",
            "-e",
            "udp.payload",
            "-e",
            "frame.time_epoch",
        ]);
        text_of(tshark.output().expect("tshark runs"))
    };
    for (number, capture) in captures().iter().enumerate() {
        let (journal, out) = (place(&format!("journal-{number}")), place("out.pcap"));
        let from = ["--pcap", text(capture), "--topic", "a", "--topic-per-port"];
        run(&[
            &["import", text(&journal), "--segment-size", "4MiB"],
            &from[..],
        ]
        .concat());
        export(&journal, "pcap", &out);
        let before = dissect(capture);
        let after = dissect(&out);
        // A capture of TCP comes out as datagrams.
        if before.is_empty() {
            continue;
        }
        assert_eq!(after.lines().count(), before.lines().count());
        let mut latest = String::new();
        for (before, after) in before.lines().zip(after.lines()) {
            let (fields, time) = before.rsplit_once('\t').expect("four fields");
            if time > latest.as_str() {
                latest = time.to_owned();
            }
            assert!(after == format!("{fields}\t{latest}"), "{after}");
        }
    }
}

fn damage(journal: &Path, at: u64) {
    let path = journal.join("segments/0000000000000000");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

fn refused(arguments: &[&str], status: i32, says: &str) {
    let (found, said) = refusal(&mut command(arguments));
    assert_eq!(found, status, "{arguments:?}: {said}");
    assert!(
        said.starts_with("relay: ") && said.contains(says),
        "{arguments:?}: {said}"
    );
}

/// Goal: every kind of bad directory and range has its message and status.
#[test]
fn bad_input_is_refused_with_what_to_do() {
    let (directory, journal) = generated(20_000);
    let place = |name: &str| directory.path().join(name);
    let dry = |path: &Path, status, says: &str| {
        refused(&["replay", text(path), "--dry-run"], status, says);
        refused(&["export", text(path), "--format", "csv"], status, says);
    };
    dry(&place("nowhere"), 1, "give the stream's directory");
    fs::create_dir(place("empty")).expect("made");
    dry(&place("empty"), 1, "give the stream's directory");
    fs::create_dir(place("foreign")).expect("made");
    fs::write(place("foreign/superblock"), vec![b'x'; 8192]).expect("written");
    dry(&place("foreign"), 1, "not a journal");
    fs::write(place("foreign/superblock"), b"short").expect("written");
    dry(&place("foreign"), 3, "superblock");

    let range = |from: &str, to: &str, says: &str| {
        let arguments = [
            "replay",
            text(&journal),
            "--dry-run",
            "--from",
            from,
            "--to",
            to,
        ];
        refused(&arguments, 1, says);
    };
    range("20001", "end", "seq 1 to 20000");
    range("1", "20001", "seq 1 to 20000");
    range("2100-01-01T00:00:00Z", "end", "2100-01-01T00:00:00Z");
    refused(
        &["replay", text(&journal), "--from", "9", "--to", "8"],
        2,
        "--from",
    );
    refused(&["replay", "--dry-run"], 2, "directory");
    let (status, said) = refusal(&mut command(&["replay", text(&journal), "--from", "noon"]));
    assert!(status == 2 && said.contains("`noon`"), "{said}");
    refused(&["replay", text(&journal), "--topic", "a..b"], 2, "a..b");
    refused(
        &["import", text(&journal), "--size", "1", "--count", "1"],
        1,
        "something already",
    );
    refused(&["import", text(&place("x"))], 2, "nothing to import");
    refused(
        &[
            "import",
            text(&place("x")),
            "--jsonl",
            text(&place("foreign/superblock")),
        ],
        1,
        "line 1",
    );
    assert!(!place("x").exists(), "nothing is left of it");

    damage(&journal, 1 << 20);
    refused(&["replay", text(&journal), "--dry-run"], 3, "position");
    let whole = run(&[
        "replay",
        text(&journal),
        "--dry-run",
        "--json",
        "--to",
        "100",
    ]);
    assert_eq!(
        last_object(&whole)["messages"],
        100,
        "what lies before the damage is read"
    );
    let later = ["--from", "15000", "--dry-run", "--json"];
    let later = run(&[&["replay", text(&journal)], &later[..]].concat());
    assert_eq!(
        last_object(&later)["messages"],
        5_001,
        "what lies before the range is not read"
    );
    damage(&journal, 1 << 20);

    let segments = journal.join("segments");
    let second = segments.join("0000000000000001");
    let copy = fs::read(&second).expect("a second segment");
    let half = copy.len() / 2;
    fs::write(&second, &copy[..half]).expect("written");
    refused(&["replay", text(&journal), "--dry-run"], 3, "copy");
    fs::remove_file(&second).expect("there");
    refused(&["replay", text(&journal), "--dry-run"], 3, "missing");
    fs::write(&second, &copy).expect("written");
    fs::rename(segments.join("0000000000000000"), place("first")).expect("there");
    refused(&["replay", text(&journal), "--dry-run"], 3, "--from SEQ");
}

/// Goal: a full disk leaves no partial file, nor a journal that is none; a reader that leaves ends the command quietly.
/// Method: the shell's limit on the size of files stands in for the disk.
#[test]
fn a_full_disk_and_a_closed_pipe() {
    let (directory, journal) = generated(20_000);
    let limited = |arguments: &str| -> Output {
        let line = format!("trap '' XFSZ; ulimit -f 64; exec \"$0\" {arguments}");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line, relay()])
            .current_dir(directory.path());
        shell.output().expect("sh runs")
    };
    for format in ["csv", "json", "pcap"] {
        let output = limited(&format!(
            "export journal --format {format} --output day.out"
        ));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{format}: {said}");
        assert!(
            said.contains("day.out") && said.contains("room"),
            "{format}: {said}"
        );
    }
    let output = limited("replay journal --to-pcap day.out");
    assert_eq!(output.status.code(), Some(1));
    let output = limited("import copy --size 256 --count 10000 --segment-size 4MiB");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let left = fs::read_dir(directory.path()).expect("listed");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["journal"]);

    let path = text(&journal).to_owned();
    for arguments in [
        vec!["export", &path, "--format", "csv"],
        vec!["replay", &path, "--pace", "max"],
    ] {
        let mut command = command(&arguments);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("relay runs");
        let mut first = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut first)
            .expect("a line");
        assert!(!first.is_empty());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
}

/// Goal: the selection flags do what they say, alone and together.
#[test]
fn messages_are_selected() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = directory.path().join("journal");
    let mut lines = String::new();
    for number in 1..=60_u64 {
        let line = serde_json::json!({
            "topic": format!("t.{}", number % 2), "payload": number.to_string(),
            "publisher": number % 3 + 1, "key_hash": number % 5,
            "receive_time_ns": 1_767_605_400_000_000_000 + number * 1_000_000_000,
        });
        lines += &format!("{line}\n");
    }
    let mut child = command(&[
        "import",
        text(&journal),
        "--jsonl",
        "-",
        "--segment-size",
        "4MiB",
    ])
    .stdin(Stdio::piped())
    .spawn()
    .expect("relay runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(lines.as_bytes()).expect("taken");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
    let select = |flags: &[&str]| -> Vec<u64> {
        let fixed = ["replay", text(&journal), "--pace", "max", "-f", "%s\\n"];
        let out = run(&[&fixed[..], flags].concat());
        out.lines()
            .map(|line| line.parse().expect("a number"))
            .collect()
    };
    let wanted =
        |test: &dyn Fn(u64) -> bool| -> Vec<u64> { (1..=60).filter(|n| test(*n)).collect() };
    assert_eq!(select(&[]), wanted(&|_| true));
    assert_eq!(select(&["--from", "7", "--to", "9"]), [7, 8, 9]);
    let times = [
        "--from",
        "2026-01-05T09:30:10Z",
        "--to",
        "2026-01-05T09:30:12Z",
    ];
    assert_eq!(select(&times), [10, 11, 12]);
    assert_eq!(
        select(&["--from", "59", "--to", "2100-01-01T00:00:00Z"]),
        [59, 60]
    );
    assert_eq!(select(&["--from", "end"]), [0; 0]);
    assert_eq!(select(&["--topic", "t.1"]), wanted(&|n| n % 2 == 1));
    assert_eq!(
        select(&["--topic", "*.0", "--topic", "t.1"]),
        wanted(&|_| true)
    );
    assert_eq!(select(&["--publisher", "2"]), wanted(&|n| n % 3 == 1));
    assert_eq!(
        select(&["--publisher", "1", "--publisher", "2"]),
        wanted(&|n| n % 3 != 2)
    );
    assert_eq!(select(&["--key", "0x4"]), wanted(&|n| n % 5 == 4));
    let all = [
        "--topic",
        "t.0",
        "--publisher",
        "3",
        "--key",
        "2",
        "--from",
        "10",
    ];
    assert_eq!(
        select(&all),
        wanted(&|n| n % 2 == 0 && n % 3 == 2 && n % 5 == 2 && n >= 10)
    );
}
