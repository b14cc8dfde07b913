//! The one door to random bytes, the text form of keys, and comparison of secrets.
//!
//! Other rooms never name the crate behind it. What is here is what a server without TLS and without
//! nkey logins needs.

#![forbid(unsafe_code)]

use std::io;

/// `N` bytes from the system's secure random source.
///
/// Errors only where that source is missing (for example an early boot environment without
/// `getrandom` and without `/dev/urandom`).
pub fn random_array<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("no random bytes: {error}")))?;
    Ok(bytes)
}

/// Prefix byte of a server's key: 13 in the upper five bits, which base32 writes as `N`.
const NKEY_PREFIX_SERVER: u8 = 13 << 3;

/// A new server id: 56 characters in the form of a public nkey, beginning with `N`.
///
/// The 32 key bytes are random instead of an Ed25519 public key: nothing checks a signature by this
/// key, and clients only use it as a name. Source: core-protocol section 9.4.
pub fn server_id() -> io::Result<String> {
    Ok(nkey_public(NKEY_PREFIX_SERVER, &random_array()?))
}

/// The text form of a public key:
///
/// ```text
///   1 byte   32 bytes   2 bytes
/// ┌────────┬──────────┬──────────────────────────────┐
/// │ prefix │ key      │ CRC-16 of both, little endian │  → base32, 35 × 8 / 5 = 56 characters
/// └────────┴──────────┴──────────────────────────────┘
/// ```
fn nkey_public(prefix: u8, key: &[u8; 32]) -> String {
    let mut raw = [0; 35];
    raw[0] = prefix;
    raw[1..33].copy_from_slice(key);
    let crc = crc16_xmodem(&raw[..33]);
    raw[33..].copy_from_slice(&crc.to_le_bytes());
    base32(&raw)
}

/// CRC-16/XMODEM: polynomial 0x1021, start 0, no reflection. Bit by bit, as it runs once a start.
fn crc16_xmodem(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

/// Base32 of RFC 4648 without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for group in bytes.chunks(5) {
        let mut padded = [0; 8];
        padded[3..3 + group.len()].copy_from_slice(group);
        let bits = u64::from_be_bytes(padded);
        for index in 0..(group.len() * 8).div_ceil(5) {
            let letter = bits >> (35 - 5 * index) & 31;
            text.push(char::from(ALPHABET[letter as usize]));
        }
    }
    text
}

/// Whether `presented` equals `secret`, in a time that depends on the length of `presented` only:
/// neither on where the two differ nor on how long the secret is.
pub fn equals_secret(secret: &[u8], presented: &[u8]) -> bool {
    let mut difference = u8::from(secret.len() != presented.len());
    let mut index = 0;
    for byte in presented {
        // The index is reset by a mask instead of `%`, whose time can depend on its operands.
        difference |= byte ^ secret.get(index).copied().unwrap_or(0);
        let in_range = usize::from(index + 1 < secret.len());
        index = (index + 1) & in_range.wrapping_neg();
        // Keeps the compiler from leaving the loop once the result is known.
        difference = std::hint::black_box(difference);
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 section 10, padding removed.
    #[test]
    fn base32_of_the_rfc_vectors() {
        for (bytes, expected) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), expected);
        }
    }

    /// The check value that catalogues of CRCs give for this one.
    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc16_xmodem(b"123456789"), 0x31c3);
        assert_eq!(crc16_xmodem(b""), 0);
    }

    /// A user key from the public documentation of NATS and an id that nats-server 2.15.1 gave
    /// itself, with the key bytes they decode to.
    #[test]
    fn nkey_of_known_keys() {
        for (prefix, hex, expected) in [
            (
                20 << 3,
                "ef4e44524b72e440f96dae7bba237c6666a40701cb1365a42244f84e7a67dab1",
                "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
            ),
            (
                NKEY_PREFIX_SERVER,
                "85ad41e078342e6e5cc0827fa110611de61a250d85e0f52e239557314db393af",
                "NCC22QPAPA2C43S4YCBH7IIQMEO6MGRFBWC6B5JOEOKVOMKNWOJ276VF",
            ),
        ] {
            let mut key = [0; 32];
            for (byte, digits) in key.iter_mut().zip(hex.as_bytes().chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
            }
            assert_eq!(nkey_public(prefix, &key), expected);
        }
    }

    #[test]
    fn server_ids_have_the_form_and_differ() {
        let id = server_id().unwrap();
        assert_eq!(id.len(), 56);
        assert!(id.starts_with('N'), "{id}");
        assert_ne!(id, server_id().unwrap());
    }

    #[test]
    fn equals_secret_is_equality() {
        let texts = ["", "a", "b", "aa", "ab", "ba", "aaa", "aba", "\0", "a\0"];
        for secret in texts {
            for presented in texts {
                assert_eq!(
                    equals_secret(secret.as_bytes(), presented.as_bytes()),
                    secret == presented,
                    "{secret:?} {presented:?}"
                );
            }
        }
    }
}
