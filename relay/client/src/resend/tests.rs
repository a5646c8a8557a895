//! Goal: the window sends exactly the bytes a plain list of records would, whatever is pushed, written in part, released,
//! sent again, dropped or given another topic. Method: random operations on the window and on such a list, compared after
//! each; the window is small, so that it wraps often.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use relay_wire::id::{Incarnation, PublisherId};

const WINDOW: usize = 4096;

fn fields(topic: u32) -> Fields {
    Fields {
        topic: TopicId(topic),
        publisher: PublisherId(5),
        incarnation: Incarnation(6),
        ..Fields::default()
    }
}

fn payload(tag: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (tag * 31 + i) as u8).collect()
}

fn encoded(seq: u64, topic: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; record::encoded_stride(0, payload.len())];
    let fields = Fields {
        publisher_seq: PublisherSeq(seq),
        ..fields(topic)
    };
    record::encode(&mut out, RecordKind::Data, &fields, &[], payload).unwrap();
    out
}

fn queued(window: &Window, credit: u64) -> Vec<u8> {
    let (first, second) = window.queued(credit);
    [first, second].concat()
}

/// The same as a list.
#[derive(Default)]
struct Plain {
    /// Publisher sequence of the first.
    first: u64,
    records: VecDeque<(u32, Vec<u8>)>,
    cursor: u64,
    written: usize,
}

impl Plain {
    fn bytes_of(&self, seq: u64) -> Vec<u8> {
        let (topic, payload) = &self.records[(seq - self.first) as usize];
        encoded(seq, *topic, payload)
    }

    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn queued(&self, credit: u64) -> Vec<u8> {
        let mut on_its_way = 0;
        let mut out = Vec::new();
        for seq in self.first..self.next() {
            let bytes = self.bytes_of(seq);
            on_its_way += bytes.len() as u64;
            let is_alone = seq == self.first && self.cursor == self.first;
            if on_its_way > credit && !is_alone {
                break;
            }
            if seq >= self.cursor {
                let skip = if seq == self.cursor { self.written } else { 0 };
                out.extend_from_slice(&bytes[skip..]);
            }
        }
        out
    }

    fn wrote(&mut self, mut count: usize) {
        while count > 0 {
            let missing = self.bytes_of(self.cursor).len() - self.written;
            let step = missing.min(count);
            count -= step;
            self.written += step;
            if step == missing {
                self.cursor += 1;
                self.written = 0;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { length: usize, topic: u32 },
    Write { share: f64, credit: u64 },
    Release { share: f64 },
    Rewind { share: f64 },
    Drop { share: f64 },
    Retopic { from: u32, to: Option<u32> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..900, 1_u32..4).prop_map(|(length, topic)| Step::Push { length, topic }),
        4 => (0.0..=1.0, prop_oneof![Just(u64::MAX), 0_u64..3000])
            .prop_map(|(share, credit)| Step::Write { share, credit }),
        3 => (0.0..=1.0).prop_map(|share| Step::Release { share }),
        1 => (0.0..=1.0).prop_map(|share| Step::Rewind { share }),
        1 => (0.0..=1.0).prop_map(|share| Step::Drop { share }),
        1 => (1_u32..4, proptest::option::of(1_u32..4))
            .prop_map(|(from, to)| Step::Retopic { from, to }),
    ]
}

fn pick(share: f64, from: u64, to: u64) -> u64 {
    from + (share * (to - from) as f64) as u64
}

fn apply(window: &mut Window, plain: &mut Plain, step: &Step, tag: u64) {
    match *step {
        Step::Push { length, topic } => {
            let payload = payload(tag, length);
            match window.push(fields(topic), &[], &payload) {
                Ok(seq) => {
                    assert_eq!(seq.get(), plain.next());
                    plain.records.push_back((topic, payload));
                }
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::Full);
                    let kept = window.kept_bytes();
                    assert!(
                        kept + 2 * (length + 80) + 1000 > WINDOW,
                        "refused with {kept} kept"
                    );
                }
            }
        }
        Step::Write { share, credit } => {
            let count = (share * queued(window, credit).len() as f64) as usize;
            window.wrote(count);
            plain.wrote(count);
        }
        Step::Release { share } => {
            let through = pick(share, plain.first - 1, plain.cursor - 1);
            let count = through + 1 - plain.first;
            assert_eq!(window.release(PublisherSeq(through)), count > 0);
            plain.records.drain(..count as usize);
            plain.first += count;
        }
        Step::Rewind { share } => {
            let to = pick(share, plain.first, plain.cursor);
            assert_eq!(window.rest_of_record(), rest_of_record(plain));
            window.rewind(PublisherSeq(to));
            (plain.cursor, plain.written) = (to, 0);
        }
        Step::Drop { share } => {
            if plain.records.is_empty() {
                return;
            }
            let seq = pick(share, plain.first, plain.next() - 1);
            let cursor = plain.cursor.min(seq);
            window.rewind(PublisherSeq(cursor));
            (plain.cursor, plain.written) = (cursor, 0);
            let mut dropped = false;
            window.rewrite(PublisherSeq(seq), |_, topic| {
                let keep = dropped;
                dropped = true;
                keep.then_some(topic)
            });
            plain.records.remove((seq - plain.first) as usize);
        }
        Step::Retopic { from, to } => {
            window.rewind(window.first());
            (plain.cursor, plain.written) = (plain.first, 0);
            let mut expected_seq = plain.first;
            window.rewrite(window.first(), |seq, topic| {
                assert_eq!(seq.get(), expected_seq);
                let new = if topic == TopicId(from) {
                    to.map(TopicId)
                } else {
                    Some(topic)
                };
                expected_seq += u64::from(new.is_some());
                new
            });
            match to {
                None => plain.records.retain(|(topic, _)| *topic != from),
                Some(to) => plain
                    .records
                    .iter_mut()
                    .filter(|(topic, _)| *topic == from)
                    .for_each(|(topic, _)| *topic = to),
            }
        }
    }
}

