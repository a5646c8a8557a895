//! A journal made without a relay: the same sequencer, with files for its disk and the messages' own times for its clock.
//!
//! ```text
//! message -> relay-core's sequencer (stamps, packs, seals) -> segment files -> checkpoint -> superblock, clean stop
//! ```
//!
//! Invariants: what is written is folded as it is written, so a journal that is finished keeps every rule of the format; the
//! superblock comes last and by renaming, so a directory without one was never finished and no command takes it for a
//! journal. A writer that is dropped before it finished removes what it made.
//!
//! Not here: making each block durable by itself. The files are synced as they are closed, before the superblock is there.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_client::wire::code::{Policy, RecordKind};
use relay_client::wire::extension::Original;
use relay_client::wire::id::{
    Epoch, Incarnation, NodeId, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_client::wire::item::PAYLOAD_LIMIT_MAX;
use relay_client::wire::message::{Message, TopicRequest};
use relay_client::wire::record::{self, Fields};
use relay_core::command::{ConnId, Now, PublisherLogon, ToIngress, ToSequence};
use relay_core::credential::{Credential, CredentialBook};
use relay_core::log::LogWindow;
use relay_core::sequence::{Beginning, Sequence, SequenceEffect};
use relay_core::settings::Settings;
use relay_journal::block::{HEADER_LENGTH, decode_header};
use relay_journal::checkpoint;
use relay_journal::segment::{self, Geometry};
use relay_journal::superblock::{self, CleanStop, Superblock, WriteMethod};
use relay_journal::tables::Tables;

use super::source::Incoming;
use crate::exit::Failure;

/// Most publishers of one import.
const PUBLISHERS_MAX: u32 = 4_096;
/// A block is sealed when its first message is so much older than the next one: about what a relay would do, which seals
/// as soon as its disk is free.
const BLOCK_NS_MAX: u64 = 1_000_000;
/// Zeroes are written in pieces of so many bytes.
const ZEROES: usize = 1 << 20;

/// What the journal is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) node: u64,
    pub(super) stream: u32,
    pub(super) geometry: Geometry,
    /// Each message gets a block of its own.
    pub(super) is_lone: bool,
}

/// What was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) bytes: u64,
    pub(super) blocks: u64,
    pub(super) last_seq: Seq,
}

#[derive(Debug)]
struct Publisher {
    conn: ConnId,
    incarnation: u64,
    last: u64,
    /// Topics whose ids were told to it.
    topics: HashSet<TopicId>,
}

/// The writer; see the module.
pub(super) struct JournalWriter {
    directory: PathBuf,
    is_ours: bool,
    is_finished: bool,
    shape: Shape,
    superblock: Superblock,
    machine: Sequence,
    /// The log from `base` on, as far as the open block may need it.
    log: Vec<u8>,
    base: Position,
    room_needed: u64,
    segment: Option<(u64, File)>,
    tables: Tables,
    publishers: HashMap<u64, Publisher>,
    topics: HashMap<String, TopicId>,
    record: Vec<u8>,
    extension: Vec<u8>,
    time_ns: u64,
    /// Receive time of the open block's first message.
    block_begun_ns: Option<u64>,
    stopped: Option<CleanStop>,
}

