//! What the memory tier holds for the edge: stored responses, variant indexes and hit-for-miss marks.
//!
//! A small response is one allocation besides its struct: the head block and the body behind one another. A large one
//! keeps its body in blocks of [`BLOCK_BYTES`], a partial one (RFC 9111 §3.3) the parts that came.
//!
//! ```text
//! Entry ─► Item::Object(Stored { facts, position, bytes ─► head block │ small body,  more ─► tags, blocks │ parts })
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use semantics::fields::value_in;
use semantics::range::Part;
use semantics::vary::VarySpec;
use semantics::{Facts, Fields};
use stats::Class;
use store::{Pages, Run, Weigh};

use crate::compress::Copies;

/// Size of one block of a large body; bodies up to this are contiguous.
pub(crate) const BLOCK_BYTES: usize = 1024 * 1024;

/// Bodies from this size on are put into [`Pages`]: below it, copying the bytes costs no more than a second system call and
/// the references to their pages: see `docs/decisions/0002`.
pub(crate) const PAGED_BYTES_MIN: u64 = 192 * 1024;

/// Most separate runs that are held of one representation.
const RUNS_MAX: usize = 64;

/// What a key leads to: one pointer, because the tier holds millions of them.
pub(crate) type Entry = Arc<Item>;

/// What an [`Entry`] points to.
pub(crate) enum Item {
    /// A stored response.
    Object(Stored),
    /// The responses to this key vary; each is stored under a key of its own.
    Variants(Variants),
    /// One slice of a body that lies on disk: memory holds those that are read often.
    Slice(Arc<Run>),
    /// The last answer could not be stored: until then (monotonic) nobody queues behind another's fetch.
    Pass { until_ms: u64 },
}

/// An [`Entry`] that is a stored response.
#[derive(Clone)]
pub(crate) struct Object(Entry);

impl Object {
    pub(crate) fn new(stored: Stored) -> Self {
        Object(Arc::new(Item::Object(stored)))
    }

    /// `entry` as what it is, if that is a stored response.
    pub(crate) fn of(entry: Entry) -> Option<Self> {
        matches!(*entry, Item::Object(_)).then_some(Object(entry))
    }

    /// Whether both are the same object, not two of the same content.
    pub(crate) fn is(&self, other: &Object) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// For whoever must not keep it alive.
    pub(crate) fn downgrade(&self) -> Weak<Item> {
        Arc::downgrade(&self.0)
    }

    /// What goes into the store.
    pub(crate) fn entry(&self) -> Entry {
        self.0.clone()
    }
}

impl std::ops::Deref for Object {
    type Target = Stored;

    fn deref(&self) -> &Stored {
        match &*self.0 {
            Item::Object(stored) => stored,
            Item::Variants(_) | Item::Slice(_) | Item::Pass { .. } => {
                unreachable!("made of a stored response only")
            }
        }
    }
}

/// Bits of a head's length: 16 MiB, far above what is read of an origin's head.
const HEAD_BITS: u32 = 24;

/// A stored response: immutable, shared by whoever serves it.
pub(crate) struct Stored {
    /// Freshness and validators, worked out when it came.
    pub(crate) facts: Facts,
    /// The purge position known when its fetch started, raised to each later one that left it alone.
    position: AtomicU64,
    /// What is known of the encoded copies of its body.
    pub(crate) copies: Copies,
    /// The head block, and behind it the whole body if that is small.
    bytes: Box<[u8]>,
    /// The head block's length, and above [`HEAD_BITS`] its [`Class`]: a field of its own would cost each object 8 bytes.
    head_and_class: u32,
    more: Option<Box<More>>,
}

/// What most small responses don't have.
#[derive(Clone)]
struct More {
    /// Hashes of the surrogate keys.
    tags: Box<[u64]>,
    rest: Rest,
}

