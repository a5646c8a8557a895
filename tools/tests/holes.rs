//! Goal: what is not there is never taken for the end of the log, nor for nothing found. Method: `verify`, `inspect`, `find`, `index` and
//! `export` on journals of which segments are missing or blocks are blank, as a disk leaves them that lost a write.

mod laid_out;
mod support;

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use laid_out::log::{LogBuilder, SEGMENT};
use laid_out::{built, flip, forged, lay_out, run, segment_path, text, verify};
use relay_journal::block::HEADER_LENGTH;
use relay_journal::segment;
use support::last_object;

/// Makes the block that is the `number`th write blank; its position.
fn blank(log: &LogBuilder, directory: &Path, number: usize) -> u64 {
    let write = &log.writes[number];
    let position = write.header.position.0;
    let path = segment_path(directory, position / SEGMENT);
    let mut file = OpenOptions::new().write(true).open(path).expect("there");
    file.seek(SeekFrom::Start(position % SEGMENT))
        .expect("within");
    file.write_all(&vec![0; write.bytes.len()])
        .expect("written");
    position
}

/// The first write that lies in a segment.
fn first_in(log: &LogBuilder, segment: u64) -> usize {
    let starts = |position: u64| position == segment * SEGMENT;
    let place = log
        .writes
        .iter()
        .position(|write| starts(write.header.position.0));
    place.expect("each segment begins with a block")
}

fn index(directory: &Path) -> (i32, String) {
    let (status, out, said) = run(&["index", "--json", text(directory)]);
    (status, out + &said)
}

#[test]
fn the_audit_goes_on_behind_a_blank_block() {
    for checkpoint_stays in [true, false] {
        let home = tempfile::tempdir().expect("a directory");
        let log = built(150);
        lay_out(&log, home.path(), 1);
        if !checkpoint_stays {
            for entry in fs::read_dir(home.path()).expect("listed").flatten() {
                if entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("checkpoint")
                {
                    fs::remove_file(entry.path()).expect("there");
                }
            }
        }
        let holes = [60, 90].map(|number| blank(&log, home.path(), number));
        let flipped = log.writes[120].header.position.0;
        flip(home.path(), flipped + HEADER_LENGTH as u64 + 80, 1);
        let (status, found) = verify(&[home.path()]);
        assert_eq!(
            (status, &found["status"]),
            (3, &"damaged".into()),
            "{found}"
        );
        let named = found["findings"].as_array().expect("a list");
        for position in [holes[0], holes[1], flipped] {
            let is_named = named.iter().any(|one| one["position"] == position);
            assert!(is_named, "{position}: {found}");
        }
        let seen = found["journals"][0]["blocks"].as_u64().expect("a number");
        assert!(seen + 6 >= log.writes.len() as u64, "{found}");
        let (status, _, said) = run(&["inspect", "--blocks", text(home.path())]);
        assert_eq!(status, 3, "{said}");
        assert!(said.contains(&holes[0].to_string()), "{said}");
        let (status, out, _) = run(&["inspect", "--blocks", "--limit", "10", text(home.path())]);
        assert_eq!((status, out.lines().count()), (0, 10), "{out}");
    }
}

#[test]
fn a_short_segment_is_told_by_its_list() {
    let home = tempfile::tempdir().expect("a directory");
    lay_out(&built(150), home.path(), 1);
    assert_eq!(run(&["inspect", "--segments", text(home.path())]).0, 0);
    let file = OpenOptions::new()
        .write(true)
        .open(segment_path(home.path(), 1));
    file.expect("there").set_len(SEGMENT / 2).expect("cut");
    let (status, _, said) = run(&["inspect", "--segments", text(home.path())]);
    assert!(status == 3 && said.contains(&segment::name(1)), "{said}");
}

#[test]
fn a_copy_is_identical_only_where_it_was_compared() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(400);
    let (whole, gap, changed) = (
        home.path().join("whole"),
        home.path().join("gap"),
        home.path().join("changed"),
    );
    lay_out(&log, &whole, 1);
    lay_out(&log, &gap, 2);
    fs::remove_file(segment_path(&gap, 1)).expect("there");
    let report = home.path().join("report.html");
    let arguments = [text(&whole), text(&gap)];
    let (status, out, _) = run(&[
        &["verify", "--json", "--report", text(&report)],
        &arguments[..],
    ]
    .concat());
    assert_eq!(status, 6, "{out}");
    let tail = log.tables.position.0;
    assert_eq!(last_object(&out)["identical_bytes"], tail - SEGMENT);
    let page = fs::read_to_string(&report).expect("there");
    assert!(page.contains(&format!("in the {} bytes between", tail - SEGMENT)));

    // What was changed lies behind the gap, everything after it mended: only the comparison can see it.
    let (forged, _, position) = forged(&log);
    lay_out(&forged, &changed, 2);
    let missing = (position / SEGMENT).checked_sub(1);
    let missing = missing.expect("it lies behind the first segment");
    fs::remove_file(segment_path(&changed, missing)).expect("there");
    let (status, found) = verify(&[&whole, &changed]);
    assert_eq!(
        (status, &found["status"]),
        (5, &"tampered".into()),
        "{found}"
    );
}

