//! `relayd format`: makes the journal of each stream and finds out how this disk writes fastest.

use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::{opcode, types};
use relay_journal::superblock::{Superblock, WriteMethod};
use relay_wire::id::Epoch;

use crate::arena::Pages;
use crate::clock::Clock;
use crate::config::StreamConfig;
use crate::init_group::incarnation_text;
use crate::pace::STEP_MAX;
use crate::ring::{Op, Ring};
use crate::seal_key;
use crate::startup::StartError;
use crate::storage::{self, Preparing, Segments, Storage};

/// How long each way of writing is tried.
const TRIAL: Duration = Duration::from_millis(400);
/// Writes of a trial that are not counted.
const WARM_UP: usize = 32;
/// Room left on the disk beyond what is prepared, for checkpoints and the like.
const SPARE_BYTES: u64 = 64 << 20;

/// What `relayd format` tells the operator.
#[derive(Debug)]
pub(crate) enum Told {
    /// How far it is: worth showing while it lasts.
    Progress(String),
    /// What was done or found.
    Done(String),
}

/// Makes one stream's journal; `say` tells the operator how it goes.
pub(crate) fn format(config: &StreamConfig, say: &mut dyn FnMut(Told)) -> Result<(), StartError> {
    let directory = &config.directory;
    std::fs::create_dir_all(directory)
        .map_err(|error| format!("{}: can't be made: {error}", directory.display()))?;
    storage::check_filesystem(directory)?;
    let size = config.settings.segment_size;
    let count = config.prepared.div_ceil(size);
    storage::check_space(directory, count * size + SPARE_BYTES)?;
    let mut incarnation = [0; 8];
    getrandom::fill(&mut incarnation)?;
    let first = Superblock {
        format_version: relay_journal::superblock::FORMAT_VERSION,
        node: config.settings.node,
        stream: config.settings.stream,
        disk_incarnation: u64::from_le_bytes(incarnation),
        created_ns: Clock::new().now().utc_ns,
        segment_size: size,
        block_alignment: config.settings.block_alignment,
        write_method: config.write_method.unwrap_or(WriteMethod::Dsync),
        in_flight_bytes_max: config.settings.in_flight_bytes_max(),
        generation: 1,
        clean: None,
        promised: Epoch(0),
        committed: Epoch(0),
        committed_nonce: 0,
        unknown_tail: None,
        ring_length: config.settings.ring_size,
        learning_from: None,
    };
    let mut storage = Storage::create(directory, &first)?;
    let segments = storage.open_segments()?;
    for number in 0..count {
        let mut preparing = Preparing::start(directory, &segments)?;
        while !preparing.step(directory, &segments, STEP_MAX)? {}
        say(Told::Progress(format!(
            "{}: prepared {} of {count} segments",
            directory.display(),
            number + 1
        )));
    }
    say(Told::Done(format!(
        "{}: prepared {count} segments of {size} bytes",
        directory.display()
    )));
    if config.write_method.is_none() {
        let (method, told) = fastest(&segments, config.settings.block_alignment)?;
        zero_trial(&storage, config.settings.block_alignment)?;
        storage.update(|next| next.write_method = method)?;
        say(Told::Done(format!("{}: {told}", directory.display())));
    }
    if config.evidence.seals {
        let file = config.seal_key_file();
        let key = match seal_key::load(&file)? {
            Some(key) => key,
            None => seal_key::make(&file)?,
        };
        say(Told::Done(format!(
            "{}: segments are sealed with key {} ({}); give this public key to whoever verifies",
            directory.display(),
            key.public(),
            file.display()
        )));
    }
    say(Told::Done(format!(
        "{}: this disk is {}={}",
        directory.display(),
        first.node,
        incarnation_text(first.disk_incarnation)
    )));
    Ok(())
}

/// Bytes at the start of the log that trials write to.
const TRIAL_BYTES: u64 = 4 << 20;

