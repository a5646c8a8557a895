//! Goal: `verify`, `find` and `index` tell the truth about journals, whole, damaged, forged, incomplete or being written,
//! and their exit statuses tell these apart. Method: the built program on journals laid out from logs built in memory, and
//! on those of a relayd that was fed a capture (or a generated flow where there is none).

mod laid_out;
mod support;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use laid_out::log::{LogBuilder, Random, SEGMENT, superblock};
use laid_out::{built, flip, forged, lay_out, run, segment_path, text, verify};
use relay_journal::block::{BlockKind, HEADER_LENGTH};
use relay_journal::checkpoint;
use relay_journal::segment;
use relay_journal::superblock::{FILE_NAME, Superblock};
use relay_wire::record::HEADER_LENGTH as RECORD_HEADER_LENGTH;
use serde_json::Value;
use support::{Relayd, last_object, refusal, relay, text_of, wait_until};

#[test]
fn a_whole_journal_is_clean_and_the_result_ends_as_promised() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(200);
    lay_out(&log, home.path(), 1);
    let (status, out, said) = run(&["verify", "--json", text(home.path())]);
    assert_eq!((status, said.as_str()), (0, ""), "{out}");
    let last = last_object(&out);
    let messages = log.tables.next_seq.0 - 1;
    assert_eq!(last["status"], "clean");
    assert_eq!(last["records"], messages);
    assert_eq!(
        (&last["first_seq"], &last["last_seq"]),
        (&1.into(), &messages.into())
    );
    assert_eq!(last["findings"], Value::Array(Vec::new()));
    let ends: Vec<_> = [
        "\"status\":",
        "\"records\":",
        "\"first_seq\":",
        "\"last_seq\":",
        "\"findings\":",
    ]
    .iter()
    .map(|key| out.rfind(key).expect("it is there"))
    .collect();
    assert!(ends.is_sorted(), "{out}");
    let journal = &last["journals"][0];
    assert_eq!(journal["blocks"], log.writes.len());
    assert_eq!(journal["epochs"][0]["epoch"], 1);
    assert_eq!(journal["sessions"][0]["name"], "2026-01-05");
    assert_eq!(journal["sessions"][0]["messages"], messages);
    let (status, out, _) = run(&["verify", text(home.path())]);
    assert_eq!(status, 0);
    assert!(
        out.contains("verified: ") && out.ends_with("clean\n"),
        "{out}"
    );
}

/// Goal: whatever byte of the log is changed, it is found, and the block it lies in is named. Method: bytes of every kind of
/// field, and random ones.
#[test]
fn changed_bytes_are_found_and_located() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(150);
    lay_out(&log, home.path(), 1);
    let last = log.writes.len() - 1;
    let mut random = Random(7);
    let mut places: Vec<(usize, usize)> = Vec::new();
    let middle = log
        .writes
        .iter()
        .position(|write| write.header.number > 40 && write.header.kind == BlockKind::Records)
        .expect("there are many");
    for at in [
        0, 8, 10, 11, 12, 16, 24, 32, 40, 48, 52, 56, 60, 64, 72, 80, 84, 88, 124,
    ] {
        places.push((middle, at));
    }
    for at in [
        0,
        4,
        5,
        6,
        8,
        12,
        16,
        24,
        32,
        40,
        48,
        56,
        64,
        RECORD_HEADER_LENGTH,
    ] {
        places.push((middle, HEADER_LENGTH + at));
    }
    places.push((middle, log.writes[middle].bytes.len() - 1));
    for _ in 0..60 {
        // The very last block can't be told from a write that was under way; the clean stop names it all the same.
        let write = random.below(last as u64 + 1) as usize;
        let at = random.below(log.writes[write].bytes.len() as u64) as usize;
        places.push((write, at));
    }
    for (write, at) in places {
        let header = log.writes[write].header;
        let position = header.position.0 + at as u64;
        let mask = 1 << random.below(8);
        flip(home.path(), position, mask);
        let (status, found) = verify(&[home.path()]);
        let place = format!("block {} byte {at}: {found}", header.number);
        assert_eq!(
            (status, &found["status"]),
            (3, &"damaged".into()),
            "{place}"
        );
        let named = found["findings"].as_array().expect("a list");
        assert!(
            named.iter().any(|one| one["position"] == header.position.0
                && one["segment"] == segment::name(header.position.0 / SEGMENT)
                && one["offset"] == header.position.0 % SEGMENT),
            "{place}"
        );
        // The audit goes on behind it.
        let seen = found["journals"][0]["blocks"].as_u64().expect("a number");
        assert!(seen + 2 >= log.writes.len() as u64, "{place}");
        flip(home.path(), position, mask);
    }
    assert_eq!(verify(&[home.path()]).0, 0, "the journal is whole again");
}

