//! The challenge-response of a logon: either side shows that it knows the secret without sending it.
//!
//! HMAC-SHA-256 (RFC 2104) over a label, the other side's nonce first, and the message that carries the proof with the
//! proof's own field as zeroes. The two labels differ, so neither side's proof can be played back as the other's.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a proof.
pub const PROOF_LENGTH: usize = 32;
/// Bytes of a nonce.
pub const NONCE_LENGTH: usize = 32;

/// 32 bytes nobody can foretell.
pub type Nonce = [u8; NONCE_LENGTH];
/// An HMAC-SHA-256 value.
pub type Proof = [u8; PROOF_LENGTH];

const LOGON_LABEL: &[u8] = b"relay-logon-v1";
const ACCEPT_LABEL: &[u8] = b"relay-accept-v1";
const PEER_LABEL: &[u8] = b"relay-peer-v1";

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length")
}

fn logon_mac(secret: &[u8], relay: &Nonce, body_without_proof: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed(secret);
    mac.update(LOGON_LABEL);
    mac.update(relay);
    mac.update(body_without_proof);
    mac
}

fn accept_mac(secret: &[u8], client: &Nonce, relay: &Nonce, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed(secret);
    mac.update(ACCEPT_LABEL);
    mac.update(client);
    mac.update(relay);
    mac.update(body);
    mac
}

fn over_parts(secret: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = keyed(secret);
    for part in parts {
        mac.update(part);
    }
    mac
}

/// The proof over `parts` one after the other; the first is the label.
pub(crate) fn over(secret: &[u8], parts: &[&[u8]]) -> Proof {
    over_parts(secret, parts).finalize().into_bytes().into()
}

/// Whether `proof` is the one over `parts`; compared in constant time.
pub(crate) fn over_holds(secret: &[u8], parts: &[&[u8]], proof: &Proof) -> bool {
    over_parts(secret, parts).verify_slice(proof).is_ok()
}

/// The client's proof for a LOGON whose body, proof zeroed, is given.
#[must_use]
pub fn logon(secret: &[u8], relay: &Nonce, body_without_proof: &[u8]) -> Proof {
    logon_mac(secret, relay, body_without_proof)
        .finalize()
        .into_bytes()
        .into()
}

/// The relay's proof for a LOGON_ACK whose body, proof zeroed, is given.
#[must_use]
pub fn accept(secret: &[u8], client: &Nonce, relay: &Nonce, body_without_proof: &[u8]) -> Proof {
    accept_mac(secret, client, relay, body_without_proof)
        .finalize()
        .into_bytes()
        .into()
}

/// Whether `proof` is the client's; compared in constant time.
#[must_use]
pub fn logon_holds(secret: &[u8], relay: &Nonce, body_without_proof: &[u8], proof: &Proof) -> bool {
    logon_mac(secret, relay, body_without_proof)
        .verify_slice(proof)
        .is_ok()
}

/// Whether `proof` is the relay's; compared in constant time.
#[must_use]
pub fn accept_holds(
    secret: &[u8],
    client: &Nonce,
    relay: &Nonce,
    body_without_proof: &[u8],
    proof: &Proof,
) -> bool {
    accept_mac(secret, client, relay, body_without_proof)
        .verify_slice(proof)
        .is_ok()
}

/// A node's proof towards a peer, over both HELLO messages; see [`crate::peer::prove`].
pub(crate) fn peer(secret: &[u8], is_dialer: bool, dialer: &[u8], acceptor: &[u8]) -> Proof {
    let mut mac = keyed(secret);
    mac.update(PEER_LABEL);
    mac.update(&[if is_dialer { 1 } else { 2 }]);
    mac.update(dialer);
    mac.update(acceptor);
    mac.finalize().into_bytes().into()
}

/// Whether two proofs are the same, in a time that does not depend on where they differ.
#[must_use]
pub fn is_same(a: &Proof, b: &Proof) -> bool {
    a.iter()
        .zip(b)
        .fold(0, |differing, (a, b)| differing | (a ^ b))
        == 0
}
