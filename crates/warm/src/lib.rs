//! Which URLs to fetch beforehand: read from sitemaps and lists. Bytes in, URLs out; no files and no network, so
//! that `perigee warm` and the fuzzer see the same.
//!
//! Whatever is read is foreign: each reader has a limit for what it takes, and leaves out what is no URL.

mod list;
mod sitemap;
mod url;

pub use list::urls_of_list;
pub use sitemap::{LOCATIONS_MAX, SITEMAP_BYTES_MAX, Sitemap, Unreadable, read_sitemap};
pub use url::{URL_BYTES_MAX, Url};

/// Reads what is compressed by gzip (RFC 1952), and anything else as it is; of both at most `bytes_max` bytes.
///
/// # Errors
/// It is longer, or no gzip although it begins so: a part of a sentence.
pub fn inflated(bytes: &[u8], bytes_max: usize) -> Result<std::borrow::Cow<'_, [u8]>, String> {
    use std::io::Read;
    let too_long = || format!("is longer than {bytes_max} bytes");
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return match bytes.len() <= bytes_max {
            true => Ok(bytes.into()),
            false => Err(too_long()),
        };
    }
    let mut text = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(bytes_max as u64 + 1);
    reader.read_to_end(&mut text).map_err(|error| format!("cannot be uncompressed: {error}"))?;
    match text.len() <= bytes_max {
        true => Ok(text.into()),
        false => Err(too_long()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn gzip_is_read_up_to_a_limit_and_a_bomb_costs_no_more() {
        let pack = |text: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            packer.write_all(text).unwrap();
            packer.finish().unwrap()
        };
        assert_eq!(&*inflated(b"plain", 5).unwrap(), b"plain");
        assert_eq!(&*inflated(&pack(b"packed"), 6).unwrap(), b"packed");
        assert_eq!(inflated(b"plain!", 5).unwrap_err(), "is longer than 5 bytes");
        assert_eq!(inflated(&pack(&[b'a'; 10 << 20]), 1 << 20).unwrap_err(), "is longer than 1048576 bytes");
        let cut = &pack(b"packed")[..12];
        assert!(inflated(cut, 100).unwrap_err().starts_with("cannot be uncompressed"));
    }
}
