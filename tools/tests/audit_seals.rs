//! Goal: `relay verify` holds segments against their seals and seals against the key: damage, forgery, a wrong key and what
//! was taken away are each told from the others. Method: the built program on journals laid out and sealed in memory.

mod laid_out;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use laid_out::log::{LogBuilder, Random, SEGMENT, STREAM};
use laid_out::{built, flip, forged, lay_out, run, segment_path, text, verify};
use relay_journal::block::{BlockKind, HEADER_LENGTH};
use relay_journal::scan::Link;
use relay_journal::seal::{
    Digest, ENTRY_LENGTH, Entry, FILE_NAME, Said, SegmentSum, SigningKey, Statement,
};
use relay_journal::segment;
use relay_journal::tables::Tables;
use relay_wire::id::Position;
use serde_json::Value;
use support::{last_object, refusal, relay};

fn key(number: u8) -> SigningKey {
    SigningKey::from_secret(&[number; 32])
}

/// Full segments of the log.
fn full(log: &LogBuilder) -> u64 {
    log.geometry.segment_of(log.tables.position)
}

/// Seals the full segments of the journal in `directory`.
fn seal_with(log: &LogBuilder, directory: &Path, key: &SigningKey) {
    let first = Said::Key {
        segment: 0,
        previous: Digest::default(),
        key: key.public(),
    };
    let mut bytes = Entry::sign(first, STREAM, 1_000, key).encode().to_vec();
    let mut link = Some(Link::after_tables(&Tables::empty(STREAM)));
    let mut previous = Digest::default();
    for index in 0..full(log) {
        let content = fs::read(segment_path(directory, index)).expect("it is there");
        let mut sum = SegmentSum::new(log.geometry, STREAM, index, link, previous);
        sum.take(&content, &mut |_, _| {}).expect("it is right");
        let statement = sum.statement().expect("it is complete");
        (link, previous) = (Some(statement.link()), statement.hash());
        bytes.extend(Entry::sign(Said::Seal(statement), STREAM, 2_000, key).encode());
    }
    fs::write(directory.join(FILE_NAME), bytes).expect("written");
}

/// `relay verify --json --public-key KEY DIRECTORY`.
fn verify_with(directory: &Path, key: &SigningKey) -> (i32, Value) {
    let key = key.public().to_string();
    let (status, out, said) = run(&["verify", "--json", "--public-key", &key, text(directory)]);
    assert!(!out.is_empty(), "{status}: {said}");
    (status, last_object(&out))
}

fn kinds(found: &Value) -> Vec<&str> {
    let findings = found["findings"].as_array().expect("a list");
    findings
        .iter()
        .filter_map(|one| one["kind"].as_str())
        .collect()
}

#[test]
fn a_sealed_journal_is_proven_by_its_key() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(200);
    lay_out(&log, home.path(), 1);
    seal_with(&log, home.path(), &key(1));
    let (status, found) = verify_with(home.path(), &key(1));
    assert_eq!((status, &found["status"]), (0, &"clean".into()), "{found}");
    let seals = &found["journals"][0]["seals"];
    assert_eq!(seals["intact_segments"], full(&log));
    assert_eq!(
        (&seals["is_key_given"], &seals["unsealed_segments"]),
        (&true.into(), &0.into())
    );
    assert_eq!(
        found["records"],
        log.tables.next_seq.0 - 1,
        "the tail behind the seals is read too"
    );
    assert_eq!(
        found["journals"][0]["rules_checked_to"],
        log.tables.position.0
    );
    let (status, found) = verify(&[home.path()]);
    assert_eq!(
        (status, &found["journals"][0]["seals"]["is_key_given"]),
        (0, &false.into())
    );

    let (status, found) = verify_with(home.path(), &key(2));
    assert_eq!(
        (status, &found["status"]),
        (5, &"tampered".into()),
        "{found}"
    );
    assert!(found.to_string().contains("not trusted"), "{found}");
    let odd = ["--public-key", "abc", text(home.path())];
    let (status, said) = refusal(Command::new(relay()).arg("verify").args(odd));
    assert!(
        status == 2 && said.contains("64 hexadecimal digits"),
        "{said}"
    );

    // The key as a file, and what the page of an audit holds.
    let (file, report) = (home.path().join("key.pub"), home.path().join("report.html"));
    fs::write(&file, format!("{}\n", key(1).public())).expect("written");
    let arguments = [
        "verify",
        "--public-key",
        text(&file),
        "--report",
        text(&report),
    ];
    let (status, _, said) = run(&[&arguments[..], &[text(home.path())]].concat());
    assert_eq!(status, 0, "{said}");
    let page = fs::read_to_string(&report).expect("it is there");
    let content = fs::read(segment_path(home.path(), 1)).expect("it is there");
    let mut sum = SegmentSum::new(log.geometry, STREAM, 1, None, Digest::default());
    sum.take(&content, &mut |_, _| {}).expect("it is right");
    let root = sum.statement().expect("it is complete").root.to_string();
    for part in [
        &root,
        &key(1).public().to_string(),
        &key(1).public().id().to_string(),
    ] {
        assert!(page.contains(part.as_str()), "{part}");
    }
}

