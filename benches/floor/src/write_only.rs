//! The durable write alone: one 4 KiB block at a time through the same writer and ring.
//!
//! This is the part of the floor that another tool can check: fio with the io_uring engine, direct
//! writes and one write in flight does the same work. fio sleeps in the kernel for the completion,
//! which is [`Idle::Park`] here; the polling strategies show what that sleep costs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::affinity::{pin, yield_cpu};
use crate::block_writer::{BlockWriter, Target};
use crate::clock::{Clock, nanoseconds};
use crate::data_file::{DataFile, check_dir};
use crate::error::FloorError;
use crate::options::{BLOCK_BYTES, Idle, WriteMode, WriteOptions};
use crate::report::{WriteReport, new_histogram, record, typical_ns};
use crate::ring::{Completion, Ring};
use crate::worker::Worker;

/// Position of the data file among the registered files.
const DATA_FILE: u32 = 0;
/// Bound on one durable write.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Bound on a thread's end after its measured time.
const END_WAIT: Duration = Duration::from_secs(30);
/// Seconds of one `Auto` probe; each mode is probed twice, in turn.
const AUTO_SECONDS: f64 = 0.25;

/// Measures durable 4 KiB writes, one at a time.
pub fn write_only(options: &WriteOptions) -> Result<WriteReport, FloorError> {
    options.validate()?;
    check_dir(&options.dir, 1, options.file_mib)?;
    let file = Arc::new(DataFile::create(&options.dir, options.file_mib)?);
    let write_mode = match options.write_mode {
        WriteMode::Auto => choose_mode(options, &file)?,
        chosen => chosen,
    };
    let latency = measure(options, write_mode, &file)?;
    Ok(WriteReport {
        write_mode,
        latency,
    })
}

fn choose_mode(options: &WriteOptions, file: &Arc<DataFile>) -> Result<WriteMode, FloorError> {
    let probe = WriteOptions {
        seconds: AUTO_SECONDS,
        warmup: 0.05,
        ..options.clone()
    };
    let mut dsync = new_histogram();
    let mut covering = new_histogram();
    for _ in 0..2 {
        dsync += measure(&probe, WriteMode::Dsync, file)?;
        covering += measure(&probe, WriteMode::Covering, file)?;
    }
    let better = typical_ns(&dsync) <= typical_ns(&covering);
    Ok(if better {
        WriteMode::Dsync
    } else {
        WriteMode::Covering
    })
}

/// One measurement on a thread of its own, so that pinning leaves the caller alone.
fn measure(
    options: &WriteOptions,
    mode: WriteMode,
    file: &Arc<DataFile>,
) -> Result<Histogram<u64>, FloorError> {
    let limit = Duration::from_secs_f64(options.warmup + options.seconds) + END_WAIT;
    let (options, file) = (options.clone(), file.clone());
    let stop = Arc::new(AtomicBool::new(false));
    Worker::start("floor-writer", stop, move || {
        write_loop(&options, mode, &file)
    })?
    .wait(limit)
}

fn write_loop(
    options: &WriteOptions,
    mode: WriteMode,
    file: &DataFile,
) -> Result<Histogram<u64>, FloorError> {
    pin(options.cpu)?;
    let mut lone = LoneWriter::new(options.idle, mode, file)?;
    let clock = Clock::new();
    let measured_ns = nanoseconds(options.warmup);
    let end_ns = measured_ns + nanoseconds(options.seconds);
    let mut latency = new_histogram();
    let body = [0x5a; BLOCK_BYTES];
    let mut index = 0;
    loop {
        let begin_ns = clock.now();
        if begin_ns >= end_ns {
            return Ok(latency);
        }
        lone.write(&body, index)?;
        index += 1;
        if begin_ns >= measured_ns {
            record(&mut latency, clock.now() - begin_ns);
        }
    }
}

/// A writer with one block at a time. The ring is dropped first.
struct LoneWriter {
    ring: Ring,
    writer: BlockWriter,
    finished: Vec<Completion>,
    idle: Idle,
}

impl LoneWriter {
    fn new(idle: Idle, mode: WriteMode, file: &DataFile) -> Result<LoneWriter, FloorError> {
        let ring = Ring::new(4)?;
        ring.register_files(&[file.fd()])?;
        let writer = BlockWriter::new(&ring, 1, Some(Target::new(file, DATA_FILE, mode)))?;
        Ok(LoneWriter {
            ring,
            writer,
            finished: Vec::with_capacity(8),
            idle,
        })
    }

    /// Returns when `body` is durable.
    fn write(&mut self, body: &[u8], index: u64) -> Result<(), FloorError> {
        self.writer.fill(body, index, 0);
        self.writer.queue(&mut self.ring);
        loop {
            self.ring.turn()?;
            self.ring.reap(&mut self.finished);
            if self.finished.is_empty() {
                self.wait()?;
                continue;
            }
            for &(user_data, result) in &self.finished {
                self.writer.complete(user_data, result)?;
            }
            self.writer.settle(0);
            if self.writer.oldest_durable().is_some() {
                self.writer.release();
                return Ok(());
            }
            self.writer.queue(&mut self.ring);
        }
    }

    fn wait(&mut self) -> Result<(), FloorError> {
        match self.idle {
            Idle::Spin => std::hint::spin_loop(),
            Idle::Yield => yield_cpu(),
            Idle::Park => self.ring.park(WRITE_LIMIT)?,
        }
        Ok(())
    }
}

impl Drop for LoneWriter {
    fn drop(&mut self) {
        let deadline = Instant::now() + WRITE_LIMIT;
        while self.ring.in_flight() > 0 {
            let parked = self.ring.park(Duration::from_millis(1));
            self.ring.reap(&mut self.finished);
            if parked.is_err() || Instant::now() > deadline {
                self.writer.abandon();
                return;
            }
        }
    }
}