/// Where the body is.
#[derive(Clone)]
enum Rest {
    /// Behind the head.
    Nothing,
    /// In pages that a socket takes without a copy.
    Pages(Arc<Run>),
    /// In blocks of [`BLOCK_BYTES`], the last one shorter; so many bytes in all.
    Blocks(Box<[Bytes]>, u64),
    /// Only these parts of it are held.
    Parts(Parts),
    /// On disk, in slices, as far as they are there.
    Sliced(Sliced),
}

/// A body that lies in slices on disk. Each is found by itself; one that is missing is fetched when it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sliced {
    /// What the slices' keys are made of.
    pub(crate) id: u128,
    /// The key of the response itself.
    pub(crate) key: u128,
    /// Bytes of the whole body.
    pub(crate) len: u64,
}

/// The parts of a representation that are held.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    /// Length of the whole representation, when Content-Range told it.
    pub(crate) complete_len: Option<u64>,
    /// Non-overlapping runs in ascending order: first byte's position, content.
    pub(crate) runs: Vec<(u64, Bytes)>,
    /// Set when the one run that is held contradicts its own Content-Range: then the run starts at 0 whatever it
    /// claims, and only what [`Part::answer`] says may be taken from it.
    pub(crate) lone: Option<Part>,
}

/// Where the variants of one key are.
pub(crate) struct Variants {
    /// Part of each variant's key: a new index makes the variants of an older one unreachable.
    pub(crate) generation: u64,
    /// The distinct Vary lists seen, the newest first; at most [`SPECS_MAX`].
    pub(crate) specs: Vec<VarySpec>,
}

/// Most Vary lists that one index remembers; an origin that uses more loses the oldest.
pub(crate) const SPECS_MAX: usize = 4;

impl Stored {
    /// A complete response. `head` holds no Content-Length and no hop-by-hop field: both are made on delivery. `body` has any
    /// pieces up to [`BLOCK_BYTES`] in all, and else blocks of that length, the last one shorter.
    pub(crate) fn whole(
        facts: Facts,
        position: u64,
        tags: Vec<u64>,
        head: &Fields,
        body: &[Bytes],
        pages: Option<&Pages>,
    ) -> Self {
        let len = body.iter().map(|piece| piece.len() as u64).sum();
        if len >= PAGED_BYTES_MIN
            && let Some(run) = pages.and_then(|pages| pages.store(body).ok())
        {
            return Stored::new(facts, position, tags, head, &[[]; 0], Rest::Pages(Arc::new(run)));
        }
        if len <= BLOCK_BYTES as u64 {
            return Stored::new(facts, position, tags, head, body, Rest::Nothing);
        }
        // What the tier keeps is not in flight, as the fill's own blocks are.
        let blocks = body.iter().map(|block| Bytes::copy_from_slice(block)).collect();
        Stored::new(facts, position, tags, head, &[[]; 0], Rest::Blocks(blocks, len))
    }

    /// A response of which only parts are held.
    pub(crate) fn partial(facts: Facts, position: u64, tags: Vec<u64>, head: &Fields, parts: Parts) -> Self {
        Stored::new(facts, position, tags, head, &[[]; 0], Rest::Parts(parts))
    }

    /// A response whose body is on disk.
    pub(crate) fn sliced(facts: Facts, position: u64, tags: Vec<u64>, head: &Fields, sliced: Sliced) -> Self {
        Stored::new(facts, position, tags, head, &[[]; 0], Rest::Sliced(sliced))
    }

    /// A response as it was read from disk, with its body where it was read to.
    pub(crate) fn read(facts: Facts, position: u64, tags: Vec<u64>, head: &Fields, body: Bytes) -> Self {
        let length = body.len() as u64;
        Stored::new(facts, position, tags, head, &[[]; 0], Rest::Blocks(vec![body].into(), length))
    }

    /// Whether its body lies where it was read to from disk: no fill leaves so short a body in blocks.
    pub(crate) fn is_as_read(&self) -> bool {
        matches!(self.rest(), Rest::Blocks(_, len) if *len <= BLOCK_BYTES as u64)
    }