impl JournalWriter {
    /// Makes the directory, which must not exist or be empty. The journal begins at `time_ns`, UTC.
    pub(super) fn create(directory: &Path, shape: Shape, time_ns: u64) -> Result<Self, Failure> {
        let is_ours = make_directory(directory)?;
        let settings = settings(&shape);
        let room_needed = 2 * u64::from(settings.block_span_max());
        let mut incarnation = [0; 8];
        getrandom::fill(&mut incarnation)
            .map_err(|error| Failure::Failed(format!("getting a random number: {error}")))?;
        let superblock = Superblock {
            format_version: superblock::FORMAT_VERSION,
            node: settings.node,
            stream: settings.stream,
            disk_incarnation: u64::from_le_bytes(incarnation),
            created_ns: time_ns,
            segment_size: settings.segment_size,
            block_alignment: settings.block_alignment,
            write_method: WriteMethod::Dsync,
            in_flight_bytes_max: settings.in_flight_bytes_max(),
            generation: 1,
            clean: None,
            promised: Epoch(0),
            committed: Epoch(0),
            committed_nonce: 0,
            unknown_tail: None,
            ring_length: 0,
            learning_from: None,
        };
        let empty = Tables::empty(settings.stream);
        let beginning = Beginning {
            tables: &empty,
            epoch: Epoch(1),
            was_clean: false,
            write_method: WriteMethod::Dsync,
            // Space is made as blocks come; a full disk is an error of the write.
            prepared: Position(u64::MAX),
            now: at(time_ns),
        };
        let book = CredentialBook::new(vec![Credential {
            name: "import".to_owned(),
            secret: Vec::new(),
            publisher: None,
            publish: vec![">".to_owned()],
            subscribe: Vec::new(),
            rate_limit: 0,
        }]);
        let machine = Sequence::new(settings, Arc::new(book), &beginning);
        let mut writer = Self {
            directory: directory.to_owned(),
            is_ours,
            is_finished: false,
            shape,
            superblock,
            machine,
            log: vec![0; 4 * room_needed as usize],
            base: Position(0),
            room_needed,
            segment: None,
            tables: empty.clone(),
            publishers: HashMap::new(),
            topics: HashMap::new(),
            record: Vec::new(),
            extension: Vec::new(),
            time_ns,
            block_begun_ns: None,
            stopped: None,
        };
        let mut window = LogWindow::new(Position(0), &mut writer.log);
        writer.machine.open_epoch(&beginning, None, &mut window);
        writer.complete()?;
        Ok(writer)
    }

    /// Journals a message; its seq.
    pub(super) fn add(&mut self, incoming: &Incoming) -> Result<Seq, Failure> {
        let time_ns = self.time_ns.max(incoming.time_ns);
        if let Some(begun_ns) = self.block_begun_ns
            && time_ns - begun_ns > BLOCK_NS_MAX
        {
            self.time_ns = self.time_ns.max(begun_ns + BLOCK_NS_MAX);
            self.seal()?;
        }
        self.time_ns = time_ns;
        let conn = self.log_on(incoming)?;
        let topic = self.topic(incoming, conn)?;
        let seq = self.machine.next_seq();
        let publisher = self.publishers.get_mut(&incoming.publisher);
        let publisher = publisher.expect("it was logged on");
        publisher.last += 1;
        let fields = Fields {
            topic,
            publisher: PublisherId(incoming.publisher),
            incarnation: Incarnation(incoming.incarnation),
            publisher_seq: PublisherSeq(publisher.last),
            key_hash: incoming.key_hash,
            origin_time_ns: incoming.origin_time_ns,
        };
        self.extension.clear();
        if let Some(original) = incoming.original {
            let here = Original {
                publisher: fields.publisher,
                incarnation: fields.incarnation,
                publisher_seq: fields.publisher_seq,
                seq,
                receive_time_ns: self.time_ns,
            };
            let is_taken = original == here || original.push(&mut self.extension);
            assert!(is_taken, "an empty area has room for one identity");
        }
        let length = record::encoded_stride(self.extension.len(), incoming.payload.len());
        self.record.resize(length, 0);
        let kind = RecordKind::Data;
        let (extension, payload) = (&self.extension[..], &incoming.payload[..]);
        record::encode(&mut self.record, kind, &fields, extension, payload)
            .map_err(|error| Failure::Failed(format!("laying out message {seq}: {error:?}")))?;
        self.block_begun_ns.get_or_insert(self.time_ns);
        let command = ToSequence::Records {
            conn,
            offset: 0,
            length: length as u32,
            receive_time_ns: self.time_ns,
        };
        let bytes = std::mem::take(&mut self.record);
        let result = self.command(command, &bytes);
        self.record = bytes;
        result?;
        if self.shape.is_lone {
            self.seal()?;
        }
        Ok(seq)
    }

