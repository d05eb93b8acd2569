//! Signatures of a zone: one key (a CSK) of ECDSA P-256 with SHA-256 (RFC 6605), and what says so in the zone: DNSKEY, CDS, CDNSKEY.
//!
//! Distinct answers are few, so each is signed when it is first asked for and kept by the responder; see `respond`.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::wire::label_count;

/// How long a signature holds. Long enough to outlive a weekend without this process, as secondaries may keep answers.
pub const VALIDITY_SECS: u32 = 4 * 86_400;
/// A signature is made anew after so much of it: three quarters.
pub const RENEW_SECS: u32 = 3 * 86_400;
/// How far clocks of validators may be behind.
const SKEW_SECS: u32 = 3_600;
const ALGORITHM: u8 = 13;

/// A zone's key.
pub struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    zone: Vec<u8>,
    tag: u16,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// A key that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey;

impl Signer {
    /// A new key, as PKCS #8: to be kept, with the mode of a secret.
    pub fn generate() -> Result<Vec<u8>, BadKey> {
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        key.map(|document| document.as_ref().to_vec()).map_err(|_| BadKey)
    }

    /// With a key from [`Signer::generate`]. `zone`: its name on the wire, lower-case.
    pub fn new(pkcs8: &[u8], zone: &[u8]) -> Result<Signer, BadKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| BadKey)?;
        let mut signer = Signer { pair, random: SystemRandom::new(), zone: zone.to_vec(), tag: 0 };
        signer.tag = key_tag(&signer.dnskey());
        Ok(signer)
    }

    /// The content of DNSKEY and CDNSKEY: a key that signs zone and keys (257).
    pub fn dnskey(&self) -> Vec<u8> {
        let mut data = vec![1, 1, 3, ALGORITHM];
        // The point without the byte that says it is not compressed (RFC 6605 §4).
        data.extend(self.pair.public_key().as_ref().iter().skip(1));
        data
    }

    /// The content of CDS, and of the DS record that the parent needs (RFC 4034 §5.1.4, digest type 2).
    pub fn ds(&self) -> Vec<u8> {
        let mut covered = self.zone.clone();
        covered.extend(self.dnskey());
        let mut data = self.tag.to_be_bytes().to_vec();
        data.extend([ALGORITHM, 2]);
        data.extend(digest(&SHA256, &covered).as_ref());
        data
    }

    /// The content of RRSIG over a set of records (RFC 4034 §3.1.8.1). `owner`: on the wire, lower-case; `records`: contents
    /// in canonical form, in any order. `now_secs`: since 1970.
    pub fn rrsig(
        &self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        records: &[Vec<u8>],
        now_secs: u32,
    ) -> Option<Vec<u8>> {
        let mut data = rtype.to_be_bytes().to_vec();
        data.extend([ALGORITHM, label_count(owner)]);
        data.extend(ttl.to_be_bytes());
        data.extend(now_secs.wrapping_add(VALIDITY_SECS).to_be_bytes());
        data.extend(now_secs.wrapping_sub(SKEW_SECS).to_be_bytes());
        data.extend(self.tag.to_be_bytes());
        data.extend(&self.zone);
        let mut covered = data.clone();
        let mut ordered: Vec<&Vec<u8>> = records.iter().collect();
        ordered.sort_unstable();
        ordered.dedup();
        for record in ordered {
            crate::wire::write_record(&mut covered, owner, rtype, ttl, record);
        }
        let signature = self.pair.sign(&self.random, &covered).ok()?;
        data.extend(signature.as_ref());
        Some(data)
    }
}

/// RFC 4034 appendix B.
fn key_tag(dnskey: &[u8]) -> u16 {
    let sum = dnskey.iter().enumerate().fold(0u32, |sum, (index, byte)| {
        sum + if index % 2 == 0 { u32::from(*byte) << 8 } else { u32::from(*byte) }
    });
    (sum + (sum >> 16)) as u16
}

/// The content of NSEC for a name of which nothing else is to be said: the next name is the first possible one (RFC 9824 §3).
/// `types`: those that there are, ascending or not. `None` when there is no longer name.
pub fn nsec(name: &[u8], types: &[u16]) -> Option<Vec<u8>> {
    if name.len() + 2 > crate::wire::NAME_BYTES_MAX {
        return None;
    }
    let mut data = vec![1, 0];
    data.extend(name);
    let mut sorted = types.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    for window in sorted.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bitmap = [0u8; 32];
        let mut used = 0;
        for rtype in window {
            let low = usize::from(rtype & 0xff);
            bitmap[low / 8] |= 0x80 >> (low % 8);
            used = low / 8 + 1;
        }
        data.extend([(window[0] >> 8) as u8, used as u8]);
        data.extend(&bitmap[..used]);
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_has_a_window_per_256_types() {
        let data = nsec(b"\x01a\0", &[257, 1, 46, 47]).unwrap();
        assert_eq!(data, *b"\x01\0\x01a\0\x00\x06\x40\0\0\0\0\x03\x01\x01\x40");
    }

    #[test]
    fn the_key_tag_is_that_of_the_rfc() {
        // RFC 6605 §6.1: example.net, key tag 55648.
        let key = "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==";
        let mut dnskey = vec![1, 1, 3, 13];
        dnskey.extend(decode_base64(key));
        assert_eq!(key_tag(&dnskey), 55648);
    }

    fn decode_base64(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits: Vec<u32> = text
            .bytes()
            .filter_map(|byte| ALPHABET.iter().position(|one| *one == byte))
            .map(|at| at as u32)
            .collect();
        let mut out = Vec::new();
        for chunk in bits.chunks(4) {
            let word = chunk.iter().fold(0, |word, six| word << 6 | six) << (6 * (4 - chunk.len()));
            out.extend(&word.to_be_bytes()[1..chunk.len()]);
        }
        out
    }
}
