//! Messages as a capture: one UDP datagram each, in Ethernet frames with nanosecond times.
//!
//! ```text
//! up to 65,507 bytes    Ethernet | IPv4 | UDP | payload
//! up to 65,527 bytes    Ethernet | IPv6 | UDP | payload
//! longer                Ethernet | IPv6 | hop-by-hop: jumbo payload | UDP, length 0 | payload        (RFC 2675)
//! ```
//!
//! One message is always one packet, so a capture read back gives the same payloads. Lengths and checksums are those of the
//! RFCs; tshark and the dissectors of exchanges' formats take the frames for captured ones. What a frame's addresses say:
//! from `10.x.y.z`, the publisher's id, to the multicast group `239.192.x.y`, the topic's. A frame of a capture has 262,144
//! bytes at most, so longer messages are refused rather than cut.

use std::io::{self, Write};

use super::{FRAME_LENGTH_MAX, PCAP_NANOSECONDS};

const ETHERNET: u32 = 1;
const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const HOP_BY_HOP: usize = 8;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
/// Longest payload of an IPv4 datagram.
const IPV4_PAYLOAD_MAX: usize = 65_535 - IPV4_HEADER - UDP_HEADER;
/// Longest payload of a UDP datagram whose length field can say it.
const UDP_PAYLOAD_MAX: usize = 65_535 - UDP_HEADER;
/// Longest payload that a frame of a capture holds.
pub(crate) const PAYLOAD_MAX: usize =
    FRAME_LENGTH_MAX as usize - ETHERNET_HEADER - IPV6_HEADER - HOP_BY_HOP - UDP_HEADER;

/// A message as a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    /// Time of the frame, ns since 1970 UTC.
    pub(crate) time_ns: u64,
    /// Who sent it: the source address.
    pub(crate) publisher: u64,
    /// Which topic: the group it goes to.
    pub(crate) topic: u32,
    /// Its number: the low 16 bits are IPv4's identification.
    pub(crate) seq: u64,
    /// Source port.
    pub(crate) source_port: u16,
    /// Destination port.
    pub(crate) port: u16,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub(crate) payload: &'a [u8],
}

/// Writes a pcap file; see the module.
#[derive(Debug)]
pub(crate) struct CaptureWriter<W> {
    out: W,
    frame: Vec<u8>,
}

impl<W: Write> CaptureWriter<W> {
    /// Writes the head of the file.
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        let mut head = Vec::with_capacity(24);
        head.extend_from_slice(&PCAP_NANOSECONDS.to_le_bytes());
        head.extend_from_slice(&[2, 0, 4, 0]);
        head.extend_from_slice(&[0; 8]);
        head.extend_from_slice(&FRAME_LENGTH_MAX.to_le_bytes());
        head.extend_from_slice(&ETHERNET.to_le_bytes());
        out.write_all(&head)?;
        Ok(Self {
            out,
            frame: Vec::new(),
        })
    }

    /// Writes one datagram.
    ///
    /// # Panics
    /// With a payload of over [`PAYLOAD_MAX`] bytes, which the caller refused before.
    pub(crate) fn datagram(&mut self, datagram: &Datagram<'_>) -> io::Result<()> {
        assert!(
            datagram.payload.len() <= PAYLOAD_MAX,
            "a frame holds the payload"
        );
        self.frame.clear();
        if datagram.payload.len() <= IPV4_PAYLOAD_MAX {
            ipv4(&mut self.frame, datagram);
        } else {
            ipv6(&mut self.frame, datagram);
        }
        let length = (self.frame.len() as u32).to_le_bytes();
        let seconds = u32::try_from(datagram.time_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let nanoseconds = (datagram.time_ns % 1_000_000_000) as u32;
        let mut head = [0; 16];
        head[..4].copy_from_slice(&seconds.to_le_bytes());
        head[4..8].copy_from_slice(&nanoseconds.to_le_bytes());
        head[8..12].copy_from_slice(&length);
        head[12..].copy_from_slice(&length);
        self.out.write_all(&head)?;
        self.out.write_all(&self.frame)
    }

    /// Whatever it was given to write to.
    pub(crate) const fn out(&self) -> &W {
        &self.out
    }

    /// The same, given back.
    pub(crate) fn into_inner(self) -> W {
        self.out
    }
}

fn ethernet(frame: &mut Vec<u8>, destination: [u8; 6], publisher: u64, ether_type: u16) {
    let [.., a, b, c] = publisher.to_be_bytes();
    frame.extend_from_slice(&destination);
    // Locally administered.
    frame.extend_from_slice(&[0x02, 0, 0, a, b, c]);
    frame.extend_from_slice(&ether_type.to_be_bytes());
}

fn ipv4(frame: &mut Vec<u8>, datagram: &Datagram<'_>) {
    let [.., a, b, c] = datagram.publisher.to_be_bytes();
    let [.., x, y] = datagram.topic.to_be_bytes();
    let (source, destination) = ([10, a, b, c], [239, 192, x, y]);
    // The lower 23 bits of a group are in its link address (RFC 1112).
    ethernet(
        frame,
        [0x01, 0x00, 0x5e, 0x40, x, y],
        datagram.publisher,
        0x0800,
    );
    let length = UDP_HEADER + datagram.payload.len();
    let total = ((IPV4_HEADER + length) as u16).to_be_bytes();
    let [.., id_high, id_low] = datagram.seq.to_be_bytes();
    let start = frame.len();
    frame.extend_from_slice(&[
        0x45, 0, total[0], total[1], id_high, id_low, 0x40, 0, 64, UDP,
    ]);
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&destination);
    let checksum = fold(sum(&frame[start..]));
    frame[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = sum(&source) + sum(&destination) + u64::from(UDP) + length as u64;
    udp(frame, datagram, length as u16, pseudo);
}

