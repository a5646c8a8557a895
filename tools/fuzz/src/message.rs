//! The codec of session messages: what decodes encodes to the same bytes.

use relay_wire::checksum::{crc32c, crc32c_append};
use relay_wire::message::{Message, MessageError, TEXT_LENGTH_MAX};
use relay_wire::{PROTOCOL_VERSION, stride};

/// Decodes `data` as it is, then with length, version and checksum that fit, so that the bodies are reached.
pub fn run(data: &[u8]) {
    round_trip(data);
    if let Some(fitting) = with_fitting_header(data) {
        round_trip(&fitting);
    }
}

fn with_fitting_header(data: &[u8]) -> Option<Vec<u8>> {
    let mut item = data.to_vec();
    let length = u32::try_from(item.len()).ok()?;
    item.get_mut(..16)?;
    item[..4].copy_from_slice(&length.to_le_bytes());
    item[4] |= 128;
    item[5] = PROTOCOL_VERSION;
    item[6..8].fill(0);
    item[12..16].fill(0);
    let checksum = crc32c_append(crc32c(&item[..8]), &item[12..]);
    item[8..12].copy_from_slice(&checksum.to_le_bytes());
    Some(item)
}

fn round_trip(item: &[u8]) {
    let message = match Message::decode(item) {
        Ok(message) => message,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    if let Message::Subscribe(subscribe) = &message {
        assert_eq!(subscribe.patterns.iter().count(), subscribe.patterns.len());
    }
    let text_length = match &message {
        Message::Terminate(terminate) => terminate.text.len(),
        Message::Reject(reject) => reject.text.len(),
        _ => 0,
    };
    let bytes = message.to_vec().expect("what was decoded can be encoded");
    if text_length > TEXT_LENGTH_MAX {
        // A text longer than the relay's own is taken in and cut when it is said again.
        assert!(Message::decode(&bytes[..unpadded(&bytes)]).is_ok());
        return;
    }
    assert_eq!(bytes.len(), stride(item.len()));
    assert_eq!(&bytes[..item.len()], item, "{message:?}");
    assert!(bytes[item.len()..].iter().all(|&byte| byte == 0));
    let mut short = vec![0; bytes.len() - 1];
    assert_eq!(
        message.encode(&mut short),
        Err(MessageError::NoRoom(bytes.len()))
    );
}

fn unpadded(bytes: &[u8]) -> usize {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}