#[test]
fn copies_are_compared_down_to_the_field() {
    let homes: Vec<_> = (0..3)
        .map(|_| tempfile::tempdir().expect("a directory"))
        .collect();
    let [one, two, three] = [0, 1, 2].map(|number| homes[number].path());
    let log = built(150);
    lay_out(&log, one, 1);
    lay_out(&log, two, 2);
    let (status, found) = verify(&[one, two]);
    assert_eq!((status, &found["status"]), (0, &"clean".into()), "{found}");
    assert_eq!(found["identical_bytes"], log.tables.position.0);

    // One byte of the payload of one message.
    let write = log
        .writes
        .iter()
        .find(|write| write.header.number > 60 && write.header.data_count > 0)
        .expect("there are many");
    let at = write.header.position.0 + (HEADER_LENGTH + RECORD_HEADER_LENGTH) as u64;
    flip(two, at, 0x20);
    let (status, found) = verify(&[one, two]);
    assert_eq!(
        (status, &found["status"]),
        (3, &"damaged".into()),
        "{found}"
    );
    let difference = &found["difference"];
    assert_eq!(difference["position"], write.header.position.0);
    assert_eq!(difference["seq"], write.header.first_seq.0);
    assert_eq!(difference["field"], "the payload, byte 0");
    assert_eq!(difference["both_intact"], false);
    flip(two, at, 0x20);

    // The same, with every checksum mended: each journal fits in itself, and yet they differ.
    let (forged, seq, position) = forged(&log);
    lay_out(&forged, three, 3);
    assert_eq!(
        verify(&[three]).0,
        0,
        "without a seal or a copy nobody can tell"
    );
    let (status, found) = verify(&[one, two, three]);
    assert_eq!(
        (status, &found["status"]),
        (5, &"tampered".into()),
        "{found}"
    );
    let difference = &found["difference"];
    assert_eq!(difference["position"], position);
    assert_eq!(difference["seq"], seq);
    assert_eq!(difference["field"], "the payload, byte 3");
    assert_eq!(difference["journals"][1], text(three));
}

#[test]
fn what_is_missing_is_told_from_what_is_damaged() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(200);
    let whole = home.path().join("whole");
    lay_out(&log, &whole, 1);
    let gap = home.path().join("gap");
    lay_out(&log, &gap, 1);
    fs::remove_file(segment_path(&gap, 2)).expect("it was there");
    let (status, found) = verify(&[&gap]);
    assert_eq!(
        (status, &found["status"]),
        (6, &"incomplete".into()),
        "{found}"
    );
    assert_eq!(found["findings"][0]["kind"], "missing-segment");
    let seen = found["journals"][0]["blocks"].as_u64().expect("a number");
    assert!(seen > log.writes.len() as u64 / 2, "{found}");

    let cut = home.path().join("cut");
    lay_out(&log, &cut, 1);
    let file = OpenOptions::new().write(true).open(segment_path(&cut, 1));
    file.expect("it is there")
        .set_len(SEGMENT / 2)
        .expect("cut");
    let (status, found) = verify(&[&cut]);
    assert_eq!(
        (status, &found["status"]),
        (6, &"incomplete".into()),
        "{found}"
    );

    // A copy that ends earlier than what was released.
    let mut short = log.clone();
    short.writes.truncate(100);
    short.tables = log.tables_after(100);
    let behind = home.path().join("behind");
    lay_out(&short, &behind, 2);
    let (status, found) = verify(&[&whole, &behind]);
    assert_eq!(
        (status, &found["findings"][0]["kind"]),
        (6, &"behind".into()),
        "{found}"
    );
    assert_eq!(found["identical_bytes"], short.tables.position.0);
}