    /// Stops in order, writes checkpoint and superblock; only then is it a journal.
    pub(super) fn finish(mut self) -> Result<Made, Failure> {
        self.machine.stop();
        let clean = loop {
            if let Some(clean) = self.stopped {
                break clean;
            }
            self.seal()?;
        };
        self.prepare_rest(clean.tail)?;
        let doing = "writing";
        let path = self.directory.join(checkpoint::name(clean.tail));
        write_synced(&path, &checkpoint::encode(&self.tables))
            .map_err(|error| Failure::file(doing, &path, &error))?;
        let mut bytes = Vec::with_capacity(superblock::FILE_LENGTH);
        bytes.extend_from_slice(&self.superblock.encode());
        let second = Superblock {
            generation: 2,
            clean: Some(clean),
            ..self.superblock
        };
        bytes.extend_from_slice(&second.encode());
        let path = self.directory.join(superblock::FILE_NAME);
        let unnamed = path.with_extension("new");
        write_synced(&unnamed, &bytes)
            .and_then(|()| File::open(self.directory.join(segment::DIRECTORY))?.sync_all())
            .and_then(|()| fs::rename(&unnamed, &path))
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|error| Failure::file(doing, &path, &error))?;
        self.is_finished = true;
        Ok(Made {
            bytes: clean.tail.get(),
            blocks: self.tables.next_block_number - 1,
            last_seq: Seq(clean.next_seq.get() - 1),
        })
    }

    /// The connection of a message's publisher, whose incarnation is begun if it is new.
    fn log_on(&mut self, incoming: &Incoming) -> Result<ConnId, Failure> {
        let count = self.publishers.len() as u32;
        let known = self.publishers.get(&incoming.publisher);
        let conn = known.map_or(
            ConnId {
                index: count,
                generation: 0,
            },
            |known| known.conn,
        );
        match known {
            Some(known) if known.incarnation == incoming.incarnation => return Ok(conn),
            Some(known) if known.incarnation > incoming.incarnation => {
                return Err(Failure::Failed(format!(
                    "message {} of publisher {} is of incarnation {}, after one of {}; give the \
                     messages in the order they were recorded in",
                    self.machine.next_seq(),
                    incoming.publisher,
                    incoming.incarnation,
                    known.incarnation
                )));
            }
            Some(_) => self.command(ToSequence::Closed { conn }, &[])?,
            None if count == PUBLISHERS_MAX => {
                return Err(Failure::Failed(format!(
                    "there are more than {PUBLISHERS_MAX} publishers; import fewer at a time"
                )));
            }
            None => {}
        }
        let publisher = PublisherId(incoming.publisher);
        let incarnation = Incarnation(incoming.incarnation);
        let command = ToSequence::Logon(PublisherLogon {
            conn,
            publisher,
            incarnation,
            credential: 0,
            accepted: 0,
        });
        self.command(command, &[])?;
        let begun = Publisher {
            conn,
            incarnation: incoming.incarnation,
            last: 0,
            topics: HashSet::new(),
        };
        self.publishers.insert(incoming.publisher, begun);
        Ok(conn)
    }

    /// The id of a message's topic, told to its publisher.
    fn topic(&mut self, incoming: &Incoming, conn: ConnId) -> Result<TopicId, Failure> {
        let name = &incoming.topic;
        if let Some(&topic) = self.topics.get(name)
            && self.publishers[&incoming.publisher].topics.contains(&topic)
        {
            return Ok(topic);
        }
        let seq = self.machine.next_seq();
        relay_client::wire::topic::check_name(name.as_bytes())
            .map_err(|error| Failure::Failed(format!("message {seq}, topic `{name}`: {error}")))?;
        let request = TopicRequest {
            request: conn.index + 1,
            name: name.as_bytes(),
        };
        let bytes = Message::TopicRequest(request)
            .to_vec()
            .map_err(|error| Failure::Failed(format!("topic `{name}`: {error:?}")))?;
        let command = ToSequence::TopicRequest {
            conn,
            offset: 0,
            length: bytes.len() as u32,
        };
        // Ids are told once they are released, so the definition is sealed and written at once.
        self.command(command, &bytes)?;
        self.seal()?;
        let topic = self.tables.topics.id(name).ok_or_else(|| {
            Failure::Failed(format!(
                "topic `{name}` was not defined; import fewer topics"
            ))
        })?;
        self.topics.insert(name.clone(), topic);
        let publisher = self.publishers.get_mut(&incoming.publisher);
        publisher.expect("it was logged on").topics.insert(topic);
        Ok(topic)
    }

    /// Gives the sequencer a command until it has taken all of it.
    fn command(&mut self, command: ToSequence, bytes: &[u8]) -> Result<(), Failure> {
        let mut taken = 0;
        loop {
            self.make_room();
            let start = self.machine.open_position();
            let offset = start.since(self.base) as usize;
            let mut window = LogWindow::new(start, &mut self.log[offset..]);
            let now = at(self.time_ns);
            let progress = self
                .machine
                .on_command(command, &bytes[taken..], now, &mut window);
            taken += progress.taken;
            self.complete()?;
            if progress.is_done {
                return Ok(());
            }
        }
    }

    fn seal(&mut self) -> Result<(), Failure> {
        self.make_room();
        let start = self.machine.open_position();
        let offset = start.since(self.base) as usize;
        let mut window = LogWindow::new(start, &mut self.log[offset..]);
        self.machine.seal_if_due(at(self.time_ns), &mut window);
        self.complete()?;
        self.block_begun_ns = None;
        Ok(())
    }

    /// Moves the open block to the memory's start when the room behind it gets short.
    fn make_room(&mut self) {
        let start = self.machine.open_position();
        let offset = start.since(self.base) as usize;
        if (self.log.len() - offset) as u64 >= 2 * self.room_needed {
            return;
        }
        self.log.copy_within(offset.., 0);
        self.base = start;
    }

    /// Carries out what the sequencer asks for, with nothing left to be written: the memory it lies in is used again.
    fn complete(&mut self) -> Result<(), Failure> {
        self.machine.write_what_waits(at(self.time_ns));
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                SequenceEffect::Write {
                    number,
                    position,
                    length,
                } => {
                    self.write(position, length as usize)?;
                    self.machine.on_written(number);
                }
                SequenceEffect::Stopped(clean) => self.stopped = Some(clean),
                SequenceEffect::Reply(ToIngress::Reject { code, .. }) => {
                    return Err(Failure::Failed(format!(
                        "message {} is refused: {code:?}",
                        self.machine.next_seq()
                    )));
                }
                SequenceEffect::Reply(ToIngress::Terminate { code, .. }) => {
                    return Err(Failure::Failed(format!(
                        "the publisher of message {} is refused: {code:?}",
                        self.machine.next_seq()
                    )));
                }
                SequenceEffect::Sync | SequenceEffect::Reply(_) | SequenceEffect::Released(_) => {}
            }
        }
        Ok(())
    }

    /// Writes a run of sealed blocks to their segment and folds them.
    fn write(&mut self, position: Position, length: usize) -> Result<(), Failure> {
        let geometry = self.shape.geometry;
        let index = geometry.segment_of(position);
        if self.segment.as_ref().is_none_or(|(open, _)| *open != index) {
            self.next_segment(index)?;
        }
        let offset = position.since(self.base) as usize;
        let run = &self.log[offset..offset + length];
        let mut blocks = run;
        while !blocks.is_empty() {
            let header = decode_header(blocks).map_err(|error| rule(&error))?;
            let body = &blocks[HEADER_LENGTH..header.body_end()];
            self.tables
                .apply_block(&header, body)
                .map_err(|error| rule(&error))?;
            blocks = &blocks[header.written_length(geometry.block_alignment()) as usize..];
        }
        let (_, file) = self.segment.as_ref().expect("it was opened just now");
        file.write_all_at(run, geometry.offset_of(position))
            .map_err(|error| full(&self.directory, &error))
    }

    /// Closes the present segment and begins the one with this index, all zero.
    fn next_segment(&mut self, index: u64) -> Result<(), Failure> {
        if let Some((_, file)) = self.segment.take() {
            file.sync_all()
                .map_err(|error| full(&self.directory, &error))?;
        }
        let path = self
            .directory
            .join(segment::DIRECTORY)
            .join(segment::name(index));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|file| {
                file.set_len(self.shape.geometry.segment_size())?;
                Ok(file)
            })
            .map_err(|error| full(&path, &error))?;
        self.segment = Some((index, file));
        Ok(())
    }

    /// Zeroes what is left of the last segment and one more, so that a relay can start on the journal and has room at once.
    fn prepare_rest(&mut self, tail: Position) -> Result<(), Failure> {
        let geometry = self.shape.geometry;
        let last = geometry.segment_of(Position(tail.get().saturating_sub(1)));
        let used = tail.get() - geometry.start_of(last).get();
        self.zero(last, used)?;
        self.zero(last + 1, 0)?;
        let (_, file) = self.segment.take().expect("a segment is open");
        file.sync_all()
            .map_err(|error| full(&self.directory, &error))
    }

    fn zero(&mut self, index: u64, from: u64) -> Result<(), Failure> {
        if self.segment.as_ref().is_none_or(|(open, _)| *open != index) {
            self.next_segment(index)?;
        }
        let (_, file) = self.segment.as_ref().expect("it was opened just now");
        let zeroes = vec![0; ZEROES];
        let size = self.shape.geometry.segment_size();
        let mut offset = from;
        while offset < size {
            let step = (size - offset).min(ZEROES as u64);
            file.write_all_at(&zeroes[..step as usize], offset)
                .map_err(|error| full(&self.directory, &error))?;
            offset += step;
        }
        Ok(())
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // The first error is the one that is told.
        if self.is_ours {
            let _ = fs::remove_dir_all(&self.directory);
            return;
        }
        let _ = fs::remove_dir_all(self.directory.join(segment::DIRECTORY));
        let superblock = self.directory.join(superblock::FILE_NAME);
        let _ = fs::remove_file(superblock.with_extension("new"));
        if let Some(clean) = self.stopped {
            let _ = fs::remove_file(self.directory.join(checkpoint::name(clean.tail)));
        }
    }
}

