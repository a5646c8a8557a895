//! From a frame to the payload of its UDP datagram or TCP segment.

/// A payload and where it was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transport<'a> {
    /// Source port.
    pub(crate) source_port: u16,
    /// Destination port.
    pub(crate) port: u16,
    /// At least one byte.
    pub(crate) payload: &'a [u8],
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_FRAGMENT: u8 = 44;

/// The IP packet in a frame, behind the link's header.
fn packet(link_type: u32, frame: &[u8]) -> Option<&[u8]> {
    match link_type {
        // Ethernet.
        1 => ethernet(frame),
        // Loopback: a 4-byte family before the packet, whose version nibble says more.
        0 | 108 => frame.get(4..),
        // IP without a link.
        12 | 14 | 101 | 228 | 229 => Some(frame),
        // Linux "cooked", both versions.
        113 => frame.get(16..),
        276 => frame.get(20..),
        _ => None,
    }
}

/// Whether a frame holds a part of an IP packet that was sent in several: its message is not put together here.
pub(crate) fn is_fragment(link_type: u32, frame: &[u8]) -> bool {
    let Some(packet) = packet(link_type, frame) else {
        return false;
    };
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let is_part = u16_at(packet, 6).is_some_and(|flags| flags & 0x3fff != 0);
            is_part && matches!(packet.get(9), Some(&(TCP | UDP)))
        }
        Some(6) => behind_options(packet).is_some_and(|(next, _)| next == IPV6_FRAGMENT),
        _ => false,
    }
}

/// The payload of a frame; nothing for anything but whole UDP datagrams and TCP segments with data.
pub(crate) fn transport(link_type: u32, frame: &[u8]) -> Option<Transport<'_>> {
    let packet = packet(link_type, frame)?;
    let (protocol, segment) = match packet.first()? >> 4 {
        4 => ipv4(packet)?,
        6 => ipv6(packet)?,
        _ => return None,
    };
    let transport = match protocol {
        UDP => udp(segment)?,
        TCP => tcp(segment)?,
        _ => return None,
    };
    (!transport.payload.is_empty()).then_some(transport)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// The packet in an Ethernet frame, behind any VLAN tags.
fn ethernet(frame: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    loop {
        match u16_at(frame, at)? {
            0x8100 | 0x88a8 | 0x9100 => at += 4,
            0x0800 | 0x86dd => return frame.get(at + 2..),
            _ => return None,
        }
    }
}

fn ipv4(packet: &[u8]) -> Option<(u8, &[u8])> {
    let header = usize::from(packet[0] & 0x0f) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    let is_fragment = u16_at(packet, 6)? & 0x3fff != 0;
    // A total length of 0 is left by segmentation offload: the frame's end is the packet's.
    let end = if total == 0 { packet.len() } else { total };
    if header < 20 || is_fragment {
        return None;
    }
    Some((*packet.get(9)?, packet.get(header..end)?))
}

fn ipv6(packet: &[u8]) -> Option<(u8, &[u8])> {
    let length = usize::from(u16_at(packet, 4)?);
    let end = if length == 0 {
        packet.len()
    } else {
        40 + length
    };
    let (next, at) = behind_options(packet)?;
    Some((next, packet.get(at..end)?))
}

/// What stands behind an IPv6 packet's hop-by-hop options, routing and destination options, and where. A fragment is none of them.
fn behind_options(packet: &[u8]) -> Option<(u8, usize)> {
    let (mut next, mut at) = (*packet.get(6)?, 40);
    while matches!(next, 0 | 43 | 60) {
        next = *packet.get(at)?;
        at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
    }
    Some((next, at))
}

fn udp(segment: &[u8]) -> Option<Transport<'_>> {
    let length = match u16_at(segment, 4)? {
        // A jumbo datagram (RFC 2675) is longer than this field can say: it goes to the packet's end.
        0 if segment.len() > usize::from(u16::MAX) => segment.len(),
        length => usize::from(length),
    };
    Some(Transport {
        source_port: u16_at(segment, 0)?,
        port: u16_at(segment, 2)?,
        payload: segment.get(8..length)?,
    })
}

fn tcp(segment: &[u8]) -> Option<Transport<'_>> {
    let header = usize::from(segment.get(12)? >> 4) * 4;
    if header < 20 {
        return None;
    }
    Some(Transport {
        source_port: u16_at(segment, 0)?,
        port: u16_at(segment, 2)?,
        payload: segment.get(header..)?,
    })
}
