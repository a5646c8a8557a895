//! Captures: pcap and pcapng files, the UDP and TCP payloads in them, and messages written as one (`write.rs`).
//!
//! ```text
//! file -> CaptureReader: frames with time and link type -> transport(): the payload and its destination port
//! ```
//!
//! A capture comes from outside, so every length is compared with a limit and with what is there before it is used; a
//! damaged file is an error that names the byte, and so is a frame of which only a part was captured. Frames that are no UDP
//! or TCP, fragments (an import refuses them), and payloads of no bytes are passed over. TCP is taken segment by segment: a
//! retransmission counts again, as it was captured.

use std::fmt;
use std::io::{self, Read};

mod frame;
mod write;

pub(crate) use frame::{is_fragment, transport};
pub(crate) use write::{CaptureWriter, Datagram, PAYLOAD_MAX};

/// Longest frame: what libpcap itself allows.
const FRAME_LENGTH_MAX: u32 = 262_144;
/// Longest pcapng block that is not skipped over unread.
const BLOCK_LENGTH_MAX: u32 = 16 << 20;

const PCAP_MICROSECONDS: u32 = 0xa1b2_c3d4;
const PCAP_NANOSECONDS: u32 = 0xa1b2_3c4d;
const PCAPNG_SECTION: u32 = 0x0a0d_0d0a;
const PCAPNG_BYTE_ORDER: u32 = 0x1a2b_3c4d;
const PCAPNG_INTERFACE: u32 = 1;
const PCAPNG_SIMPLE_PACKET: u32 = 3;
const PCAPNG_ENHANCED_PACKET: u32 = 6;

/// Why a capture can't be read, or not further.
#[derive(Debug)]
pub(crate) enum CaptureError {
    /// The system refused.
    Io(io::Error),
    /// The first bytes are those of no capture.
    NotACapture,
    /// The file ends in the middle of something.
    Truncated {
        /// Byte at which that something begins.
        at: u64,
    },
    /// A frame that was not captured whole.
    Cut {
        /// Byte at which it begins.
        at: u64,
        /// Bytes that were captured.
        captured: u32,
        /// Bytes it had.
        original: u32,
    },
    /// What lies there can't be.
    Damaged {
        /// The byte.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::NotACapture => write!(f, "neither a pcap nor a pcapng file; give a capture"),
            Self::Truncated { at } => write!(
                f,
                "the capture ends in the middle of what begins at byte {at}; \
                 everything before it was read, see whether the file was copied whole"
            ),
            Self::Cut {
                at,
                captured,
                original,
            } => write!(
                f,
                "of the frame at byte {at} only {captured} of {original} bytes were captured, so that its message is not \
                 whole; everything before it was read, capture again without a limit (tcpdump -s 0)"
            ),
            Self::Damaged { at, what } => write!(
                f,
                "the capture is damaged at byte {at}: {what}; everything before it was read"
            ),
        }
    }
}

impl std::error::Error for CaptureError {}

/// A captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// When it was captured, ns since 1970.
    pub(crate) time_ns: u64,
    /// Kind of link, as tcpdump.org lists them.
    pub(crate) link_type: u32,
    /// Its bytes from the link's header on.
    pub(crate) bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: u32,
    units_per_second: u64,
    offset_seconds: i64,
}

#[derive(Debug)]
enum Kind {
    Pcap {
        link_type: u32,
        is_nanoseconds: bool,
    },
    Pcapng {
        interfaces: Vec<Interface>,
    },
}

/// Reads the frames of a capture, in the order of the file.
#[derive(Debug)]
pub(crate) struct CaptureReader<R> {
    input: R,
    kind: Kind,
    is_big_endian: bool,
    at: u64,
    buffer: Vec<u8>,
}

const fn check_whole(at: u64, captured: u32, original: u32) -> Result<(), CaptureError> {
    if captured < original {
        return Err(CaptureError::Cut {
            at,
            captured,
            original,
        });
    }
    Ok(())
}

impl<R: Read> CaptureReader<R> {
    /// Reads the head of the file.
    pub(crate) fn new(input: R) -> Result<Self, CaptureError> {
        let mut reader = Self {
            input,
            kind: Kind::Pcapng {
                interfaces: Vec::new(),
            },
            is_big_endian: false,
            at: 0,
            buffer: Vec::new(),
        };
        let magic = match reader.fill(4, 0) {
            Ok(true) => reader.u32_at(0),
            Ok(false) | Err(CaptureError::Truncated { .. }) => {
                return Err(CaptureError::NotACapture);
            }
            Err(error) => return Err(error),
        };
        match (magic, magic.swap_bytes()) {
            (PCAPNG_SECTION, _) => reader.section()?,
            (PCAP_MICROSECONDS | PCAP_NANOSECONDS, _) => reader.head(magic)?,
            (_, swapped @ (PCAP_MICROSECONDS | PCAP_NANOSECONDS)) => {
                reader.is_big_endian = true;
                reader.head(swapped)?;
            }
            _ => return Err(CaptureError::NotACapture),
        }
        Ok(reader)
    }

