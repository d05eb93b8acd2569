//! HTTP/3 on the wire (RFC 9114) and its header compression (QPACK, RFC 9204), as functions on bytes: frames are cut out of
//! streams, field sections become lines and lines a section. No IO: [`crate::connection`] reads and writes, `quinn` speaks
//! QUIC.
//!
//! Of QPACK there is the static table and Huffman coding, no dynamic table in either direction: our settings allow none
//! to the visitor's encoder, and we make none use of the visitor's. So no stream ever waits for another, and what a
//! connection can make us remember is nothing.
//!
//! What is not supported: server push, and CONNECT but for WebSocket (RFC 9220).

pub(crate) mod frames;
mod huffman;
pub(crate) mod priority;
pub(crate) mod qpack;
pub(crate) mod request;
mod static_table;

/// Why a stream or a connection ends (RFC 9114 §8.1, RFC 9204 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the RFCs'")]
pub(crate) enum Code {
    NoError = 0x100,
    InternalError = 0x102,
    StreamCreationError = 0x103,
    ClosedCriticalStream = 0x104,
    FrameUnexpected = 0x105,
    FrameError = 0x106,
    ExcessiveLoad = 0x107,
    IdError = 0x108,
    SettingsError = 0x109,
    MissingSettings = 0x10a,
    RequestRejected = 0x10b,
    RequestCancelled = 0x10c,
    QpackDecompressionFailed = 0x200,
    QpackEncoderStreamError = 0x201,
    QpackDecoderStreamError = 0x202,
}

/// Reads a variable-length integer (RFC 9000 §16): its value and its length in bytes; `None` if it is cut short.
pub(crate) fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, &byte| (value << 8) | u64::from(byte));
    Some((value, length))
}

/// Appends a variable-length integer, in the least room. Values from 2^62 on can't be told, and become the largest.
pub(crate) fn write_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value.min(VARINT_MAX) | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// The largest variable-length integer.
pub(crate) const VARINT_MAX: u64 = (1 << 62) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 §A.1.
    #[test]
    fn varints_are_those_of_the_rfc() {
        let samples: [(&[u8], u64); 4] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (bytes, value) in samples {
            assert_eq!(read_varint(bytes), Some((value, bytes.len())));
            assert_eq!(read_varint(&bytes[..bytes.len() - 1]), None);
            let mut written = Vec::new();
            write_varint(&mut written, value);
            assert_eq!(written, bytes);
        }
        assert_eq!(read_varint(&[0x40, 0x25]), Some((37, 2)));
    }
}
