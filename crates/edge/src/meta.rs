//! What the disk tier keeps of an entry beside its body, as bytes: written here, read back here, and by `perigee store`.
//!
//! ```text
//!  0 1  version
//!  1 1  form: 1 whole response, 2 response in slices, 3 variant index, 4 slice
//!  1, 2:  facts 40 │ position 8 │ tags: count 2, 8 each │ head: length 4, block │ URL: length 2, text
//!     2:  then slices' id 16 │ length of the whole body 8
//!  3:  generation 8 │ Vary lists: count 1, each length 2 and text │ URL: length 2, text
//!  4:  nothing
//! ```
//!
//! Numbers are little-endian. The URL is for people: nothing is looked up by it. Bytes come from a disk and may be anything;
//! what cannot have been written here is `None`, and a miss.

use semantics::vary::VarySpec;
use semantics::{Facts, Fields};

use crate::object::{SPECS_MAX, Variants};

const VERSION: u8 = 1;

/// Most bytes of a URL that are noted.
const URL_BYTES_MAX: usize = 1024;

/// What stands beside a body.
pub(crate) enum Meta {
    Response(ResponseMeta),
    Variants(Variants, String),
    Slice,
}

/// What is known of a stored response.
pub(crate) struct ResponseMeta {
    pub(crate) facts: Facts,
    pub(crate) position: u64,
    pub(crate) tags: Vec<u64>,
    pub(crate) head: Fields,
    pub(crate) url: String,
    /// Where the body is, if it is not beside the meta: id of its slices, and its length.
    pub(crate) slices: Option<(u128, u64)>,
}

impl Meta {
    /// The meta of every slice.
    pub(crate) const SLICE: &[u8] = &[VERSION, 4];

    pub(crate) fn parse(bytes: &[u8]) -> Option<Meta> {
        let mut reader = Reader(bytes);
        let [VERSION, form] = reader.array()? else { return None };
        let meta = match form {
            1 | 2 => {
                let facts = Facts::from_bytes(&reader.array()?)?;
                let position = reader.u64()?;
                let count = reader.u16()?;
                let tags = (0..count).map(|_| reader.u64()).collect::<Option<_>>()?;
                let length = reader.u32()?;
                let block = reader.take(length as usize)?;
                let head = Fields::from_block(block);
                // A block that was not made by `Fields` is not sent to anybody.
                (head.as_block() == block).then_some(())?;
                let url = reader.text()?;
                let slices = match form {
                    2 => Some((u128::from_le_bytes(reader.array()?), reader.u64()?)),
                    _ => None,
                };
                Meta::Response(ResponseMeta { facts, position, tags, head, url, slices })
            }
            3 => {
                let generation = reader.u64()?;
                let [count] = reader.array()?;
                let specs: Vec<VarySpec> = (0..count)
                    .map(|_| {
                        let length = reader.u16()?;
                        VarySpec::from_bytes(reader.take(usize::from(length))?)
                    })
                    .collect::<Option<_>>()?;
                (1..=SPECS_MAX).contains(&specs.len()).then_some(())?;
                Meta::Variants(Variants { generation, specs }, reader.text()?)
            }
            4 => Meta::Slice,
            _ => return None,
        };
        reader.0.is_empty().then_some(meta)
    }
}

impl ResponseMeta {
    pub(crate) fn write(&self) -> Vec<u8> {
        let block = self.head.as_block();
        let mut out = Vec::with_capacity(128 + block.len() + 8 * self.tags.len() + self.url.len());
        out.extend_from_slice(&[VERSION, if self.slices.is_some() { 2 } else { 1 }]);
        out.extend_from_slice(&self.facts.to_bytes());
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(&(self.tags.len() as u16).to_le_bytes());
        self.tags.iter().for_each(|tag| out.extend_from_slice(&tag.to_le_bytes()));
        out.extend_from_slice(&(block.len() as u32).to_le_bytes());
        out.extend_from_slice(block);
        write_text(&mut out, &self.url);
        if let Some((id, length)) = self.slices {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
        }
        out
    }
}

impl Variants {
    pub(crate) fn write(&self, url: &str) -> Vec<u8> {
        let mut out = vec![VERSION, 3];
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.push(self.specs.len() as u8);
        for spec in &self.specs {
            out.extend_from_slice(&(spec.as_bytes().len() as u16).to_le_bytes());
            out.extend_from_slice(spec.as_bytes());
        }
        write_text(&mut out, url);
        out
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let text = &text.as_bytes()[..text.floor_char_boundary(URL_BYTES_MAX)];
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u16()?;
        String::from_utf8(self.take(usize::from(length))?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use semantics::{Flags, LifetimeSource, Wall};

    use super::*;

    fn response(slices: Option<(u128, u64)>) -> ResponseMeta {
        let facts = Facts {
            response_time: Wall(5),
            initial_age_ms: 6,
            lifetime: 7,
            stale_while_revalidate: 8,
            stale_if_error: 9,
            status: 200,
            source: LifetimeSource::MaxAge,
            flags: Flags::STRONG_ETAG,
        };
        let head = [("ETag", "\"a\""), ("Content-Type", "text/plain")].into_iter().collect();
        ResponseMeta { facts, position: 3, tags: vec![1, 2], head, url: "http://a/b?ü".into(), slices }
    }

    #[test]
    fn a_meta_comes_back_as_it_was_written_and_not_from_a_part_of_it() {
        for slices in [None, Some((77, 1 << 40))] {
            let bytes = response(slices).write();
            let Some(Meta::Response(read)) = Meta::parse(&bytes) else { panic!("a response") };
            let wanted = response(slices);
            assert_eq!((read.facts, read.position, read.tags), (wanted.facts, wanted.position, wanted.tags));
            assert_eq!((read.head, read.url, read.slices), (wanted.head, wanted.url, wanted.slices));
            assert!((0..bytes.len()).all(|end| Meta::parse(&bytes[..end]).is_none()));
            assert!(Meta::parse(&[&bytes[..], b"x"].concat()).is_none());
        }
        let specs: Vec<VarySpec> = [&b"accept"[..], b"accept-encoding,accept-language"]
            .iter()
            .filter_map(|names| VarySpec::from_bytes(names))
            .collect();
        let bytes = Variants { generation: 4, specs: specs.clone() }.write("http://a/");
        let Some(Meta::Variants(read, url)) = Meta::parse(&bytes) else { panic!("an index") };
        assert_eq!((read.generation, read.specs, url.as_str()), (4, specs, "http://a/"));
        assert!(matches!(Meta::parse(Meta::SLICE), Some(Meta::Slice)));
    }

    #[test]
    fn a_head_that_is_no_block_is_not_taken() {
        let mut bytes = response(None).write();
        let at = bytes.windows(4).position(|window| window == b"ETag").expect("the head is there");
        bytes[at + 4] = b'\n';
        assert!(Meta::parse(&bytes).is_none());
    }
}
