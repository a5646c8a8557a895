//! The section about what an auditor gets besides the log: seals, and what the clock was worth.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{Check, ConfigError, StreamConfig};
use crate::seal_key;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EvidenceSection {
    seals: bool,
    seal_key_file: Option<PathBuf>,
    clock_every_ms: u64,
    ptp4l_config_file: Option<PathBuf>,
}

impl Default for EvidenceSection {
    fn default() -> Self {
        Self {
            seals: true,
            seal_key_file: None,
            clock_every_ms: 60_000,
            ptp4l_config_file: None,
        }
    }
}

/// What an auditor gets besides the log.
#[derive(Debug, Clone)]
pub(crate) struct EvidenceConfig {
    /// Whether full segments are sealed.
    pub(crate) seals: bool,
    seal_key_file: Option<PathBuf>,
    /// What the clock is worth is journalled so often, besides at a change.
    pub(crate) clock_every: Duration,
    /// The file by which the ptp4l runs that keeps the clock right; without it no ptp4l is asked.
    pub(crate) ptp4l_config_file: Option<PathBuf>,
}

impl Check<'_> {
    pub(super) fn evidence(
        &self,
        at: usize,
        section: &EvidenceSection,
    ) -> Result<EvidenceConfig, ConfigError> {
        let every = section.clock_every_ms;
        let every = self.within("clock_every_ms", at, every, 1_000..=86_400_000)?;
        let base = self.file.parent().unwrap_or(Path::new("."));
        Ok(EvidenceConfig {
            seals: section.seals,
            seal_key_file: section.seal_key_file.as_ref().map(|file| base.join(file)),
            clock_every: Duration::from_millis(every),
            ptp4l_config_file: section
                .ptp4l_config_file
                .as_ref()
                .map(|file| base.join(file)),
        })
    }
}

impl StreamConfig {
    /// Where the secret key lies that signs seals.
    pub(crate) fn seal_key_file(&self) -> PathBuf {
        match &self.evidence.seal_key_file {
            Some(file) => file.clone(),
            None => self.directory.join(seal_key::FILE_NAME),
        }
    }
}