fn rest_of_record(plain: &Plain) -> Vec<u8> {
    if plain.written == 0 {
        return Vec::new();
    }
    plain.bytes_of(plain.cursor)[plain.written..].to_vec()
}

fn compare(window: &Window, plain: &Plain) {
    assert_eq!(window.first().get(), plain.first);
    assert_eq!(window.next().get(), plain.next());
    assert_eq!(window.cursor().get(), plain.cursor);
    assert_eq!(window.len(), plain.records.len());
    let kept: usize = (plain.first..plain.next())
        .map(|seq| plain.bytes_of(seq).len())
        .sum();
    assert_eq!(window.kept_bytes(), kept);
    assert!(window.sent_to() >= window.cursor() && window.sent_to() <= window.next());
    for credit in [0, 500, 1500, u64::MAX] {
        assert_eq!(
            queued(window, credit),
            plain.queued(credit),
            "credit {credit}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn behaves_like_a_list(steps in proptest::collection::vec(step(), 1..300)) {
        let mut window = Window::new(WINDOW);
        let mut plain = Plain { first: 1, cursor: 1, ..Plain::default() };
        for (tag, step) in steps.iter().enumerate() {
            apply(&mut window, &mut plain, step, tag as u64);
            compare(&window, &plain);
        }
    }
}

#[test]
fn a_record_as_large_as_the_window_fits_and_one_larger_never_does() {
    let mut window = Window::new(WINDOW);
    let most = WINDOW - HEADER_LENGTH;
    let fits = window.push(fields(1), &[], &payload(1, most));
    assert_eq!(fits, Ok(PublisherSeq(1)));
    assert_eq!(window.push(fields(1), &[], &[]), Err(Refusal::Full));
    let larger = window.push(fields(1), &[], &payload(1, most + 1));
    assert_eq!(larger, Err(Refusal::TooLarge));
    window.wrote(WINDOW);
    window.release(PublisherSeq(1));
    let again = window.push(fields(1), &[], &payload(2, most));
    assert_eq!(again, Ok(PublisherSeq(2)));
}

/// Goal: an empty window takes a record of any length, however it became empty. Method: one released, the other dropped.
#[test]
fn a_window_whose_last_record_was_dropped_takes_any() {
    let mut window = Window::new(WINDOW);
    let half = WINDOW / 2 - HEADER_LENGTH;
    window.push(fields(1), &[], &payload(1, half)).unwrap();
    window.push(fields(2), &[], &payload(2, 100)).unwrap();
    let written = queued(&window, u64::MAX).len();
    window.wrote(written);
    window.release(PublisherSeq(1));
    window.rewrite(PublisherSeq(2), |_, _| None);
    assert_eq!(window.len(), 0);
    let long = payload(3, half + 200);
    let taken = window.push(fields(1), &[], &long);
    assert_eq!(taken, Ok(PublisherSeq(2)));
    assert_eq!(queued(&window, u64::MAX), encoded(2, 1, &long));
}

#[test]
fn a_malformed_extension_area_is_refused_and_leaves_nothing() {
    let mut window = Window::new(WINDOW);
    assert_eq!(
        window.push(fields(1), &[0; 7], b"x"),
        Err(Refusal::Extension)
    );
    let too_long_value = [1, 0, 9, 0, 0, 0, 0, 0];
    let refused = window.push(fields(1), &too_long_value, b"x");
    assert_eq!(refused, Err(Refusal::Extension));
    assert_eq!(window.len(), 0);
    let empty_value = [1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        window.push(fields(1), &empty_value, b"x"),
        Ok(PublisherSeq(1))
    );
}

/// The smallest records are as many as the window has slots for.
#[test]
fn many_of_the_smallest_records() {
    let mut window = Window::new(WINDOW);
    let mut count = 0;
    while window.push(fields(1), &[], &[]).is_ok() {
        count += 1;
    }
    assert_eq!(count, WINDOW / HEADER_LENGTH);
}