#[test]
fn a_page_is_written_though_nobody_reads_the_rest() {
    use std::process::{Command, Stdio};
    let home = tempfile::tempdir().expect("a directory");
    let journal = home.path().join("journal");
    lay_out(&built(60), &journal, 1);
    let report = home.path().join("report.html");
    let mut command = Command::new(support::relay());
    command.args(["verify", "--report", text(&report), text(&journal)]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = command
        .stdout(Stdio::from(writer))
        .status()
        .expect("it runs");
    assert!(status.success(), "{status}");
    let page = fs::read_to_string(&report).expect("it is there");
    assert!(page.ends_with("</body></html>\n"));
}

/// Goal: `find` never says that there is nothing where it could not look. Method: with indexes and without; a segment that is gone, and one
/// whose first block is blank.
#[test]
fn what_can_not_be_looked_into_is_no_answer() {
    let log = built(400);
    let seq_in = |segment: u64| {
        let first = first_in(&log, segment);
        let messages = log.writes[first + 1..].iter();
        let inside = messages.filter(|write| write.header.data_count > 0);
        inside
            .map(|write| write.header.first_seq.0)
            .next()
            .expect("there are many")
    };
    let last = log.tables.position.0 / SEGMENT;
    assert!(last >= 4, "{last}");
    for is_indexed in [false, true] {
        for lost in [0, 2] {
            let home = tempfile::tempdir().expect("a directory");
            let directory = home.path();
            lay_out(&log, directory, 1);
            if is_indexed {
                assert_eq!(index(directory).0, 0);
            }
            fs::remove_file(segment_path(directory, lost)).expect("there");
            let there = seq_in(3).to_string();
            let gone = seq_in(lost).to_string();
            let find = |arguments: &[&str]| run(&[&["find", text(directory)], arguments].concat());
            let place = format!("{is_indexed} {lost}");
            let (status, _, said) = find(&["--seq", &there]);
            assert_eq!(status, 0, "{place}: {said}");
            for arguments in [&["--seq", gone.as_str()][..], &["--contains", "needle"]] {
                let (status, _, said) = find(arguments);
                assert!(
                    status == 3 && said.contains("missing"),
                    "{place} {arguments:?}: {said}"
                );
            }
            // Enough was found before the place.
            if lost > 0 {
                let (status, _, said) = find(&["--seq", "1..5"]);
                assert_eq!(status, 0, "{place}: {said}");
            }
        }
        for hole in [1, last - 1] {
            let home = tempfile::tempdir().expect("a directory");
            let directory = home.path();
            lay_out(&log, directory, 1);
            if is_indexed {
                assert_eq!(index(directory).0, 0);
            }
            blank(&log, directory, first_in(&log, hole));
            let lost = log.writes[first_in(&log, hole)]
                .header
                .first_seq
                .0
                .to_string();
            let (status, _, said) = run(&["find", text(directory), "--seq", &lost]);
            assert_eq!(status, 3, "{is_indexed} {hole}: {said}");
        }
    }
}

/// Goal: a copy that differs, or can't be read, is told, whatever stands before it in the list.
#[test]
fn every_copy_counts() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(100);
    let [one, behind, other] = ["one", "behind", "other"].map(|name| home.path().join(name));
    lay_out(&log, &one, 1);
    let mut short = log.clone();
    short.writes.truncate(50);
    short.tables = log.tables_after(50);
    lay_out(&short, &behind, 2);
    lay_out(&log, &other, 3);
    let last = (log.tables.next_seq.0 - 1).to_string();
    let also = ["--also", text(&behind), "--also", text(&other)];
    let ask = || run(&[&["find", text(&one), "--seq", &last], &also[..]].concat());
    assert_eq!(ask().0, 0, "one that lacks it is only behind");
    let block = log.writes[log.writes.len() - 2].header.position.0;
    flip(&other, block + HEADER_LENGTH as u64 + 80, 1);
    let (status, _, said) = ask();
    assert!(status == 3 && said.contains("other"), "{status}: {said}");
}

/// Goal: where the beginning is gone a time is answered only if nothing of it can be missing.
#[test]
fn a_time_in_what_is_missing_is_not_exported_in_part() {
    let home = tempfile::tempdir().expect("a directory");
    let log = built(400);
    lay_out(&log, home.path(), 1);
    fs::remove_file(segment_path(home.path(), 0)).expect("there");
    let time = |ns: u64| {
        let time = jiff::Timestamp::from_nanosecond(i128::from(ns)).expect("in range");
        time.to_string()
    };
    let export = |from: &str| {
        run(&[
            "export",
            text(home.path()),
            "--format",
            "json",
            "--from",
            from,
        ])
    };
    let kept = log.writes[first_in(&log, 1)].header.sealed_time_ns;
    let (status, _, said) = export(&time(kept / 2));
    assert!(status == 3 && said.contains("missing"), "{status}: {said}");
    let (status, out, said) = export(&time(kept + (log.tables.last_time_ns - kept) / 2));
    assert_eq!(status, 0, "{said}");
    assert!(!out.is_empty());
}

/// Goal: an index never names a trading session that nobody can know. Method: a segment is damaged, and mended again.
#[test]
fn behind_a_break_no_index_is_made() {
    let log = built(400);
    let made = |directory: &Path| {
        let out = index(directory).1;
        let first = out.lines().next().expect("a result");
        last_object(first)["made"].as_u64().expect("a number")
    };
    let whole = tempfile::tempdir().expect("a directory");
    lay_out(&log, whole.path(), 1);
    let all = made(whole.path());
    let home = tempfile::tempdir().expect("a directory");
    lay_out(&log, home.path(), 1);
    let damaged = log.writes[first_in(&log, 1) + 1].header.position.0 + 130;
    flip(home.path(), damaged, 1);
    let (status, said) = index(home.path());
    assert!(
        status == 3 && said.contains(&segment::name(1)),
        "{status}: {said}"
    );
    flip(home.path(), damaged, 1);
    assert_eq!(made(home.path()), all - 1, "but for the first segment");
    for segment in 0..all {
        let bytes = |directory: &Path| {
            fs::read(directory.join("index").join(segment::name(segment))).expect("there")
        };
        assert!(bytes(home.path()) == bytes(whole.path()), "{segment}");
    }
}
