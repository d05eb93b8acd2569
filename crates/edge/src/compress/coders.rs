//! The coders: what each [`Form`] is made with. Levels were chosen by measuring style sheets, scripts and pages of 10 to
//! 140 KiB; a part of the figures stands in `docs/decisions/0008-encoded-copies.md`.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use semantics::coding::Form;

/// 13 to 70 µs per KiB, and within 2 % of the size of brotli's 5.
const ZSTD_QUICK: i32 = 9;
/// 4 % smaller for 30 to 100 times the time. Its window stays within the 8 MiB of RFC 9659.
const ZSTD_THOROUGH: i32 = 19;
/// 40 to 120 µs per KiB. Below 5, brotli is no better than gzip; above 6, it costs more than it gains until 10.
const BR_QUICK: i32 = 5;
/// 8 to 15 % smaller than 5, in 3 ms per KiB.
const BR_THOROUGH: i32 = 11;
/// 12 to 40 µs per KiB. Level 9 costs twice that and gains less than 1 %.
const GZIP: u32 = 6;

/// The content in a form.
///
/// # Errors
/// A coder's; none is known for content in memory.
pub(super) fn encode(form: Form, content: &[u8]) -> io::Result<Vec<u8>> {
    match form {
        Form::Zstd => zstd::bulk::compress(content, ZSTD_QUICK),
        Form::ZstdThorough => zstd::bulk::compress(content, ZSTD_THOROUGH),
        Form::Br => brotli(content, BR_QUICK),
        Form::BrThorough => brotli(content, BR_THOROUGH),
        Form::Gzip => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 4), Compression::new(GZIP));
            encoder.write_all(content)?;
            encoder.finish()
        }
    }
}

fn brotli(mut content: &[u8], quality: i32) -> io::Result<Vec<u8>> {
    let params = brotli::enc::BrotliEncoderParams { quality, size_hint: content.len(), ..Default::default() };
    let mut encoded = Vec::with_capacity(content.len() / 4);
    brotli::BrotliCompress(&mut content, &mut encoded, &params)?;
    Ok(encoded)
}