    /// The same, with its body where memory holds it best.
    pub(crate) fn compact(&self, pages: Option<&Pages>) -> Self {
        let (tags, head) = (self.tags().to_vec(), self.fields());
        let Rest::Blocks(body, _) = self.rest() else {
            return self.with_head(self.facts, self.position(), tags, &head);
        };
        let stored = Stored::whole(self.facts, self.position(), tags, &head, body, pages);
        Stored { copies: self.copies.of_same_content(), ..stored }
    }

    /// The same body under a head that a 304 has updated.
    pub(crate) fn with_head(&self, facts: Facts, position: u64, tags: Vec<u64>, head: &Fields) -> Self {
        let behind = &self.bytes[self.head_len()..];
        let rest = self.more.as_deref().map_or(Rest::Nothing, |more| more.rest.clone());
        let stored = Stored::new(facts, position, tags, head, &[behind], rest);
        Stored { copies: self.copies.of_same_content(), ..stored }
    }

    fn new(
        facts: Facts,
        position: u64,
        tags: Vec<u64>,
        head: &Fields,
        behind: &[impl AsRef<[u8]>],
        rest: Rest,
    ) -> Self {
        let class = Class::of(head.get("content-type"));
        let head = head.as_block();
        let length = head.len() + behind.iter().map(|piece| piece.as_ref().len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(head);
        behind.iter().for_each(|piece| bytes.extend_from_slice(piece.as_ref()));
        let has_more = !tags.is_empty() || !matches!(rest, Rest::Nothing);
        let more = has_more.then(|| Box::new(More { tags: tags.into(), rest }));
        Stored {
            facts,
            position: position.into(),
            copies: Copies::default(),
            bytes: bytes.into(),
            head_and_class: head.len() as u32 | (class as u32) << HEAD_BITS,
            more,
        }
    }

    /// Hashes of its surrogate keys.
    pub(crate) fn tags(&self) -> &[u64] {
        self.more.as_deref().map_or(&[], |more| &more.tags)
    }

    fn rest(&self) -> &Rest {
        self.more.as_deref().map_or(&Rest::Nothing, |more| &more.rest)
    }

    /// The newest purge position that is known not to touch it.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Notes that no purge up to `position` touches it.
    pub(crate) fn outlived(&self, position: u64) {
        self.position.fetch_max(position, Ordering::Relaxed);
    }

    /// The stored field lines, as they go to the wire.
    pub(crate) fn head(&self) -> &[u8] {
        &self.bytes[..self.head_len()]
    }

    /// What kind of content it is, by Content-Type.
    pub(crate) fn class(&self) -> Class {
        Class::ALL[(self.head_and_class >> HEAD_BITS) as usize]
    }

    fn head_len(&self) -> usize {
        (self.head_and_class & ((1 << HEAD_BITS) - 1)) as usize
    }

    /// The stored field lines, parsed.
    pub(crate) fn fields(&self) -> Fields {
        Fields::from_block(self.head())
    }

    /// The first value of a stored field.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        value_in(self.head(), name)
    }

    /// Length of the whole body; `None` when only parts are held.
    pub(crate) fn body_len(&self) -> Option<u64> {
        match self.rest() {
            Rest::Nothing => Some((self.bytes.len() - self.head_len()) as u64),
            Rest::Pages(run) => Some(run.len()),
            Rest::Blocks(_, len) => Some(*len),
            Rest::Sliced(sliced) => Some(sliced.len),
            Rest::Parts(_) => None,
        }
    }

    /// Where the body is, if it is on disk.
    pub(crate) fn slices(&self) -> Option<&Sliced> {
        match self.rest() {
            Rest::Sliced(sliced) => Some(sliced),
            Rest::Nothing | Rest::Pages(_) | Rest::Blocks(..) | Rest::Parts(_) => None,
        }
    }

