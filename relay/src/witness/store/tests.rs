//! Crash images of the store, and what it refuses to open.

use super::*;
use relay_wire::witness::{Cell, Registers, Value};

const STREAM: StreamId = StreamId(7);
const SECTOR: usize = 512;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target").unwrap()
}

fn value(number: u8) -> Value {
    Value::new(&[number; 120]).unwrap()
}

fn created() -> tempfile::TempDir {
    let home = scratch();
    Store::create(home.path(), 1).unwrap();
    home
}

fn image(home: &tempfile::TempDir) -> Vec<u8> {
    std::fs::read(home.path().join(FILE_NAME)).unwrap()
}

fn done(store: &mut Store, stream: StreamId, request: &Request) -> u64 {
    match store.decide(stream, request).unwrap() {
        Answer::Done(revision) => revision,
        other => panic!("{request:?} gave {other:?}"),
    }
}

fn held(store: &mut Store, stream: StreamId) -> Option<Registers> {
    match store.decide(stream, &Request::Read).unwrap() {
        Answer::Registers(held) => held,
        other => panic!("{other:?}"),
    }
}

/// Goal: a write torn anywhere leaves the state before it or the one after it, and the store can be opened. Method: a
/// history of changes; for each, every mixture of old and new sectors of what it wrote (all 256 of a page) is laid
/// into a file, opened and read; a creation writes two pages, one after the other.
#[test]
fn a_write_torn_at_any_sector_leaves_the_state_before_or_after() {
    let home = created();
    let mut history: Vec<(Vec<u8>, Option<Registers>)> = vec![(image(&home), None)];
    let mut store = Store::open(home.path(), 5).unwrap();
    let mut base = done(&mut store, STREAM, &Request::Create { record: value(1) });
    history.push((image(&home), held(&mut store, STREAM)));
    for step in 2..6 {
        let request = if step % 2 == 0 {
            Request::Floor {
                base,
                floor: value(step),
            }
        } else {
            Request::Swap {
                base,
                floor_base: None,
                next: value(step),
            }
        };
        let revision = done(&mut store, STREAM, &request);
        if step % 2 == 1 {
            base = revision;
        }
        history.push((image(&home), held(&mut store, STREAM)));
    }
    drop(store);

    let other = scratch();
    let mut opened = 0;
    let mut check = |bytes: &[u8], allowed: &[&Option<Registers>]| {
        std::fs::write(other.path().join(FILE_NAME), bytes).unwrap();
        let mut store = Store::open(other.path(), 1_000).unwrap();
        let found = held(&mut store, STREAM);
        assert!(allowed.contains(&&found), "{found:?} of {allowed:?}");
        // And goes on from there.
        let next = match found {
            None => Request::Create { record: value(99) },
            Some(held) => Request::Swap {
                base: held.record.revision,
                floor_base: None,
                next: value(99),
            },
        };
        let revision = done(&mut store, STREAM, &next);
        let used = history.iter().filter_map(|(_, held)| *held);
        for held in used.filter(|held| found.as_ref() != Some(held)) {
            assert_ne!(held.record.revision, revision, "never used again");
        }
        drop(store);
        let mut store = Store::open(other.path(), 1_000).unwrap();
        assert_eq!(
            held(&mut store, STREAM).unwrap().record.value,
            value(99),
            "it is still there"
        );
        opened += 1;
    };
    for pair in history.windows(2) {
        let [(before, old), (after, new)] = pair else {
            unreachable!("windows of two");
        };
        let pages: Vec<usize> = (0..before.len())
            .step_by(PAGE_LENGTH)
            .filter(|&at| before[at..at + PAGE_LENGTH] != after[at..at + PAGE_LENGTH])
            .collect();
        assert_eq!(
            pages.len(),
            if old.is_none() { 2 } else { 1 },
            "one page a change, two for a creation"
        );
        let mut bytes = before.clone();
        for (number, &page) in pages.iter().enumerate() {
            for mixture in 0..1_u32 << (PAGE_LENGTH / SECTOR) {
                for sector in 0..PAGE_LENGTH / SECTOR {
                    let at = page + sector * SECTOR;
                    let from = if mixture & (1 << sector) == 0 {
                        before
                    } else {
                        after
                    };
                    bytes[at..at + SECTOR].copy_from_slice(&from[at..at + SECTOR]);
                }
                if number == 0 {
                    check(&bytes, &[old, new]);
                } else {
                    check(&bytes, &[new]);
                }
            }
            bytes[page..page + PAGE_LENGTH].copy_from_slice(&after[page..page + PAGE_LENGTH]);
        }
        check(&bytes, &[new]);
    }
    assert_eq!(opened, 6 * 256 + 5);
}

