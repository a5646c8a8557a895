//! What the stream knows of each publisher: the duplicate check and what is released.
//!
//! Rebuilt from the journal at every start, so a publisher that comes back is recognised whatever happened between.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use relay_journal::tables::Tables;
use relay_wire::id::{Incarnation, PublisherId, PublisherSeq, Seq};

use crate::command::ConnId;
use crate::sequence::Bucket;

/// One publisher.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Publisher {
    pub(crate) incarnation: Incarnation,
    /// Last record appended to the log; 0 for none of this incarnation.
    pub(crate) appended: PublisherSeq,
    /// Last record released, and its seq.
    pub(crate) released: (PublisherSeq, Seq),
    /// The connection it is logged on over.
    pub(crate) conn: Option<ConnId>,
    /// An acknowledgement is due at the end of the step.
    pub(crate) ack_due: bool,
    /// Block number and place of its newest entry in the queue of acknowledgements.
    pub(crate) ack_entry: (u64, u64),
    /// What its rate limit leaves it, over all its connections.
    pub(crate) bucket: Bucket,
}

/// All publishers, each with a place that stays its own.
#[derive(Debug, Clone)]
pub(crate) struct PublisherTable {
    places: HashMap<PublisherId, u32>,
    publishers: Vec<Publisher>,
    limit: u32,
}

/// Places are given out in turn, so who has which follows from the log.
impl Hash for PublisherTable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.publishers.hash(state);
    }
}

impl PublisherTable {
    /// The publishers the log knows; all they sent counts as released.
    pub(crate) fn from_tables(tables: &Tables, limit: u32) -> Self {
        let mut table = Self {
            places: HashMap::with_capacity(limit as usize),
            publishers: Vec::with_capacity(limit as usize),
            limit: limit.max(tables.publishers.len() as u32),
        };
        for (&id, state) in &tables.publishers {
            let place = table
                .insert(id, state.incarnation)
                .expect("the limit was raised to fit");
            let publisher = table.get_mut(place);
            publisher.appended = state.last;
            publisher.released = (state.last, state.last_seq);
        }
        table
    }

    pub(crate) fn place(&self, id: PublisherId) -> Option<u32> {
        self.places.get(&id).copied()
    }

    /// A place for a publisher the stream has not seen; `None` at the limit.
    pub(crate) fn insert(&mut self, id: PublisherId, incarnation: Incarnation) -> Option<u32> {
        let place = self.publishers.len() as u32;
        if place >= self.limit {
            return None;
        }
        self.publishers.push(Publisher {
            incarnation,
            appended: PublisherSeq(0),
            released: (PublisherSeq(0), Seq(0)),
            conn: None,
            ack_due: false,
            ack_entry: (0, 0),
            bucket: Bucket::default(),
        });
        self.places.insert(id, place);
        Some(place)
    }

    pub(crate) fn get(&self, place: u32) -> &Publisher {
        &self.publishers[place as usize]
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> &mut Publisher {
        &mut self.publishers[place as usize]
    }
}