/// Goal: one changed byte anywhere in a sealed segment is damage, and located. Method: random bytes, and all behind a filler.
#[test]
fn changed_bytes_of_sealed_segments_are_damage() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(150);
    lay_out(&log, home.path(), 1);
    seal_with(&log, home.path(), &key(1));
    let mut random = Random(3);
    let mut positions: Vec<u64> = (0..60)
        .map(|_| random.below(full(&log) * SEGMENT))
        .collect();
    let fillers = log
        .writes
        .iter()
        .filter(|write| write.header.kind == BlockKind::Filler && write.header.span > 512);
    positions
        .extend(fillers.map(|write| write.header.position.0 + u64::from(write.header.span) - 1));
    for position in positions {
        flip(home.path(), position, 0x40);
        let (status, found) = verify_with(home.path(), &key(1));
        assert_eq!(
            (status, &found["status"]),
            (3, &"damaged".into()),
            "{position}: {found}"
        );
        let block = log
            .writes
            .iter()
            .rfind(|write| write.header.position.0 <= position)
            .expect("there is a first");
        let unit = u64::from(block.header.written_length(512));
        let expected = if position - block.header.position.0 < unit {
            block.header.position.0
        } else {
            position
        };
        let findings = found["findings"].as_array().expect("a list");
        assert_eq!(findings[0]["position"], expected, "{position}: {found}");
        assert_eq!(findings[0]["segment"], segment::name(position / SEGMENT));
        flip(home.path(), position, 0x40);
    }
}

/// Goal: the command finds and locates a change in every class of field, of each kind of block, and of the seals. Method: a byte
/// of each field is changed in turn; for random places by the thousand see the tests of the journal's reader.
#[test]
fn every_class_of_field_is_located_by_the_command() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(150);
    lay_out(&log, home.path(), 1);
    seal_with(&log, home.path(), &key(1));
    let sealed_end = full(&log) * SEGMENT;
    // Magic, version, kind, zero, stream, epoch, number, position, first seq, record and data count, body length, span, sealed
    // time, released, previous checksum, body checksum, zero, header checksum.
    let header = [
        0, 8, 10, 11, 12, 16, 24, 32, 40, 48, 52, 56, 60, 64, 72, 80, 84, 88, 124,
    ];
    // Length, kind, flags, extension length, topic, checksum, publisher, incarnation, publisher sequence, key hash, origin time,
    // seq, receive time, payload.
    let record = [0, 4, 5, 6, 8, 12, 16, 24, 32, 40, 48, 56, 64, 72];
    let mut places = Vec::new();
    for kind in [BlockKind::Records, BlockKind::Mark, BlockKind::Filler] {
        let found = log.writes.iter().skip(1).find(|write| {
            write.header.kind == kind && write.header.next_position().0 <= sealed_end
        });
        let block = found.unwrap_or_else(|| panic!("a block of kind {kind:?}"));
        let start = block.header.position.0;
        places.extend(header.map(|offset| (start, start + offset)));
        if kind == BlockKind::Records {
            places.extend(record.map(|offset| (start, start + HEADER_LENGTH as u64 + offset)));
        }
        // The last byte that is written: padding, mostly.
        places.push((start, start + block.bytes.len() as u64 - 1));
    }
    for (block, position) in places {
        flip(home.path(), position, 0x11);
        let (status, found) = verify_with(home.path(), &key(1));
        assert!(status == 3 || status == 5, "{position}: {status} {found}");
        let findings = found["findings"].as_array().expect("a list");
        assert_eq!(findings[0]["position"], block, "{position}: {found}");
        assert_eq!(findings[0]["segment"], segment::name(block / SEGMENT));
        flip(home.path(), position, 0x11);
    }
    let path = home.path().join(FILE_NAME);
    let seals = fs::read(&path).expect("it is there");
    for offset in [
        0, 8, 10, 11, 12, 16, 24, 32, 40, 48, 56, 64, 72, 80, 84, 96, 128, 160, 168, 176, 240, 252,
    ] {
        let mut changed = seals.clone();
        changed[2 * ENTRY_LENGTH + offset] ^= 0x11;
        fs::write(&path, changed).expect("written");
        let (status, found) = verify_with(home.path(), &key(1));
        assert!(status == 3 || status == 5, "{offset}: {status} {found}");
        let place = format!("byte {}", 2 * ENTRY_LENGTH);
        assert!(found.to_string().contains(&place), "{offset}: {found}");
    }
    fs::write(&path, seals).expect("written");
    assert_eq!(verify_with(home.path(), &key(1)).0, 0);
}