#[test]
fn what_is_no_journal_is_said_clearly() {
    let home = tempfile::tempdir().expect("a directory");
    let said_of = |path: &Path| refusal(Command::new(relay()).arg("verify").arg(path));
    let (status, said) = said_of(home.path());
    assert!(
        status == 1 && said.contains("give the stream's directory"),
        "{said}"
    );
    let (status, said) = said_of(&home.path().join("nowhere"));
    assert!(status == 1 && said.contains("nowhere"), "{said}");

    let foreign = home.path().join("foreign");
    fs::create_dir_all(foreign.join("segments")).expect("made");
    fs::write(foreign.join(FILE_NAME), [7; 8192]).expect("written");
    let (status, said) = said_of(&foreign);
    assert!(status == 1 && said.contains("not a journal"), "{said}");

    let log = built(20);
    let damaged = home.path().join("damaged");
    lay_out(&log, &damaged, 1);
    let mut bytes = fs::read(damaged.join(FILE_NAME)).expect("there");
    bytes[50] ^= 1;
    bytes[4096 + 50] ^= 1;
    fs::write(damaged.join(FILE_NAME), bytes).expect("written");
    let (status, found) = verify(&[&damaged]);
    assert_eq!(
        (status, &found["findings"][0]["kind"]),
        (3, &"superblock".into()),
        "{found}"
    );

    let empty = home.path().join("empty");
    lay_out(&log, &empty, 1);
    fs::remove_dir_all(empty.join("segments")).expect("gone");
    fs::create_dir(empty.join("segments")).expect("made");
    let (status, found) = verify(&[&empty]);
    assert_eq!(
        (status, &found["status"]),
        (6, &"incomplete".into()),
        "{found}"
    );

    let other = home.path().join("other");
    let mut stranger = LogBuilder::new(superblock(2 * SEGMENT, 512, 65_536));
    stranger.begin(1, 1);
    lay_out(&stranger, &other, 1);
    let whole = home.path().join("whole");
    lay_out(&log, &whole, 1);
    let pair = [text(&whole), text(&other)];
    let (status, said) = refusal(Command::new(relay()).arg("verify").args(pair));
    assert!(status == 2 && said.contains("can't be compared"), "{said}");
}

#[test]
fn a_clock_that_went_back_is_found_beyond_the_bound() {
    let home = tempfile::tempdir().expect("a directory");
    let mut log = built(10);
    log.time_ns += 5_000_000_000;
    log.data(1, 1, b"late");
    log.seal();
    let now = log.time_ns;
    log.time_ns = now - 2_000_000_000;
    let early = log.mark();
    log.time_ns = now;
    log.mark();
    lay_out(&log, home.path(), 1);
    let (status, found) = verify(&[home.path()]);
    assert_eq!(
        (status, &found["findings"][0]["kind"]),
        (3, &"clock".into()),
        "{found}"
    );
    assert_eq!(found["findings"][0]["position"], early.position.0);
    assert_eq!(found["journals"][0]["clock_back_ns_max"], 2_000_000_000_u64);
    let (status, _, said) = run(&["verify", "--clock-bound", "2.5", text(home.path())]);
    assert_eq!(status, 0, "{said}");
}