    /// The held parts, when that is all there is.
    pub(crate) fn parts(&self) -> Option<&Parts> {
        match self.rest() {
            Rest::Parts(parts) => Some(parts),
            Rest::Nothing | Rest::Pages(_) | Rest::Blocks(..) | Rest::Sliced(_) => None,
        }
    }

    /// The pages of a body that lies in some.
    pub(crate) fn pages(&self) -> Option<&Arc<Run>> {
        match self.rest() {
            Rest::Pages(run) => Some(run),
            Rest::Nothing | Rest::Blocks(..) | Rest::Parts(_) | Rest::Sliced(_) => None,
        }
    }

    /// The longest slice of the body from `offset` on; empty at the end, where a part is missing, and for a body in
    /// [`Stored::pages`] or [`Stored::slices`].
    pub(crate) fn body_at(&self, offset: u64) -> &[u8] {
        match self.rest() {
            Rest::Nothing => {
                let body = &self.bytes[self.head_len()..];
                body.get(offset as usize..).unwrap_or(&[])
            }
            Rest::Blocks(blocks, _) => {
                let block = blocks.get(offset as usize / BLOCK_BYTES);
                block.and_then(|block| block.get(offset as usize % BLOCK_BYTES..)).unwrap_or(&[])
            }
            Rest::Parts(parts) => parts.at(offset),
            Rest::Pages(_) | Rest::Sliced(_) => &[],
        }
    }
}

impl Stored {
    /// Appends the whole body, wherever in memory it is; `None` where it is not whole.
    pub(crate) fn read_into(&self, out: &mut Vec<u8>) -> Option<()> {
        let (start, length) = (out.len(), self.body_len().filter(|_| self.slices().is_none())? as usize);
        out.reserve_exact(length);
        match self.pages() {
            Some(run) => {
                out.resize(start + length, 0);
                run.read(0, &mut out[start..]).ok()?;
            }
            None => {
                while out.len() < start + length {
                    let piece = self.body_at((out.len() - start) as u64);
                    (!piece.is_empty()).then(|| out.extend_from_slice(piece))?;
                }
            }
        }
        Some(())
    }
}

impl Parts {
    /// The longest held slice from `offset` on; empty when that byte is not held.
    pub(crate) fn at(&self, offset: u64) -> &[u8] {
        let next = self.runs.partition_point(|(start, _)| *start <= offset);
        let Some((start, run)) = next.checked_sub(1).map(|index| &self.runs[index]) else { return &[] };
        run.get((offset - start) as usize..).unwrap_or(&[])
    }

    /// Adds a run; bytes that are already held win. What is left of `content` then is copied: a slice would hold all of it, and be
    /// weighed as itself. More than [`RUNS_MAX`] runs become the new one alone.
    pub(crate) fn insert(&mut self, start: u64, content: Bytes) {
        let end = start + content.len() as u64;
        let mut at = start;
        let mut fresh = Vec::new();
        let piece = |from: u64, to: u64| match &content[(from - start) as usize..(to - start) as usize] {
            whole if whole.len() == content.len() => content.clone(),
            part => Bytes::copy_from_slice(part),
        };
        for (run_start, run) in &self.runs {
            let run_end = run_start + run.len() as u64;
            if run_end <= at || *run_start >= end {
                continue;
            }
            if *run_start > at {
                fresh.push((at, piece(at, *run_start)));
            }
            at = run_end;
        }
        if at < end {
            fresh.push((at, piece(at, end)));
        }
        if self.runs.len() + fresh.len() > RUNS_MAX {
            // Scattered on purpose, or not worth the bookkeeping.
            self.runs = vec![(start, content)];
            return;
        }
        self.runs.extend(fresh);
        self.runs.sort_unstable_by_key(|(start, _)| *start);
    }

    /// How many bytes are held from `offset` on without a gap.
    pub(crate) fn held_from(&self, offset: u64) -> u64 {
        let mut at = offset;
        loop {
            match self.at(at).len() as u64 {
                0 => return at - offset,
                held => at += held,
            }
        }
    }