fn zero_trial(storage: &Storage, alignment: u32) -> Result<(), StartError> {
    let length = TRIAL_BYTES.next_multiple_of(alignment.into());
    Ok(storage.zero(relay_wire::id::Position(0), length)?)
}

/// The method with the lowest sum of median and 90th percentile for a lone block, and a line that gives the figures.
fn fastest(segments: &Segments, alignment: u32) -> Result<(WriteMethod, String), StartError> {
    let mut best: Option<(Duration, WriteMethod)> = None;
    let mut told = Vec::new();
    for &method in WriteMethod::ALL {
        let mut times = trial(segments, method, alignment)?;
        times.sort_unstable();
        let median = times[times.len() / 2];
        let p90 = times[times.len() * 9 / 10];
        let p99 = times[times.len() * 99 / 100];
        told.push(format!("{method:?} p50 {median:?} p90 {p90:?} p99 {p99:?}"));
        // The median alone hides a method that is quick or very slow by turns.
        if best.is_none_or(|(least, _)| median + p90 < least) {
            best = Some((median + p90, method));
        }
    }
    let (_, method) = best.ok_or("no write method could be tried")?;
    Ok((
        method,
        format!(
            "durable {alignment}-byte writes: {}; {method:?} it is",
            told.join(", ")
        ),
    ))
}

fn trial(
    segments: &Segments,
    method: WriteMethod,
    alignment: u32,
) -> Result<Vec<Duration>, StartError> {
    let mut ring = Ring::new(8)?;
    let block = Pages::new(alignment as usize)?;
    let op = Op {
        agent: 0,
        purpose: 0,
        index: 0,
    };
    let mut times = Vec::new();
    let begun = Instant::now();
    let mut position = relay_wire::id::Position(0);
    while times.len() < 2 * WARM_UP || begun.elapsed() < TRIAL {
        let (file, offset) = segments.place(position).ok_or("nothing is prepared")?;
        let is_dsync = method == WriteMethod::Dsync;
        let write = opcode::Write::new(types::Fd(file), block.pointer(0), alignment)
            .offset(offset)
            .rw_flags(if is_dsync { libc::RWF_DSYNC } else { 0 })
            .build();
        let sync = opcode::Fsync::new(types::Fd(file))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        let started = Instant::now();
        // SAFETY: the page outlives the wait for the completion below.
        unsafe { ring.push(write, op) };
        check(wait(&mut ring), alignment as i32)?;
        if !is_dsync {
            // SAFETY: a sync points at no memory.
            unsafe { ring.push(sync, op) };
            check(wait(&mut ring), 0)?;
        }
        times.push(started.elapsed());
        let next = position.plus(alignment.into());
        position = if next.get() < TRIAL_BYTES {
            next
        } else {
            relay_wire::id::Position(0)
        };
    }
    Ok(times.split_off(WARM_UP))
}

fn wait(ring: &mut Ring) -> i32 {
    loop {
        ring.enter();
        if let Some(completion) = ring.reap() {
            return completion.result;
        }
        // As the hot threads do by default. Spinning would starve the kernel's workers on a small machine and measure that.
        std::thread::yield_now();
    }
}

fn check(result: i32, expected: i32) -> Result<(), StartError> {
    if result == expected {
        return Ok(());
    }
    let error = std::io::Error::from_raw_os_error(-result.min(0));
    Err(format!("a trial write failed ({result}): {error}").into())
}

/// Says what a journal's superblock holds, for `relayd check`.
pub(crate) fn describe(directory: &Path) -> Result<String, StartError> {
    let storage = Storage::open(directory)?;
    let superblock = storage.superblock();
    Ok(format!(
        "{}: disk {}={}, stream {}, {} segments of {} bytes, written by {:?}, {}",
        directory.display(),
        superblock.node,
        incarnation_text(superblock.disk_incarnation),
        superblock.stream,
        storage.open_segments()?.count(),
        superblock.segment_size,
        superblock.write_method,
        if superblock.clean.is_some() {
            "stopped cleanly"
        } else {
            "not stopped cleanly"
        }
    ))
}