#[test]
fn a_report_can_be_kept_and_a_full_disk_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    let journal = home.path().join("<b>odd & name");
    lay_out(&built(60), &journal, 1);
    let report = home.path().join("report.html");
    let arguments = ["verify", "--report", text(&report), text(&journal)];
    assert_eq!(run(&arguments).0, 0);
    let page = fs::read_to_string(&report).expect("it is there");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</body></html>\n"));
    assert!(page.contains("Clean: nothing was found wrong."), "{page}");
    assert!(page.contains("&lt;b&gt;odd &amp; name") && !page.contains("<b>odd"));
    assert!(page.contains(&format!("relay {}", env!("CARGO_PKG_VERSION"))));
    assert!(
        !page.contains("http") && !page.contains("<script"),
        "it needs no network"
    );

    flip(&journal, 128, 1);
    assert_eq!(run(&arguments).0, 3);
    let page = fs::read_to_string(&report).expect("it is there");
    assert!(
        page.contains("Damaged: 1 findings.") && page.contains("damaged body"),
        "{page}"
    );

    let (status, out, said) = run(&["verify", "--report", "/dev/full", text(&journal)]);
    assert!(
        status == 1 && said.contains("writing the report /dev/full"),
        "{said}"
    );
    assert!(
        out.ends_with("damaged\n"),
        "the result was printed before: {out}"
    );
}

/// Answers of `relay find DIR ARGUMENTS --json`: the messages, and the line about the search.
fn find(directory: &Path, arguments: &[&str]) -> (Vec<Value>, Value) {
    let all = [&["find", text(directory), "--json"], arguments].concat();
    let (status, out, said) = run(&all);
    assert_eq!(status, 0, "{arguments:?}: {said}");
    let mut lines: Vec<Value> = out.lines().map(last_object).collect();
    let summary = lines.pop().expect("a summary");
    (lines, summary)
}

fn seqs(found: &[Value]) -> Vec<u64> {
    let seq = |one: &Value| one["seq"].as_u64().expect("a number");
    found.iter().map(seq).collect()
}

/// Goal: indexes of what lay behind a cut lead nobody astray. Method: a log and the indexes of all of it; then a shorter one in its
/// place that begins alike and goes on later in time.
#[test]
fn a_search_does_not_believe_indexes_from_before_a_cut() {
    let home = tempfile::tempdir().expect("a directory");
    let common = built(60);
    let mut before = common.clone();
    before.grow(240, 3_000, &mut Random(8));
    lay_out(&before, home.path(), 1);
    assert_eq!(run(&["index", text(home.path())]).0, 0);
    let segments = home.path().join(segment::DIRECTORY);
    for entry in fs::read_dir(&segments).expect("it is there") {
        let path = entry.expect("it can be read").path();
        fs::write(path, vec![0; SEGMENT as usize]).expect("written");
    }
    let last = before.tables.position;
    fs::remove_file(home.path().join(checkpoint::name(last))).expect("it was there");
    let mut after = common.clone();
    after.time_ns += 1_000_000_000_000;
    after.grow(30, 3_000, &mut Random(9));
    assert!(after.tables.position.0 + 2 * SEGMENT < last.0);
    lay_out(&after, home.path(), 1);
    let wanted: Vec<u64> = (common.tables.next_seq.0..after.tables.next_seq.0).collect();
    let (found, _) = find(
        home.path(),
        &["--from", "1970-01-01T00:10:00Z", "--limit", "1000"],
    );
    assert_eq!(seqs(&found), wanted);
    let session = &found[0]["trading_session"]["number"];
    assert_eq!(session, 20_260_105);
}