    /// The bytes before `end`, all of which are held.
    pub(crate) fn prefix(&self, end: u64) -> Vec<Bytes> {
        let before = self.runs.iter().take_while(|(start, _)| *start < end);
        before.map(|(start, run)| run.slice(..run.len().min((end - start) as usize))).collect()
    }

    fn bytes(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.len() + RUN_OVERHEAD).sum()
    }
}

/// What one run of a partial object costs beside its bytes: the pair and the allocation behind `Bytes`.
const RUN_OVERHEAD: usize = 40 + 48;

/// What an allocation costs beside its size: the mean rounding of a size-class allocator, measured with mimalloc.
const ALLOCATION_SLACK: usize = 16;

impl Weigh for Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Object(stored) => {
                let more = stored.more.as_deref().map_or(0, |more| {
                    let rest = match &more.rest {
                        Rest::Nothing | Rest::Sliced(_) => 0,
                        Rest::Blocks(blocks, len) => *len as usize + blocks.len() * RUN_OVERHEAD,
                        Rest::Parts(parts) => parts.bytes(),
                        Rest::Pages(run) => pages_bytes(run),
                    };
                    size_of::<More>() + more.tags.len() * 8 + rest + ALLOCATION_SLACK
                });
                stored.bytes.len() + more + ALLOCATION_SLACK
            }
            Item::Variants(variants) => {
                let specs = variants.specs.iter();
                specs.map(|spec| size_of::<VarySpec>() + spec.as_bytes().len() + ALLOCATION_SLACK).sum()
            }
            Item::Slice(run) => pages_bytes(run),
            Item::Pass { .. } => 0,
        }
    }

    fn note_kept(&self, is_kept: bool) {
        match self {
            Item::Object(stored) => stored.pages().into_iter().for_each(|run| run.note_kept(is_kept)),
            Item::Slice(run) => run.note_kept(is_kept),
            Item::Variants(_) | Item::Pass { .. } => {}
        }
    }
}

/// What a body in pages weighs.
fn pages_bytes(run: &Run) -> usize {
    run.memory_bytes() as usize + size_of::<Run>() + 2 * ALLOCATION_SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_object_costs_few_bytes_beside_its_head_and_body() {
        // With the tier's entry this stays under 200 bytes; `bench/idle.sh` measures it whole.
        assert!(size_of::<Item>() + 16 <= 112, "{}", size_of::<Item>());
        assert_eq!(size_of::<Entry>(), 8);
    }

    #[test]
    fn parts_that_overlap_are_kept_once_and_in_order() {
        let mut parts = Parts::default();
        parts.insert(10, Bytes::from_static(b"klmno"));
        parts.insert(0, Bytes::from_static(b"abc"));
        parts.insert(2, Bytes::from_static(b"CdefghijKL"));
        let runs: Vec<_> = parts.runs.iter().map(|(start, run)| (*start, run.as_ref())).collect();
        assert_eq!(runs, [(0, &b"abc"[..]), (3, b"defghij"), (10, b"klmno")]);
        assert_eq!(parts.held_from(1), 14);
        assert_eq!(parts.at(4), b"efghij");
        assert_eq!(parts.at(15), b"");
        assert_eq!(parts.prefix(12).concat(), b"abcdefghijkl");
    }

    #[test]
    fn parts_hold_no_more_than_they_weigh() {
        struct Fetched(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Fetched {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let mut parts = Parts::default();
        let fetched: Vec<Arc<Vec<u8>>> = (1000..1010).map(|bytes| Arc::new(vec![7; bytes])).collect();
        fetched.iter().for_each(|body| parts.insert(10, Bytes::from_owner(Fetched(body.clone()))));
        assert_eq!(parts.held_from(10), 1009);
        let is_held: Vec<bool> = fetched.iter().map(|body| Arc::strong_count(body) > 1).collect();
        assert!(is_held[0] && !is_held[1..].contains(&true), "{is_held:?}");
    }
}
