//! Messages out of a live group: a subscriber that stops where the stream ended when it began.
//!
//! While nobody takes what was read, nothing is read, and the relay may let the connection go; the client library then
//! connects again and goes on where it was.

use std::time::Duration;

use relay_client::{Seq, Start, Subscriber, SubscriberEvent};

use super::selection::Bound;
use super::{Feed, Selection, Span, Stop, check_range, outside};
use crate::connect::Connection;
use crate::exit::Failure;
use crate::when::utc_text;

/// What was read is handed on at the latest when nothing came for so long.
const LOOK: Duration = Duration::from_millis(20);

/// Reads what is selected.
pub(super) fn read(
    connection: &Connection,
    selection: &Selection,
    feed: &mut Feed,
) -> Result<(), Stop> {
    let (first, next) = what_is_there(connection, selection)?;
    check_range(selection, first, next)?;
    let start = match selection.from {
        Bound::Start => Start::Earliest,
        Bound::Seq(seq) => Start::Seq {
            seq,
            checksum: None,
        },
        Bound::Time(time_ns) => Start::Time(time_ns),
        Bound::End => Start::Live,
    };
    let end = match selection.to {
        Bound::Seq(seq) => Seq(seq + 1),
        Bound::Start | Bound::End | Bound::Time(_) => next,
    };
    let span = Span {
        first: match selection.from {
            Bound::Seq(seq) => Seq(seq),
            Bound::End => end,
            Bound::Start | Bound::Time(_) => first,
        },
        next: end,
    };
    if selection.from == Bound::End || next <= first {
        return Ok(feed.opened(span)?);
    }
    let config = connection.subscriber(selection.patterns.clone(), start);
    let mut subscriber = Subscriber::connect(config).map_err(Failure::from)?;
    feed.opened(span)?;
    let has_any = take(&mut subscriber, selection, end, feed)?;
    subscriber.close();
    match selection.from {
        // Of other patterns nothing may have come although there is something.
        Bound::Time(time_ns) if !has_any && selection.patterns == [">"] => {
            let what = format!("{} (--from)", utc_text(time_ns));
            Err(outside(&what, first, next).into())
        }
        _ => Ok(()),
    }
}

/// Takes everything up to `end`; whether a message came at all.
fn take(
    subscriber: &mut Subscriber,
    selection: &Selection,
    end: Seq,
    feed: &mut Feed,
) -> Result<bool, Stop> {
    let mut has_any = false;
    loop {
        if subscriber.is_connected() && subscriber.next_seq() >= end {
            return Ok(has_any);
        }
        let delivery = match subscriber.next_within(LOOK).map_err(Failure::from)? {
            Some(delivery) => delivery,
            None => {
                feed.flush()?;
                continue;
            }
        };
        let record = &delivery.record;
        if record.seq() >= end || selection.is_past(record) {
            return Ok(has_any);
        }
        has_any = true;
        if selection.wants(record) {
            feed.batch.push(record, delivery.topic);
        }
        feed.batch.note(record.seq());
        feed.flush_if_full()?;
    }
}

/// The first seq the group has, and the one it will release next.
fn what_is_there(connection: &Connection, selection: &Selection) -> Result<(Seq, Seq), Failure> {
    let config = connection.subscriber(selection.patterns.clone(), Start::Earliest);
    let mut subscriber = Subscriber::connect(config)?;
    while let Some(event) = subscriber.next_event() {
        if let SubscriberEvent::Connected {
            start_seq,
            next_seq,
            ..
        } = event
        {
            subscriber.close();
            return Ok((start_seq, next_seq));
        }
    }
    Err(Failure::Failed(
        "the relay did not say what it has; try again".into(),
    ))
}