/// Goal: the index changes how long an answer takes, and no answer. Method: the same questions without an index, with it, and
/// with a damaged one.
#[test]
fn answers_are_the_same_with_an_index_and_without() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(400);
    lay_out(&log, home.path(), 1);
    let second = log.geometry.segment_of(log.tables.position) / 2;
    let inside = log
        .writes
        .iter()
        .find(|write| {
            log.geometry.segment_of(write.header.position) == second && write.header.data_count > 1
        })
        .expect("there are many");
    let seq = inside.header.first_seq.0.to_string();
    let time = |ns: u64| {
        jiff::Timestamp::from_nanosecond(i128::from(ns))
            .expect("in range")
            .to_string()
    };
    let (from, to) = (time(3_000), time(4_000));
    let questions: [&[&str]; 9] = [
        &["--seq", &seq],
        &["--seq", "1..40"],
        &["--publisher", "2", "--publisher-seq", "33"],
        &["--publisher", "1", "--limit", "7"],
        &["--topic", "orders.x3"],
        &["--key", "0xabc"],
        &["--from", &from, "--to", &to, "--topic", "orders.*"],
        &["--contains", "needle"],
        &["--seq", "999999"],
    ];
    let without: Vec<_> = questions
        .iter()
        .map(|question| find(home.path(), question))
        .collect();
    assert_eq!(seqs(&without[0].0), [inside.header.first_seq.0]);
    assert_eq!(seqs(&without[1].0), (1..=40).collect::<Vec<_>>());
    assert_eq!(seqs(&without[3].0).len(), 7);
    assert_eq!(seqs(&without[5].0), [log.tables.next_seq.0 - 1]);
    assert_eq!(seqs(&without[5].0), seqs(&without[7].0));
    assert!(seqs(&without[8].0).is_empty());
    assert!(
        !without[0].1["segments_scanned"]
            .as_array()
            .expect("a list")
            .is_empty()
    );

    let made = text_of(
        Command::new(relay())
            .args(["index", "--json", text(home.path())])
            .output()
            .expect("relay runs"),
    );
    let made = last_object(&made);
    assert_eq!(made["made"], made["finished_segments"]);
    assert!(made["made"].as_u64() > Some(2), "{made}");
    let again = run(&["index", "--json", text(home.path())]).1;
    assert_eq!(last_object(&again)["intact"], made["made"]);
    for (question, before) in questions.iter().zip(&without) {
        let (found, summary) = find(home.path(), question);
        assert_eq!(found, before.0, "{question:?}");
        let scanned = summary["segments_scanned"].as_array().expect("a list");
        assert!(scanned.is_empty(), "{question:?}: {summary}");
    }
    let (_, summary) = find(home.path(), &["--seq", &seq]);
    assert_eq!(summary["blocks_read"], 1, "{summary}");

    // A damaged index, and none.
    let index = |segment: u64| home.path().join("index").join(segment::name(segment));
    let mut bytes = fs::read(index(second)).expect("it is there");
    let middle = bytes.len() / 2;
    for at in [100, middle] {
        bytes[at] ^= 1;
    }
    fs::write(index(second), bytes).expect("written");
    fs::remove_file(index(0)).expect("it was there");
    for (question, before) in questions.iter().zip(&without) {
        assert_eq!(find(home.path(), question).0, before.0, "{question:?}");
    }
    let (status, _, said) = run(&["find", text(home.path()), "--seq", &seq]);
    assert!(
        status == 0 && said.contains("is damaged") && said.contains("relay index"),
        "{said}"
    );
}

#[test]
fn a_message_is_shown_with_its_life_and_its_copies() {
    let home = tempfile::tempdir().expect("a directory");
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let log = built(100);
    lay_out(&log, &one, 1);
    lay_out(&log, &two, 2);
    let last = (log.tables.next_seq.0 - 1).to_string();
    let (found, _) = find(&one, &["--seq", &last, "--also", text(&two)]);
    let life = &found[0];
    assert_eq!(life["topic_name"], "orders.x3");
    assert_eq!(
        (&life["publisher"], &life["key_hash"]),
        (&3.into(), &0xabc.into())
    );
    assert_eq!(life["payload"], "the needle in the hay");
    assert_eq!(life["released"], true);
    assert_eq!(life["trading_session"]["name"], "2026-01-05");
    assert_eq!(life["rule"]["policy"], "durable");
    assert_eq!(life["rule"]["copies"], 2);
    let block = log.writes[log.writes.len() - 2].header;
    assert_eq!(life["place"]["position"], block.position.0);
    assert_eq!(life["sealed_time_ns"], block.sealed_time_ns);
    let release = log.writes.last().expect("a mark").header;
    assert_eq!(life["release_known"]["position"], release.position.0);
    let copy = &life["copies"][0];
    assert_eq!(
        (&copy["node"], &copy["is_equal"], &copy["is_log_equal"]),
        (&2.into(), &true.into(), &true.into())
    );
    assert_eq!(copy["place"]["position"], block.position.0);
    let (status, out, _) = run(&["find", text(&one), "--seq", &last, "--also", text(&two)]);
    assert_eq!(status, 0);
    for part in [
        "origin", "received", "sealed", "durable", "released", "session", "lies", "copy", "equal",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }

    // Damage is not shown as an answer.
    flip(&two, block.position.0 + HEADER_LENGTH as u64 + 80, 1);
    let (status, _, said) = run(&["find", text(&two), "--seq", &last]);
    assert!(
        status == 3 && said.contains("relay verify"),
        "{status}: {said}"
    );
    assert_eq!(
        run(&["find", text(&one)]).0,
        2,
        "something has to be looked for"
    );
    let (status, _, said) = run(&["find", text(&one), "--seq", "5..3"]);
    assert!(
        status == 2 && said.contains("ends before it begins"),
        "{said}"
    );
}

