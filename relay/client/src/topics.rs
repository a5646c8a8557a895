//! Names and ids of topics on either side.
//!
//! An id is valid on one connection only. A publisher's caller therefore holds a handle that this table ties to the
//! present id; a subscriber's table is filled anew on every connection.

use std::collections::{HashMap, VecDeque};

use relay_wire::code::RejectCode;
use relay_wire::id::TopicId;

/// Most requests that may be unanswered, as `FORMAT.md` says.
const UNANSWERED_MAX: usize = 256;

/// What the relay said to a topic of a publisher's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The request waits to be sent.
    Unasked,
    /// The request is on its way.
    Asked,
    /// The id on this connection.
    Given(TopicId),
    /// No.
    Refused(RejectCode, String),
}

struct Entry {
    name: String,
    /// The id that kept and new records carry; 0 before the first answer and after a refusal.
    id: TopicId,
    answer: Answer,
}

/// A publisher's topics. Handle and request number of a topic are the same number, from 1.
#[derive(Default)]
pub(crate) struct PublisherTopics {
    entries: Vec<Entry>,
    by_name: HashMap<String, u32>,
    to_ask: VecDeque<u32>,
    unanswered: usize,
}

impl PublisherTopics {
    /// The handle of a name; a name that is new or was refused will be asked for.
    pub(crate) fn ask(&mut self, name: &str) -> u32 {
        let handle = if let Some(&handle) = self.by_name.get(name) {
            handle
        } else {
            self.entries.push(Entry {
                name: name.to_owned(),
                id: TopicId(0),
                answer: Answer::Refused(RejectCode::UnknownTopic, String::new()),
            });
            let handle = u32::try_from(self.entries.len()).expect("fewer topics than ids");
            self.by_name.insert(name.to_owned(), handle);
            handle
        };
        if matches!(self.entry(handle).answer, Answer::Refused(..)) {
            self.entry_mut(handle).answer = Answer::Unasked;
            self.unanswered += 1;
            self.to_ask.push_back(handle);
        }
        handle
    }

    fn entry(&self, handle: u32) -> &Entry {
        &self.entries[handle as usize - 1]
    }

    fn entry_mut(&mut self, handle: u32) -> &mut Entry {
        &mut self.entries[handle as usize - 1]
    }

    /// The id records of this handle carry now.
    pub(crate) fn id(&self, handle: TopicId) -> Option<TopicId> {
        let index = (handle.get() as usize).wrapping_sub(1);
        let id = self.entries.get(index)?.id;
        (id.get() != 0).then_some(id)
    }

    /// What was answered to this handle's request.
    pub(crate) fn answer(&self, handle: u32) -> &Answer {
        &self.entry(handle).answer
    }

    /// The next request to send: its number and name.
    pub(crate) fn next_to_ask(&mut self) -> Option<(u32, &str)> {
        let is_on_its_way = self.unanswered - self.to_ask.len();
        if is_on_its_way >= UNANSWERED_MAX {
            return None;
        }
        let handle = self.to_ask.pop_front()?;
        let entry = self.entry_mut(handle);
        entry.answer = Answer::Asked;
        Some((handle, &entry.name))
    }

    /// The request will have to be sent again.
    pub(crate) fn ask_again(&mut self, handle: u32) {
        if self.is_asked(handle) {
            self.entry_mut(handle).answer = Answer::Unasked;
            self.to_ask.push_back(handle);
        }
    }

    fn is_asked(&self, handle: u32) -> bool {
        let index = (handle as usize).wrapping_sub(1);
        self.entries
            .get(index)
            .is_some_and(|entry| entry.answer == Answer::Asked)
    }

    /// Takes an answer; false where it answers nothing that was asked. The relay leaves the name of an answer empty.
    #[must_use]
    pub(crate) fn on_answer(&mut self, request: u32, name: Option<&str>, answer: Answer) -> bool {
        if !self.is_asked(request) {
            return false;
        }
        if name.is_some_and(|name| !name.is_empty() && name != self.entry(request).name) {
            return false;
        }
        self.entry_mut(request).answer = answer;
        self.unanswered -= 1;
        true
    }

    /// A new connection: every topic is asked for again, and the ids stay until [`PublisherTopics::settle`].
    pub(crate) fn on_connection(&mut self) {
        self.to_ask.clear();
        self.unanswered = self.entries.len();
        for (handle, entry) in (1..).zip(&mut self.entries) {
            entry.answer = Answer::Unasked;
            self.to_ask.push_back(handle);
        }
    }

    /// Whether every request was answered.
    pub(crate) fn is_settled(&self) -> bool {
        self.unanswered == 0
    }

    /// Lets the answer to one request take effect, for a topic that no record carries yet: costs the same with one topic as with
    /// very many.
    pub(crate) fn settle_one(&mut self, request: u32) {
        let entry = self.entry_mut(request);
        entry.id = match &entry.answer {
            Answer::Unasked | Answer::Asked => return,
            Answer::Given(id) => *id,
            Answer::Refused(..) => TopicId(0),
        };
    }