fn ipv6(frame: &mut Vec<u8>, datagram: &Datagram<'_>) {
    let [a, b, c, d] = datagram.topic.to_be_bytes();
    ethernet(frame, [0x33, 0x33, a, b, c, d], datagram.publisher, 0x86dd);
    let length = UDP_HEADER + datagram.payload.len();
    let mut source = [0; 16];
    source[0] = 0xfd;
    source[8..].copy_from_slice(&datagram.publisher.to_be_bytes());
    let mut destination = [0; 16];
    destination[..2].copy_from_slice(&[0xff, 0x35]);
    destination[12..].copy_from_slice(&[a, b, c, d]);
    let is_jumbo = datagram.payload.len() > UDP_PAYLOAD_MAX;
    // A jumbo packet's length is 0: the option behind the header has it.
    let (short_length, next) = if is_jumbo {
        (0, 0)
    } else {
        (length as u16, UDP)
    };
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&short_length.to_be_bytes());
    frame.extend_from_slice(&[next, 64]);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&destination);
    if is_jumbo {
        frame.extend_from_slice(&[UDP, 0, 0xc2, 4]);
        frame.extend_from_slice(&((HOP_BY_HOP + length) as u32).to_be_bytes());
    }
    let length_sum = sum(&(length as u32).to_be_bytes());
    let pseudo = sum(&source) + sum(&destination) + u64::from(UDP) + length_sum;
    udp(frame, datagram, short_length, pseudo);
}

fn udp(frame: &mut Vec<u8>, datagram: &Datagram<'_>, length: u16, pseudo: u64) {
    let start = frame.len();
    frame.extend_from_slice(&datagram.source_port.to_be_bytes());
    frame.extend_from_slice(&datagram.port.to_be_bytes());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(datagram.payload);
    let checksum = match fold(pseudo + sum(&frame[start..])) {
        // 0 would mean that there is none.
        0 => 0xffff,
        checksum => checksum,
    };
    frame[start + 6..start + 8].copy_from_slice(&checksum.to_be_bytes());
}

/// Sum of 16-bit words, the last one padded (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |&byte| u64::from(byte) << 8);
    pairs
        .iter()
        .map(|pair| u64::from(u16::from_be_bytes(*pair)))
        .sum::<u64>()
        + last
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::super::{CaptureReader, transport};
    use super::*;

    fn written(payload: &[u8]) -> Vec<u8> {
        let mut writer = CaptureWriter::new(Vec::new()).expect("a vector takes all");
        let datagram = Datagram {
            time_ns: 1_767_605_400_123_456_789,
            publisher: 0x0102_0304,
            topic: 0x0506,
            seq: 0x0708,
            source_port: 9,
            port: 26_400,
            payload,
        };
        writer.datagram(&datagram).expect("a vector takes all");
        writer.into_inner()
    }

    #[test]
    fn a_frame_is_laid_out_as_the_rfcs_say() {
        let bytes = written(b"quote");
        let frame = &bytes[24 + 16..];
        assert_eq!(frame[..6], [0x01, 0x00, 0x5e, 0x40, 5, 6]);
        assert_eq!(frame[14..20], [0x45, 0, 0, 33, 7, 8]);
        assert_eq!(frame[26..34], [10, 2, 3, 4, 239, 192, 5, 6]);
        assert_eq!(frame[34..40], [0, 9, 0x67, 0x20, 0, 13]);
        // A header or datagram with its checksum in place sums up to all ones.
        assert_eq!(fold(sum(&frame[14..34])), 0);
        let pseudo = sum(&frame[26..34]) + u64::from(UDP) + 13;
        assert_eq!(fold(pseudo + sum(&frame[34..])), 0);
        assert_eq!(frame.len(), 14 + 33);
    }

    #[test]
    fn every_length_is_read_back_as_one_message() {
        let lengths = [
            1,
            2,
            IPV4_PAYLOAD_MAX - 1,
            IPV4_PAYLOAD_MAX,
            IPV4_PAYLOAD_MAX + 1,
            UDP_PAYLOAD_MAX,
            UDP_PAYLOAD_MAX + 1,
            65_536,
            PAYLOAD_MAX,
        ];
        for length in lengths {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let bytes = written(&payload);
            let mut reader = CaptureReader::new(&bytes[..]).expect("a capture");
            let frame = reader.next_frame().expect("whole").expect("a frame");
            assert_eq!(frame.time_ns, 1_767_605_400_123_456_789);
            let found = transport(frame.link_type, frame.bytes).expect("a datagram");
            assert_eq!((found.source_port, found.port), (9, 26_400));
            assert!(found.payload == payload, "{length} bytes");
            assert!(reader.next_frame().expect("whole").is_none());
        }
    }

    #[test]
    fn a_jumbo_datagram_sums_up_too() {
        let payload = vec![0xab; 70_001];
        let bytes = written(&payload);
        let packet = &bytes[24 + 16 + ETHERNET_HEADER..];
        assert_eq!(packet[40..44], [UDP, 0, 0xc2, 4]);
        let length = u32::from_be_bytes(packet[44..48].try_into().expect("four bytes"));
        assert_eq!(length as usize, HOP_BY_HOP + UDP_HEADER + payload.len());
        let udp_length = (UDP_HEADER + payload.len()) as u32;
        let pseudo = sum(&packet[8..40]) + u64::from(UDP) + sum(&udp_length.to_be_bytes());
        assert_eq!(fold(pseudo + sum(&packet[48..])), 0);
    }
}