#[test]
fn what_is_not_released_is_shown_only_when_asked_for() {
    let home = tempfile::tempdir().expect("a directory");
    let mut log = built(40);
    log.is_held = true;
    log.data(1, 1, b"held back");
    let held = log.seal();
    lay_out(&log, home.path(), 1);
    // Without its clean stop nothing says that the last message was released.
    let open = Superblock {
        generation: 3,
        clean: None,
        ..log.superblock
    };
    let generations = [open.encode(), open.encode()].concat();
    fs::write(home.path().join(FILE_NAME), generations).expect("written");
    let seq = held.first_seq.0.to_string();
    assert!(find(home.path(), &["--seq", &seq]).0.is_empty());
    let (found, _) = find(home.path(), &["--seq", &seq, "--unreleased"]);
    assert_eq!(
        (&found[0]["released"], &found[0]["payload"]),
        (&false.into(), &"held back".into())
    );
}

/// The flow of the tests on a running relay: a capture where there is one.
fn publish_a_flow(relayd: &Relayd) -> u64 {
    let capture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures/cme-mdp3-sbe.pcap");
    let mut arguments = vec!["--publisher", "1", "--topic", "a.feed", "--json"];
    let path = text(&capture).to_owned();
    if capture.is_file() {
        arguments.extend(["--pcap", &path, "--pace", "max"]);
    } else {
        arguments.extend([
            "--generate",
            "capture-like",
            "--count",
            "20000",
            "--pace",
            "max",
        ]);
    }
    let summary = last_object(&relayd.run_ok("pub", &arguments));
    summary["published"].as_u64().expect("a number")
}