/// Goal: that a node took seals back is told in every form, and is no fault. Method: a seal of something else, a cut, and the
/// right seals behind it.
#[test]
fn a_cut_below_what_was_sealed_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(200);
    lay_out(&log, home.path(), 1);
    seal_with(&log, home.path(), &key(1));
    let path = home.path().join(FILE_NAME);
    let seals = fs::read(&path).expect("it is there");
    let (kept, remade) = seals.split_at(2 * ENTRY_LENGTH);
    let Said::Seal(statement) = Entry::decode(remade).expect("it is whole").said else {
        panic!("a seal");
    };
    let lost = Statement {
        root: Digest([3; 32]),
        ..statement
    };
    let cut = Said::Cut {
        segment: statement.segment,
        position: Position(statement.start.0 + 512),
        epoch: statement.epoch,
        previous: statement.previous,
    };
    let [lost, cut] =
        [Said::Seal(lost), cut].map(|said| Entry::sign(said, STREAM, 3_000, &key(1)).encode());
    fs::write(&path, [kept, &lost, &cut, remade].concat()).expect("written");
    let (status, found) = verify_with(home.path(), &key(1));
    assert_eq!((status, &found["status"]), (0, &"clean".into()), "{found}");
    let named = &found["journals"][0]["seals"]["cuts"][0];
    assert_eq!(named["segment"], statement.segment);
    assert_eq!(named["position"], statement.start.0 + 512);
    let report = home.path().join("report.html");
    let (status, said, _) = run(&["verify", "--report", text(&report), text(home.path())]);
    assert_eq!(status, 0);
    let told = format!("its log was cut at position {}", statement.start.0 + 512);
    assert!(said.contains(&told), "{said}");
    let page = fs::read_to_string(report).expect("it is there");
    assert!(page.contains(&told), "{page}");
}

#[test]
fn a_forger_without_the_key_is_found() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(150);
    let (forgery, _, position) = forged(&log);
    lay_out(&log, home.path(), 1);
    seal_with(&log, home.path(), &key(1));
    let seals = fs::read(home.path().join(FILE_NAME)).expect("it is there");
    // Every checksum fits, the seals are the old ones.
    lay_out(&forgery, home.path(), 1);
    let (status, found) = verify(&[home.path()]);
    assert_eq!(
        (status, &found["status"]),
        (5, &"tampered".into()),
        "{found}"
    );
    assert_eq!(kinds(&found)[0], "rewritten", "{found}");
    assert_eq!(
        found["findings"][0]["segment"],
        segment::name(position / SEGMENT)
    );
    // Sealed again by a key of the forger's.
    seal_with(&forgery, home.path(), &key(9));
    let (status, found) = verify_with(home.path(), &key(1));
    assert_eq!(
        (status, &found["status"]),
        (5, &"tampered".into()),
        "{found}"
    );
    assert!(kinds(&found).contains(&"seal"), "{found}");
    // Another seal put in place of one.
    let mut mixed = seals.clone();
    let forged_seals = fs::read(home.path().join(FILE_NAME)).expect("it is there");
    mixed[2 * ENTRY_LENGTH..3 * ENTRY_LENGTH]
        .copy_from_slice(&forged_seals[2 * ENTRY_LENGTH..3 * ENTRY_LENGTH]);
    fs::write(home.path().join(FILE_NAME), mixed).expect("written");
    lay_out(&log, home.path(), 1);
    assert_eq!(verify_with(home.path(), &key(1)).0, 5);
}

#[test]
fn what_was_taken_away_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(200);
    lay_out(&log, home.path(), 1);
    seal_with(&log, home.path(), &key(1));
    let path = home.path().join(FILE_NAME);
    let seals = fs::read(&path).expect("it is there");
    let put = |bytes: &[u8]| fs::write(&path, bytes).expect("written");
    // From the end: nobody can tell by the file alone, so it is said, and not accepted where a key was given.
    put(&seals[..seals.len() - ENTRY_LENGTH]);
    let (status, found) = verify(&[home.path()]);
    assert_eq!(
        (status, &found["journals"][0]["seals"]["unsealed_segments"]),
        (0, &1.into())
    );
    let (status, found) = verify_with(home.path(), &key(1));
    assert_eq!(
        (status, kinds(&found)),
        (6, vec!["missing-seal"]),
        "{found}"
    );
    // From the middle.
    put(&[&seals[..2 * ENTRY_LENGTH], &seals[3 * ENTRY_LENGTH..]].concat());
    assert_eq!(verify(&[home.path()]).0, 5);
    // All of it.
    fs::remove_file(&path).expect("it was there");
    assert_eq!(verify(&[home.path()]).0, 0);
    let (status, found) = verify_with(home.path(), &key(1));
    assert_eq!(
        (status, kinds(&found)),
        (6, vec!["missing-seal"]),
        "{found}"
    );
    // A byte of an entry.
    let mut damaged = seals.clone();
    damaged[3 * ENTRY_LENGTH + 50] ^= 1;
    put(&damaged);
    let (status, found) = verify(&[home.path()]);
    assert!(status == 3 || status == 5, "{found}");
    assert!(kinds(&found).contains(&"seal-entry"), "{found}");
    // A sealed segment.
    put(&seals);
    fs::remove_file(segment_path(home.path(), 1)).expect("it was there");
    let (status, found) = verify_with(home.path(), &key(1));
    assert_eq!(
        (status, kinds(&found)),
        (6, vec!["missing-segment"]),
        "{found}"
    );
}
