//! Goal: every capture that tcpdump and wireshark write is read, and none that is damaged makes more than an error.
//! Method: files are laid out here byte by byte, in both byte orders, then cut at every byte and changed at every byte.

use super::frame::Transport;
use super::*;

const PAYLOAD: &[u8] = b"8=FIX.4.2";

/// An Ethernet frame with one VLAN tag and a UDP datagram to port 7001.
fn udp_frame() -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend_from_slice(&[0x81, 0, 0, 5, 0x08, 0]);
    let total = 20 + 8 + PAYLOAD.len() as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend_from_slice(&[0x12, 0x34, 0x1b, 0x59]);
    frame.extend_from_slice(&(8 + PAYLOAD.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(PAYLOAD);
    frame
}

struct Layout {
    bytes: Vec<u8>,
    is_big_endian: bool,
}

impl Layout {
    fn u16(&mut self, value: u16) -> &mut Self {
        let swapped = if self.is_big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.bytes.extend_from_slice(&swapped);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        let swapped = if self.is_big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.bytes.extend_from_slice(&swapped);
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }
}

fn pcap(is_big_endian: bool, magic: u32, fraction: u32) -> Vec<u8> {
    let mut file = Layout {
        bytes: Vec::new(),
        is_big_endian,
    };
    file.u32(magic)
        .u16(2)
        .u16(4)
        .u32(0)
        .u32(0)
        .u32(65_535)
        .u32(1);
    for seconds in [10, 11] {
        let frame = udp_frame();
        let length = frame.len() as u32;
        file.u32(seconds).u32(fraction).u32(length).u32(length);
        file.bytes.extend_from_slice(&frame);
    }
    file.bytes
}

fn pcapng(is_big_endian: bool) -> Vec<u8> {
    let mut file = Layout {
        bytes: Vec::new(),
        is_big_endian,
    };
    file.u32(PCAPNG_SECTION)
        .u32(28)
        .u32(PCAPNG_BYTE_ORDER)
        .u16(1)
        .u16(0);
    file.u32(u32::MAX).u32(u32::MAX).u32(28);
    // An interface whose clock counts nanoseconds.
    file.u32(PCAPNG_INTERFACE).u32(32).u16(1).u16(0).u32(0);
    file.u16(9).u16(1).bytes(&[9]).u16(0).u16(0).u32(32);
    // A name resolution block, to be passed over.
    file.u32(4).u32(16).u32(0).u32(16);
    let frame = udp_frame();
    let padded = frame.len().next_multiple_of(4) as u32;
    for seconds in [10u64, 11] {
        let time = seconds * 1_000_000_000 + 7;
        file.u32(PCAPNG_ENHANCED_PACKET).u32(32 + padded).u32(0);
        file.u32((time >> 32) as u32).u32(time as u32);
        file.u32(frame.len() as u32)
            .u32(frame.len() as u32)
            .bytes(&frame)
            .u32(32 + padded);
    }
    file.bytes
}

/// Time, destination port and payload.
type Packet = (u64, u16, Vec<u8>);

/// What is read up to the end or the first error.
fn read(file: &[u8]) -> (Vec<Packet>, Option<CaptureError>) {
    let mut found = Vec::new();
    let mut reader = match CaptureReader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (found, Some(error)),
    };
    loop {
        match reader.next_frame() {
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
            Ok(Some(frame)) => {
                if let Some(transport) = transport(frame.link_type, frame.bytes) {
                    found.push((frame.time_ns, transport.port, transport.payload.to_vec()));
                }
            }
        }
    }
}

fn files() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for is_big_endian in [false, true] {
        files.push(pcap(is_big_endian, PCAP_MICROSECONDS, 1));
        files.push(pcap(is_big_endian, PCAP_NANOSECONDS, 1_000));
        files.push(pcapng(is_big_endian));
    }
    files
}

#[test]
fn every_format_in_both_byte_orders() {
    for (index, file) in files().iter().enumerate() {
        let (found, error) = read(file);
        assert!(error.is_none(), "file {index}: {error:?}");
        let fraction = if index % 3 == 2 { 7 } else { 1_000 };
        let expected: Vec<_> = [10, 11]
            .map(|s| (s * 1_000_000_000 + fraction, 7001, PAYLOAD.to_vec()))
            .into();
        assert_eq!(found, expected, "file {index}");
    }
}