/// Goal: a journal can be audited and searched while it is written. Method: a relay fed without pause while both run.
#[test]
fn a_live_journal_is_audited_and_searched() {
    let mut relayd = Relayd::start();
    let stream = relayd.stream();
    let mut published = publish_a_flow(&relayd);
    let mut feeding = relayd.command(
        "pub",
        &[
            "--publisher",
            "1",
            "--topic",
            "a.more",
            "--size",
            "600",
            "--count",
            "20000",
            "--rate",
            "8000",
        ],
    );
    let mut feeding = feeding
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("relay runs");
    let mut last = 0;
    while feeding.try_wait().expect("it can be asked").is_none() {
        let (status, found) = verify(&[&stream]);
        assert_eq!(
            (status, &found["journals"][0]["is_live"]),
            (0, &true.into()),
            "{found}"
        );
        let now = found["records"].as_u64().expect("a number");
        assert!(now >= last.max(published), "{found}");
        last = now;
        let (found, _) = find(&stream, &["--seq", &now.to_string()]);
        assert_eq!(
            (seqs(&found), &found[0]["now"]["released"]),
            (vec![now], &true.into())
        );
    }
    published += 20_000;
    // What is found offline, in its directory, and by asking it, is the same.
    let seq = published.to_string();
    let live = relayd.run_ok("find", &["--seq", &seq, "--json"]);
    let live: Vec<_> = live.lines().map(last_object).collect();
    assert_eq!(
        (&live[0]["seq"], &live[1]["found"]),
        (&published.into(), &1.into())
    );
    let (found, _) = find(&stream, &["--publisher", "1", "--publisher-seq", "1"]);
    assert_eq!(found[0]["seq"], 1);
    // Segments that filled are indexed by the relay itself, in the bytes that the command makes.
    let first = stream.join("index").join(segment::name(0));
    wait_until("the first segment is indexed", || first.is_file());
    wait_until("all finished segments are", || {
        let status = last_object(&relayd.run_ok("status", &["--dir", text(&stream), "--json"]));
        status["counters"]["index.lag_bytes"] == 0
    });
    relayd.stop();
    let by_relay = fs::read(&first).expect("it is there");
    let made = run(&["index", "--rebuild", "--json", text(&stream)]).1;
    assert!(last_object(&made)["made"].as_u64() > Some(1), "{made}");
    assert_eq!(fs::read(&first).expect("it is there"), by_relay);
    // One that is missing is made again by the next start, which reads its segment.
    fs::remove_file(&first).expect("it was there");
    relayd.run();
    wait_until("the missing index is made again", || first.is_file());
    relayd.stop();
    assert_eq!(fs::read(&first).expect("it is there"), by_relay);
    let (status, found) = verify(&[&stream]);
    assert_eq!(
        (status, &found["records"]),
        (0, &published.into()),
        "{found}"
    );
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let home = tempfile::tempdir().expect("a directory");
    lay_out(&built(300), home.path(), 1);
    let mut child = Command::new(relay())
        .args([
            "find",
            text(home.path()),
            "--publisher",
            "1",
            "--limit",
            "100000",
            "--json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("relay runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

/// Goal: what was captured on real lines is audited and found like any other flow. Method: each capture imported, where it
/// lies beside the sources, and a generated flow.
#[test]
fn captures_are_audited_and_found() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    let listed = fs::read_dir(&captures).map_or_else(
        |_| Vec::new(),
        |entries| {
            let paths = entries.map(|entry| entry.expect("an entry").path());
            paths
                .filter(|path| path.extension().is_some_and(|end| end == "pcap"))
                .collect()
        },
    );
    let mut sources: Vec<Vec<String>> = listed
        .iter()
        .map(|path| {
            vec![
                "--pcap".to_owned(),
                text(path).to_owned(),
                "--topic-per-port".to_owned(),
            ]
        })
        .collect();
    sources.push(
        ["--generate", "capture-like", "--count", "20000"]
            .map(str::to_owned)
            .to_vec(),
    );
    for source in sources {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("journal");
        let arguments: Vec<&str> = source.iter().map(String::as_str).collect();
        let made = [
            "import",
            text(&directory),
            "--segment-size",
            "4MiB",
            "--json",
        ];
        let (status, out, said) = run(&[&made[..], &arguments].concat());
        assert_eq!(status, 0, "{source:?}: {said}");
        let (status, found) = verify(&[&directory]);
        assert_eq!(
            (status, &found["status"]),
            (0, &"clean".into()),
            "{source:?}: {out} {found}"
        );
        let count = found["records"].as_u64().expect("a number");
        assert_eq!(run(&["index", text(&directory)]).0, 0);
        // A message in the middle, found again by everything that it says of itself.
        let middle = (count / 2 + 1).to_string();
        let (by_seq, _) = find(&directory, &["--seq", &middle]);
        let life = &by_seq[0];
        let field = |name: &str| life[name].as_u64().expect("a number");
        let time_ns = i128::from(field("receive_time_ns"));
        let time = jiff::Timestamp::from_nanosecond(time_ns)
            .expect("in range")
            .to_string();
        let topic = life["topic_name"].as_str().expect("a name");
        let (publisher, sequence) = (
            field("publisher").to_string(),
            field("publisher_seq").to_string(),
        );
        for question in [
            &["--from", &time, "--to", &time, "--topic", topic][..],
            &["--publisher", &publisher, "--publisher-seq", &sequence],
        ] {
            let (found, summary) = find(&directory, &[question, &["--limit", "100000"]].concat());
            assert!(found.contains(life), "{question:?}: {summary}");
        }
    }
}
