//! The Huffman code of HPACK and QPACK (RFC 7541 §5.2 and Appendix B). It is canonical: the lengths of its codes say
//! everything, so they are all that stands here; the rest is made from them when this is compiled.

/// Bits of the code of each byte.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const LENGTH_MAX: usize = 30;

/// The code as a decoder wants it.
struct Canon {
    /// The bytes in the order of their codes.
    bytes: [u8; 256],
    /// For each length: the first code beyond it, at the left of 32 bits; its first code; where its bytes begin.
    beyond: [u64; LENGTH_MAX + 1],
    first: [u32; LENGTH_MAX + 1],
    begin: [u16; LENGTH_MAX + 1],
    /// What the next eight bits say, where they hold a whole code: the byte, and its length; 0 where they don't.
    short: [(u8, u8); 256],
}

const CANON: Canon = canon();

const fn canon() -> Canon {
    let mut canon = Canon {
        bytes: [0; 256],
        beyond: [0; LENGTH_MAX + 1],
        first: [0; LENGTH_MAX + 1],
        begin: [0; LENGTH_MAX + 1],
        short: [(0, 0); 256],
    };
    let (mut code, mut filled, mut length) = (0_u32, 0, 1);
    while length <= LENGTH_MAX {
        code <<= 1;
        canon.first[length] = code;
        canon.begin[length] = filled as u16;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                canon.bytes[filled] = byte as u8;
                filled += 1;
                if length <= 8 {
                    let mut tail = 0;
                    while tail < 1 << (8 - length) {
                        canon.short[((code as usize) << (8 - length)) | tail] = (byte as u8, length as u8);
                        tail += 1;
                    }
                }
                code += 1;
            }
            byte += 1;
        }
        canon.beyond[length] = (code as u64) << (32 - length);
        length += 1;
    }
    canon
}

/// The text is not one that the code can make, or is padded by something else than the fewest ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadText;

/// Appends what `coded` says: at most 8/5 of its length.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), BadText> {
    // The bits that are next, at the left; `held` of them.
    let (mut bits, mut held) = (0_u64, 0_u32);
    let mut rest = coded.iter();
    loop {
        while held <= 56 {
            let Some(&byte) = rest.next() else { break };
            bits |= u64::from(byte) << (56 - held);
            held += 8;
        }
        if held == 0 {
            return Ok(());
        }
        let next = match CANON.short[(bits >> 56) as usize] {
            (_, 0) => long(bits)?,
            short => Some(short),
        };
        let Some((byte, length)) = next.filter(|&(_, length)| u32::from(length) <= held) else {
            // RFC 7541 §5.2: padding is the first bits of EOS, which are ones, and shorter than a byte.
            return if held < 8 && bits.leading_ones() >= held { Ok(()) } else { Err(BadText) };
        };
        out.push(byte);
        bits <<= length;
        held -= u32::from(length);
    }
}

/// A code of more than eight bits; `None` for thirty ones, which are EOS or longer than what is there.
fn long(bits: u64) -> Result<Option<(u8, u8)>, BadText> {
    let window = bits >> 32;
    let Some(length) = (9..=LENGTH_MAX).find(|&length| window < CANON.beyond[length]) else {
        return Ok(None);
    };
    let code = (window >> (32 - length)) as u32;
    let at = u32::from(CANON.begin[length]) + (code - CANON.first[length]);
    CANON.bytes.get(at as usize).map(|&byte| Some((byte, length as u8))).ok_or(BadText)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes as the RFC says: codes in the order of their lengths, then ones.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for &byte in text {
            let length = usize::from(LENGTHS[usize::from(byte)]);
            let rank = CANON.bytes.iter().position(|&known| known == byte).expect("each byte has a code");
            let code = CANON.first[length] + rank as u32 - u32::from(CANON.begin[length]);
            bits.push_str(&format!("{code:0length$b}"));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let bytes = bits.as_bytes().chunks(8);
        bytes.map(|byte| byte.iter().fold(0, |value, bit| (value << 1) | (bit - b'0'))).collect()
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, BadText> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    /// RFC 7541 §C.4 and §C.6.
    #[test]
    fn texts_of_the_rfc_are_read() {
        let samples: [(&str, &[u8]); 4] = [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("custom-value", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]),
            ("307", &[0x64, 0x0e, 0xff]),
        ];
        for (text, coded) in samples {
            assert_eq!(decoded(coded).as_deref(), Ok(text.as_bytes()));
            assert_eq!(encode(text.as_bytes()), coded);
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)), Ok(all.clone()));
        for byte in all {
            assert_eq!(decoded(&encode(&[byte])), Ok(vec![byte]));
        }
    }

    #[test]
    fn other_padding_and_the_end_of_string_are_refused() {
        // '0' is 00000; its padding must be ones.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(BadText));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(BadText));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(BadText));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(BadText));
    }
}
