//! Files of payload hashes: who sends and who receives writes one each, and comparing them judges everything between.
//!
//! A sender's line is `sha256(payload) topic`, a receiver's has the seq in front. `scripts/compare_hashes.py` and
//! `compare.rs` read both.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use relay_client::Seq;
use sha2::{Digest, Sha256};

use crate::exit::Failure;
use crate::output::hex;

/// A file of hashes being written.
pub(crate) struct HashFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl HashFile {
    /// Makes the file, or empties it.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Failure::file("creating", path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            out: BufWriter::new(file),
        })
    }

    /// Adds a message that is about to be sent.
    pub(crate) fn sent(&mut self, payload: &[u8], topic: &str) -> Result<(), Failure> {
        writeln!(self.out, "{} {topic}", hex(&Sha256::digest(payload)))
            .map_err(|error| Failure::file("writing", &self.path, &error))
    }

    /// Adds a message that came.
    pub(crate) fn received(
        &mut self,
        seq: Seq,
        payload: &[u8],
        topic: &str,
    ) -> Result<(), Failure> {
        write!(self.out, "{seq} ").map_err(|error| Failure::file("writing", &self.path, &error))?;
        self.sent(payload, topic)
    }

    /// Hands on what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out
            .flush()
            .map_err(|error| Failure::file("writing", &self.path, &error))
    }
}