/// Makes the directory and its `segments`; whether the directory was not there before.
fn make_directory(directory: &Path) -> Result<bool, Failure> {
    let making = |error| Failure::file("making", directory, &error);
    let is_ours = match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Failure::Failed(format!(
                    "{}: there is something already, and a journal is never imported into; name a \
                     directory that is empty or not there yet",
                    directory.display()
                )));
            }
            false
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory).map_err(making)?;
            true
        }
        Err(error) => return Err(making(error)),
    };
    fs::create_dir(directory.join(segment::DIRECTORY)).map_err(making)?;
    Ok(is_ours)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    File::open(path)?.sync_all()
}

fn full(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "writing {}: {error}; what was written is removed, free some room and import again",
        path.display()
    ))
}

fn rule(error: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!(
        "a block was laid out that breaks a rule of the journal: {error}; this is a bug, report it \
         with the input"
    ))
}

fn at(time_ns: u64) -> Now {
    Now {
        utc_ns: time_ns,
        mono_ns: time_ns,
    }
}

fn settings(shape: &Shape) -> Settings {
    Settings {
        node: NodeId(shape.node),
        stream: StreamId(shape.stream),
        policy: Policy::Local,
        payload_limit: PAYLOAD_LIMIT_MAX,
        credit: u64::MAX,
        heartbeat_ns: 1_000_000_000,
        logon_timeout_ns: 1_000_000_000,
        connections_max: PUBLISHERS_MAX,
        unauthenticated_max: 1,
        publishers_max: PUBLISHERS_MAX,
        topics_max: relay_journal::topics::TOPICS_MAX as u32,
        subscribers_max: 1,
        block_alignment: shape.geometry.block_alignment(),
        block_length_max: 256 << 10,
        seal_threshold: 16 << 10,
        eager_depth: 1,
        write_depth: 16,
        segment_size: shape.geometry.segment_size(),
        ring_size: 64 << 20,
        mark_after_ns: 10_000_000,
        stall_limit_ns: 1_000_000_000,
        lag_limit: 0,
        replay_slots: 1,
        replay_slot_size: 4 << 20,
    }
}