/// Goal: after an open either page alone is enough. Method: open, then damage one of the two.
#[test]
fn an_open_makes_both_generations_whole() {
    for which in 0..2 {
        let home = created();
        let mut store = Store::open(home.path(), 1).unwrap();
        let base = done(&mut store, STREAM, &Request::Create { record: value(1) });
        done(
            &mut store,
            STREAM,
            &Request::Swap {
                base,
                floor_base: Some(0),
                next: value(2),
            },
        );
        drop(store);
        let mut store = Store::open(home.path(), 1).unwrap();
        let expected = held(&mut store, STREAM);
        drop(store);
        let mut bytes = image(&home);
        bytes[registers::offset_of(0, which) as usize + 70] ^= 1;
        std::fs::write(home.path().join(FILE_NAME), bytes).unwrap();
        let mut store = Store::open(home.path(), 1).unwrap();
        assert_eq!(held(&mut store, STREAM), expected, "page {which} damaged");
    }
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let home = created();
    let open = || {
        Store::open(home.path(), 1)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let mut store = Store::open(home.path(), 1).unwrap();
    done(&mut store, STREAM, &Request::Create { record: value(1) });
    assert!(open().contains("another witness has this directory open"));
    drop(store);
    let again = Store::create(home.path(), 1).unwrap_err().to_string();
    assert!(
        again.contains("there is a witness's store already"),
        "{again}"
    );

    let good = image(&home);
    let put = |bytes: &[u8]| std::fs::write(home.path().join(FILE_NAME), bytes).unwrap();
    let mut bytes = good.clone();
    for which in 0..2 {
        bytes[registers::offset_of(0, which) as usize + 70] ^= 1;
    }
    put(&bytes);
    let said = open();
    assert!(
        said.contains("at byte 8192") && said.contains("both generations"),
        "{said}"
    );

    let mut bytes = good.clone();
    bytes.copy_within(2 * PAGE_LENGTH..4 * PAGE_LENGTH, 4 * PAGE_LENGTH);
    put(&bytes);
    assert!(open().contains("two places"), "{}", open());

    put(&good[..FILE_LENGTH - 1]);
    assert!(open().contains("shorter"), "{}", open());
    put(&vec![0; FILE_LENGTH]);
    assert!(open().contains("not a witness's store"), "{}", open());
    put(&good);
    assert!(describe(home.path()).unwrap().contains("1 of 64 streams"));
    std::fs::remove_file(home.path().join(FILE_NAME)).unwrap();
    assert!(open().contains("relayd format"), "{}", open());
}

#[test]
fn streams_are_kept_apart_and_bounded() {
    let home = created();
    let mut store = Store::open(home.path(), 1).unwrap();
    for number in 1..=STREAMS_MAX as u32 {
        let record = value(number as u8);
        done(&mut store, StreamId(number), &Request::Create { record });
    }
    assert_eq!(
        (store.streams(), store.changes()),
        (STREAMS_MAX, STREAMS_MAX as u64)
    );
    let one_more = store.decide(StreamId(99), &Request::Create { record: value(1) });
    assert_eq!(one_more.unwrap(), Answer::NoRoom);
    drop(store);
    let mut store = Store::open(home.path(), 1).unwrap();
    for number in 1..=STREAMS_MAX as u32 {
        let Some(Registers {
            record: Cell { value: found, .. },
            ..
        }) = held(&mut store, StreamId(number))
        else {
            panic!("stream {number} is gone");
        };
        assert_eq!(found, value(number as u8));
    }
}

/// Goal: revisions given out after an older copy of the file was brought back are not those given out before. Method: go on
/// from the same copy twice.
#[test]
fn an_old_copy_shows_older_revisions_and_gives_out_new_ones() {
    let home = created();
    let mut store = Store::open(home.path(), 1_000).unwrap();
    let base = done(&mut store, STREAM, &Request::Create { record: value(1) });
    let copy = image(&home);
    let swap = |base, number| Request::Swap {
        base,
        floor_base: None,
        next: value(number),
    };
    let before = done(&mut store, STREAM, &swap(base, 2));
    drop(store);
    std::fs::write(home.path().join(FILE_NAME), copy).unwrap();
    let mut store = Store::open(home.path(), 77_000).unwrap();
    assert_eq!(held(&mut store, STREAM).unwrap().record.revision, base);
    let after = done(&mut store, STREAM, &swap(base, 3));
    assert!(after > before, "{after} after {before}");
    let stale = store.decide(STREAM, &swap(before, 4)).unwrap();
    assert!(matches!(stale, Answer::Refused(Some(_))));
}
