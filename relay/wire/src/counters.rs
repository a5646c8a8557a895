//! The counters file: what a running relay exports, read by tools without asking the process.
//!
//! `relayd` maps `counters` in a stream's directory and stores into it; any reader maps or reads the file at any time. Each
//! value is a single aligned 8-byte word, so a read value is one that was stored.
//!
//! ```text
//! header, 128 bytes                         slot, 128 bytes, from 128 on
//!   0  8  magic "RELAYCNT"                    0   8  value
//!   8  4  version (1)                         8   1  length of the label, 0 for an unused slot
//!  12  4  slots                               9   7  zero
//!  16  8  process id                         16 112  label, ASCII
//!  24  8  node
//!  32  4  stream
//!  36  4  zero
//!  40  8  started, ns UTC
//!  48 80  zero
//! ```

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"RELAYCNT";
/// Version of this layout.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_LENGTH: usize = 128;
/// Bytes of a slot.
pub const SLOT_LENGTH: usize = 128;
/// Most bytes of a label.
pub const LABEL_LENGTH_MAX: usize = 112;
/// Name of the file in a stream's directory.
pub const FILE_NAME: &str = "counters";

/// Why bytes are not a counters file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountersError {
    /// Too short, or another magic.
    NotCounters,
    /// Another version; this one.
    Version(u32),
}

impl core::fmt::Display for CountersError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotCounters => write!(f, "not a relay's counters file"),
            Self::Version(version) => {
                write!(
                    f,
                    "counters of layout version {version}; this tool reads {VERSION}"
                )
            }
        }
    }
}

impl core::error::Error for CountersError {}

/// The bytes of a header.
#[must_use]
pub fn header(
    slots: u32,
    pid: u64,
    node: u64,
    stream: u32,
    started_ns: u64,
) -> [u8; HEADER_LENGTH] {
    let mut bytes = [0; HEADER_LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&slots.to_le_bytes());
    bytes[16..24].copy_from_slice(&pid.to_le_bytes());
    bytes[24..32].copy_from_slice(&node.to_le_bytes());
    bytes[32..36].copy_from_slice(&stream.to_le_bytes());
    bytes[40..48].copy_from_slice(&started_ns.to_le_bytes());
    bytes
}

/// The bytes of a slot whose value is 0.
///
/// # Panics
/// When the label is empty or longer than [`LABEL_LENGTH_MAX`].
#[must_use]
pub fn slot(label: &str) -> [u8; SLOT_LENGTH] {
    assert!(
        !label.is_empty() && label.len() <= LABEL_LENGTH_MAX,
        "a label has 1 to 112 bytes"
    );
    let mut bytes = [0; SLOT_LENGTH];
    bytes[8] = label.len() as u8;
    bytes[16..16 + label.len()].copy_from_slice(label.as_bytes());
    bytes
}

/// A counters file's content.
#[derive(Debug, Clone, Copy)]
pub struct CountersView<'a> {
    bytes: &'a [u8],
}

/// Views the bytes of a counters file.
///
/// # Errors
/// [`CountersError`] when they are something else.
pub fn read(bytes: &[u8]) -> Result<CountersView<'_>, CountersError> {
    if bytes.len() < HEADER_LENGTH || bytes[..8] != MAGIC {
        return Err(CountersError::NotCounters);
    }
    let view = CountersView { bytes };
    match view.u32_at(8) {
        VERSION => Ok(view),
        other => Err(CountersError::Version(other)),
    }
}

impl<'a> CountersView<'a> {
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    /// Process that writes the file.
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.u64_at(16)
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.u64_at(24)
    }

    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> u32 {
        self.u32_at(32)
    }

    /// When it started, ns UTC.
    #[must_use]
    pub fn started_ns(&self) -> u64 {
        self.u64_at(40)
    }

    /// Every counter in use: label and value.
    pub fn counters(&self) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
        self.bytes[HEADER_LENGTH..]
            .chunks_exact(SLOT_LENGTH)
            .filter_map(|slot| {
                let length = usize::from(slot[8]);
                let label = core::str::from_utf8(slot.get(16..16 + length)?).ok()?;
                let value = u64::from_le_bytes(slot[..8].try_into().ok()?);
                (length > 0).then_some((label, value))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_out_is_read() {
        let mut file = header(2, 7, 1, 9, 5).to_vec();
        file.extend_from_slice(&slot("records"));
        file.extend_from_slice(&[0; SLOT_LENGTH]);
        file[HEADER_LENGTH] = 42;
        let view = read(&file).unwrap();
        assert_eq!(
            (view.pid(), view.node(), view.stream(), view.started_ns()),
            (7, 1, 9, 5)
        );
        assert_eq!(view.counters().collect::<Vec<_>>(), [("records", 42)]);
        assert_eq!(read(&file[1..]).unwrap_err(), CountersError::NotCounters);
    }
}