    /// The next frame; nothing at the end of the file.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        match self.kind {
            Kind::Pcap {
                link_type,
                is_nanoseconds,
            } => self.pcap_frame(link_type, is_nanoseconds),
            Kind::Pcapng { .. } => self.pcapng_frame(),
        }
    }

    fn head(&mut self, magic: u32) -> Result<(), CaptureError> {
        self.whole(20, 0)?;
        if self.u16_at(0) != 2 {
            return Err(CaptureError::Damaged {
                at: 4,
                what: "a pcap version other than 2",
            });
        }
        // The upper bits tell of a frame check sequence at the end of each frame.
        let link_type = self.u32_at(16) & 0x0fff_ffff;
        self.kind = Kind::Pcap {
            link_type,
            is_nanoseconds: magic == PCAP_NANOSECONDS,
        };
        Ok(())
    }

    fn pcap_frame(
        &mut self,
        link_type: u32,
        is_nanoseconds: bool,
    ) -> Result<Option<Frame<'_>>, CaptureError> {
        let begin = self.at;
        if !self.fill(16, begin)? {
            return Ok(None);
        }
        let (seconds, fraction) = (self.u32_at(0), self.u32_at(4));
        let (captured, original) = (self.u32_at(8), self.u32_at(12));
        let (unit, fraction_end) = if is_nanoseconds {
            (1, 1_000_000_000)
        } else {
            (1_000, 1_000_000)
        };
        if fraction >= fraction_end {
            return Err(CaptureError::Damaged {
                at: begin + 4,
                what: "a fraction of over a second",
            });
        }
        if captured > FRAME_LENGTH_MAX || captured > original {
            return Err(CaptureError::Damaged {
                at: begin + 8,
                what: "a frame too long to be one",
            });
        }
        check_whole(begin, captured, original)?;
        self.whole(captured as usize, begin)?;
        let time_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit;
        Ok(Some(Frame {
            time_ns,
            link_type,
            bytes: &self.buffer,
        }))
    }

    /// The section header, its type already read: what follows it is in its byte order.
    fn section(&mut self) -> Result<(), CaptureError> {
        let begin = self.at - 4;
        self.whole(8, begin)?;
        self.is_big_endian = false;
        self.is_big_endian = match self.u32_at(4) {
            PCAPNG_BYTE_ORDER => false,
            other if other.swap_bytes() == PCAPNG_BYTE_ORDER => true,
            _ => {
                return Err(CaptureError::Damaged {
                    at: begin + 8,
                    what: "no byte-order magic",
                });
            }
        };
        let length = self.u32_at(0);
        // 12 bytes are read: type, length and magic. At least version, section length and the length again follow.
        if length < 28 {
            return Err(CaptureError::Damaged {
                at: begin + 4,
                what: "a section header too short",
            });
        }
        self.block_rest(begin, length, 12)?;
        self.kind = Kind::Pcapng {
            interfaces: Vec::new(),
        };
        Ok(())
    }

    /// Reads a block of `length` bytes to its end, `taken` of which were read; its body is then in the buffer.
    fn block_rest(&mut self, begin: u64, length: u32, taken: u32) -> Result<(), CaptureError> {
        if !length.is_multiple_of(4) || length > BLOCK_LENGTH_MAX || length < taken + 4 {
            return Err(CaptureError::Damaged {
                at: begin + 4,
                what: "a block of impossible length",
            });
        }
        let rest = (length - taken) as usize;
        self.whole(rest, begin)?;
        if self.u32_at(rest - 4) != length {
            let at = self.at - 4;
            return Err(CaptureError::Damaged {
                at,
                what: "a block whose two lengths differ",
            });
        }
        self.buffer.truncate(rest - 4);
        Ok(())
    }

    fn pcapng_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        loop {
            let begin = self.at;
            if !self.fill(4, begin)? {
                return Ok(None);
            }
            let block_type = self.u32_at(0);
            if block_type == PCAPNG_SECTION {
                self.section()?;
                continue;
            }
            self.whole(4, begin)?;
            let length = self.u32_at(0);
            self.block_rest(begin, length, 8)?;
            match block_type {
                PCAPNG_INTERFACE => self.interface(begin)?,
                PCAPNG_ENHANCED_PACKET => return self.enhanced_packet(begin).map(Some),
                PCAPNG_SIMPLE_PACKET => return self.simple_packet(begin).map(Some),
                _ => {}
            }
        }
    }

    fn interface(&mut self, begin: u64) -> Result<(), CaptureError> {
        if self.buffer.len() < 8 {
            return Err(CaptureError::Damaged {
                at: begin,
                what: "an interface block too short",
            });
        }
        let link_type = u32::from(self.u16_at(0));
        let mut found = Interface {
            link_type,
            units_per_second: 1_000_000,
            offset_seconds: 0,
        };
        let mut at = 8;
        while at + 4 <= self.buffer.len() {
            let (code, length) = (self.u16_at(at), usize::from(self.u16_at(at + 2)));
            let value = at + 4;
            if code == 0 {
                break;
            }
            if value + length > self.buffer.len() {
                return Err(CaptureError::Damaged {
                    at: begin,
                    what: "an option too long",
                });
            }
            match (code, length) {
                (9, 1) => {
                    found.units_per_second =
                        units_per_second(self.buffer[value]).ok_or(CaptureError::Damaged {
                            at: begin,
                            what: "an impossible time resolution",
                        })?;
                }
                (14, 8) => found.offset_seconds = self.u64_at(value) as i64,
                _ => {}
            }
            at = value + length.next_multiple_of(4);
        }
        let Kind::Pcapng { interfaces } = &mut self.kind else {
            unreachable!("blocks are read in pcapng files only");
        };
        interfaces.push(found);
        Ok(())
    }

    fn enhanced_packet(&mut self, begin: u64) -> Result<Frame<'_>, CaptureError> {
        if self.buffer.len() < 20 {
            return Err(CaptureError::Damaged {
                at: begin,
                what: "a packet block too short",
            });
        }
        let Kind::Pcapng { interfaces } = &self.kind else {
            unreachable!("blocks are read in pcapng files only");
        };
        let Some(&interface) = interfaces.get(self.u32_at(0) as usize) else {
            return Err(CaptureError::Damaged {
                at: begin + 8,
                what: "a packet of no interface",
            });
        };
        let time = u64::from(self.u32_at(4)) << 32 | u64::from(self.u32_at(8));
        let captured = self.u32_at(12);
        if captured > FRAME_LENGTH_MAX || captured as usize > self.buffer.len() - 20 {
            return Err(CaptureError::Damaged {
                at: begin + 20,
                what: "a frame longer than its block",
            });
        }
        check_whole(begin, captured, self.u32_at(16))?;
        let per_second = u128::from(interface.units_per_second);
        let since_ns = u128::from(time) * 1_000_000_000 / per_second;
        let time_ns = since_ns as i128 + i128::from(interface.offset_seconds) * 1_000_000_000;
        Ok(Frame {
            time_ns: u64::try_from(time_ns).unwrap_or(0),
            link_type: interface.link_type,
            bytes: &self.buffer[20..20 + captured as usize],
        })
    }

    /// A packet without time, of the first interface.
    fn simple_packet(&mut self, begin: u64) -> Result<Frame<'_>, CaptureError> {
        if self.buffer.len() < 4 {
            return Err(CaptureError::Damaged {
                at: begin,
                what: "a packet block too short",
            });
        }
        let Kind::Pcapng { interfaces } = &self.kind else {
            unreachable!("blocks are read in pcapng files only");
        };
        let Some(interface) = interfaces.first() else {
            return Err(CaptureError::Damaged {
                at: begin,
                what: "a packet of no interface",
            });
        };
        let original = self.u32_at(0);
        let captured = original.min(self.buffer.len() as u32 - 4);
        check_whole(begin, captured, original)?;
        Ok(Frame {
            time_ns: 0,
            link_type: interface.link_type,
            bytes: &self.buffer[4..4 + captured as usize],
        })
    }

    /// Reads `length` bytes into the buffer; false at the end of the file, before the first of them.
    fn fill(&mut self, length: usize, begin: u64) -> Result<bool, CaptureError> {
        self.buffer.clear();
        let read = (&mut self.input)
            .take(length as u64)
            .read_to_end(&mut self.buffer)
            .map_err(CaptureError::Io)?;
        self.at += read as u64;
        match read {
            0 if length > 0 => Ok(false),
            _ if read < length => Err(CaptureError::Truncated { at: begin }),
            _ => Ok(true),
        }
    }

    /// Reads `length` bytes that must be there: they belong to what begins at `begin`.
    fn whole(&mut self, length: usize, begin: u64) -> Result<(), CaptureError> {
        if self.fill(length, begin)? {
            Ok(())
        } else {
            Err(CaptureError::Truncated { at: begin })
        }
    }

    fn u16_at(&self, at: usize) -> u16 {
        let bytes = self.buffer[at..at + 2].try_into().expect("two bytes");
        if self.is_big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = self.buffer[at..at + 4].try_into().expect("four bytes");
        if self.is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }

    fn u64_at(&self, at: usize) -> u64 {
        let bytes = self.buffer[at..at + 8].try_into().expect("eight bytes");
        if self.is_big_endian {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        }
    }
}

/// What `if_tsresol` says: a power of ten, or of two where the highest bit is set.
fn units_per_second(resolution: u8) -> Option<u64> {
    let exponent = u32::from(resolution & 0x7f);
    if resolution & 0x80 != 0 {
        2u64.checked_pow(exponent)
    } else {
        10u64.checked_pow(exponent)
    }
}

#[cfg(test)]
mod tests;