    /// Lets the answers take effect; what became of each id that changed, the refusal where it is gone.
    pub(crate) fn settle(&mut self) -> HashMap<TopicId, Result<TopicId, (RejectCode, String)>> {
        let mut changes = HashMap::new();
        for entry in &mut self.entries {
            let before = entry.id;
            match &entry.answer {
                Answer::Unasked | Answer::Asked => continue,
                Answer::Given(id) => entry.id = *id,
                Answer::Refused(..) => entry.id = TopicId(0),
            }
            if before.get() == 0 || before == entry.id {
                continue;
            }
            let change = match &entry.answer {
                Answer::Refused(code, text) => Err((*code, text.clone())),
                _ => Ok(entry.id),
            };
            changes.insert(before, change);
        }
        changes
    }
}

/// Ids up to here are looked up by index; the relay gives them from 1 on, so more are not to be expected.
const DENSE_MAX: u32 = 1 << 20;

/// The names a subscriber was told on this connection.
#[derive(Default)]
pub(crate) struct SubscriberTopics {
    dense: Vec<Option<Box<str>>>,
    sparse: HashMap<u32, Box<str>>,
}

impl SubscriberTopics {
    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.dense.clear();
        self.sparse.clear();
    }

    /// Ties `id` to `name`.
    pub(crate) fn define(&mut self, id: TopicId, name: &str) {
        if id.get() >= DENSE_MAX {
            self.sparse.insert(id.get(), name.into());
            return;
        }
        let index = id.get() as usize;
        if index >= self.dense.len() {
            self.dense.resize(index + 1, None);
        }
        if self.dense[index].as_deref() != Some(name) {
            self.dense[index] = Some(name.into());
        }
    }

    /// The name of `id`.
    pub(crate) fn name(&self, id: TopicId) -> Option<&str> {
        match self.dense.get(id.get() as usize) {
            Some(name) => name.as_deref(),
            None => self.sparse.get(&id.get()).map(AsRef::as_ref),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_topic_keeps_its_handle_while_its_id_changes() {
        let mut topics = PublisherTopics::default();
        let handle = topics.ask("a.b");
        assert_eq!(topics.id(TopicId(handle)), None);
        assert_eq!(topics.next_to_ask(), Some((handle, "a.b")));
        assert!(!topics.on_answer(handle, Some("other"), Answer::Given(TopicId(7))));
        assert!(topics.on_answer(handle, Some("a.b"), Answer::Given(TopicId(7))));
        assert!(topics.settle().is_empty());
        assert_eq!(topics.id(TopicId(handle)), Some(TopicId(7)));
        assert_eq!(topics.ask("a.b"), handle);
        assert_eq!(topics.next_to_ask(), None);

        topics.on_connection();
        assert_eq!(
            topics.id(TopicId(handle)),
            Some(TopicId(7)),
            "until settled"
        );
        assert!(
            !topics.on_answer(handle, Some(""), Answer::Given(TopicId(9))),
            "not asked yet"
        );
        topics.next_to_ask().unwrap();
        assert!(topics.on_answer(handle, Some("a.b"), Answer::Given(TopicId(9))));
        assert!(topics.is_settled());
        assert_eq!(topics.settle().get(&TopicId(7)), Some(&Ok(TopicId(9))));

        topics.on_connection();
        topics.next_to_ask().unwrap();
        let refusal = Answer::Refused(RejectCode::NotEntitled, "no".into());
        assert!(topics.on_answer(handle, None, refusal));
        let changes = topics.settle();
        assert_eq!(
            changes[&TopicId(9)],
            Err((RejectCode::NotEntitled, "no".into()))
        );
        assert_eq!(topics.id(TopicId(handle)), None);
        assert_eq!(topics.id(TopicId(0)), None);
        assert_eq!(topics.id(TopicId(99)), None);
    }

    #[test]
    fn no_more_requests_are_on_their_way_than_the_relay_takes() {
        let mut topics = PublisherTopics::default();
        for number in 0..300 {
            topics.ask(&format!("topic.{number}"));
        }
        for _ in 0..UNANSWERED_MAX {
            topics.next_to_ask().unwrap();
        }
        assert_eq!(topics.next_to_ask(), None);
        assert!(topics.on_answer(1, Some(""), Answer::Given(TopicId(4))));
        assert_eq!(topics.next_to_ask(), Some((257, "topic.256")));
        assert_eq!(topics.next_to_ask(), None);
        topics.ask_again(2);
        topics.on_connection();
        for _ in 0..UNANSWERED_MAX {
            topics.next_to_ask().unwrap();
        }
        assert_eq!(topics.next_to_ask(), None);
    }

    #[test]
    fn a_subscriber_finds_names_by_small_and_large_ids() {
        let mut topics = SubscriberTopics::default();
        topics.define(TopicId(3), "a");
        topics.define(TopicId(u32::MAX), "b");
        assert_eq!(topics.name(TopicId(3)), Some("a"));
        assert_eq!(topics.name(TopicId(2)), None);
        assert_eq!(topics.name(TopicId(u32::MAX)), Some("b"));
        topics.clear();
        assert_eq!(topics.name(TopicId(3)), None);
    }
}