/// A frame of which only a part was captured is no message: it is told, not passed over.
#[test]
fn a_frame_that_was_cut_is_told() {
    let frame = udp_frame().len() as u32;
    for (mut file, original) in [
        (pcap(false, PCAP_MICROSECONDS, 1), 24 + 12),
        (pcapng(false), 28 + 32 + 16 + 24),
    ] {
        let longer = frame + 1;
        file[original..original + 4].copy_from_slice(&longer.to_le_bytes());
        let (found, error) = read(&file);
        assert!(found.is_empty());
        let error = error.expect("the first frame is cut");
        assert!(matches!(error, CaptureError::Cut { captured, .. } if captured == frame));
        assert!(error.to_string().contains("tcpdump -s 0"), "{error}");
    }
}

#[test]
fn a_file_cut_anywhere_gives_what_is_whole_and_then_an_error_or_the_end() {
    for file in files() {
        let whole = read(&file).0;
        for end in 0..file.len() {
            let (found, error) = read(&file[..end]);
            assert!(whole.starts_with(&found), "cut at {end}");
            if found.is_empty() && end < 24 {
                assert!(error.is_some(), "cut at {end}");
            }
        }
        assert!(matches!(
            read(&file[..file.len() - 1]).1,
            Some(CaptureError::Truncated { .. })
        ));
    }
}

/// No byte of a capture may lead to a panic or to a frame of more bytes than the file has.
#[test]
fn a_changed_byte_never_does_more_than_an_error() {
    for file in files() {
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] = value;
                let (found, _) = read(&changed);
                assert!(found.len() <= 2);
            }
        }
    }
}

#[test]
fn garbage_is_named() {
    for garbage in [&b""[..], b"abc", b"#!/bin/sh\n", &[0; 100], &[0xff; 100]] {
        assert!(matches!(read(garbage).1, Some(CaptureError::NotACapture)));
    }
    let mut long = pcap(false, PCAP_MICROSECONDS, 1);
    long[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        read(&long).1,
        Some(CaptureError::Damaged { at: 32, .. })
    ));
}

#[test]
fn tcp_over_ipv6_and_what_is_passed_over() {
    let mut frame = vec![0; 12];
    frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend_from_slice(&(8 + 20 + PAYLOAD.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[60, 64]);
    frame.extend_from_slice(&[0; 32]);
    frame.extend_from_slice(&[6, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&[
        0x12, 0x34, 0x00, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0,
    ]);
    frame.extend_from_slice(&[0, 0, 0, 0]);
    let bare = frame.len();
    frame.extend_from_slice(PAYLOAD);
    let expected = Some(Transport {
        source_port: 0x1234,
        port: 80,
        payload: PAYLOAD,
    });
    assert_eq!(transport(1, &frame), expected);
    assert_eq!(transport(101, &frame[14..]), expected);
    assert_eq!(transport(147, &frame), None, "an unknown link");
    frame.truncate(bare);
    assert_eq!(transport(1, &frame), None, "shorter than it says");

    let mut fragment = udp_frame();
    fragment[18 + 6] = 0x20;
    assert_eq!(transport(1, &fragment), None, "a fragment");
    for end in 0..udp_frame().len() {
        assert_eq!(transport(1, &udp_frame()[..end]), None, "cut at {end}");
    }
}

#[test]
fn a_part_of_a_packet_is_known_as_one() {
    let whole = udp_frame();
    assert!(!is_fragment(1, &whole));
    for flags in [0x2000_u16, 0x0001, 0x1fff] {
        let mut part = whole.clone();
        part[18 + 6..18 + 8].copy_from_slice(&flags.to_be_bytes());
        assert!(is_fragment(1, &part), "{flags:x}");
        assert_eq!(transport(1, &part), None);
    }
    let mut unsplit = whole;
    unsplit[18 + 6..18 + 8].copy_from_slice(&0x4000_u16.to_be_bytes());
    assert!(!is_fragment(1, &unsplit), "it only says: don't");
}
