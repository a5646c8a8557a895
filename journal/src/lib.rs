//! The journal of one stream: what lies on disk, how it is read back, and what a damaged tail
//! means.
//!
//! Between the wire, whose records it stores unchanged, and the core, which decides what is written
//! when. A log is a chain of [`block`]s in [`segment`] files; the [`superblock`] says what the disk
//! is; [`tables`] are what the log adds up to and a [`checkpoint`] is one such sum on disk;
//! [`recovery`] finds where the log ends after a crash. [`registers`] is no part of a journal: it is
//! what a witness keeps on its own disk; [`seal`] is what was signed of full segments; [`side_index`] leads
//! from a seq, a time or a name to blocks; [`set_aside`] names the files of log a group went on without. `FORMAT.md` beside this crate describes every byte.
//!
//! Invariants: decoding never panics and allocates no more than the bytes it was given justify; a
//! header's checksum is checked before its lengths are believed; a block that is damaged is
//! unknown, never absent. Everything but [`reader`], [`source`] and [`read_ahead`] is pure: no file,
//! clock, thread or randomness.
#![forbid(unsafe_code)]

pub mod block;
pub mod checkpoint;
pub mod clock;
pub mod position_index;
pub mod read_ahead;
pub mod reader;
pub mod recovery;
pub mod registers;
pub mod scan;
pub mod seal;
pub mod segment;
pub mod set_aside;
pub mod side_index;
pub mod source;
pub mod superblock;
pub mod tables;
pub mod topics;
