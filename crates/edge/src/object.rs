//! What the memory tier holds for the edge: stored responses, variant indexes and hit-for-miss marks.
//!
//! A small response is one allocation besides its struct: the head block and the body behind one another. A large one
//! keeps its body in blocks of [`BLOCK_BYTES`], a partial one (RFC 9111 §3.3) the parts that came.
//!
//! ```text
//! Stored { facts, position, tags ─► [u64], bytes ─► head block │ whole body, rest ─► Blocks │ Parts }
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use semantics::fields::value_in;
use semantics::range::Part;
use semantics::vary::VarySpec;
use semantics::{Facts, Fields};
use store::Weigh;

/// Size of one block of a large body; bodies up to this are contiguous.
pub(crate) const BLOCK_BYTES: usize = 1024 * 1024;

/// What a key leads to.
#[derive(Clone)]
pub(crate) enum Entry {
    /// A stored response.
    Object(Arc<Stored>),
    /// The responses to this key vary; each is stored under a key of its own.
    Variants(Arc<Variants>),
    /// The last answer could not be stored: until then (monotonic) nobody queues behind another's fetch.
    Pass { until_ms: u64 },
}

/// A stored response: immutable, shared by whoever serves it.
pub(crate) struct Stored {
    /// Freshness and validators, worked out when it came.
    pub(crate) facts: Facts,
    /// The purge position known when its fetch started, raised to each later one that left it alone.
    position: AtomicU64,
    /// Hashes of its surrogate keys.
    pub(crate) tags: Box<[u64]>,
    bytes: Box<[u8]>,
    head_len: u32,
    rest: Option<Box<Rest>>,
}

/// A body that does not lie behind the head.
enum Rest {
    Blocks(Blocks),
    Parts(Parts),
}

struct Blocks {
    blocks: Box<[Bytes]>,
    len: u64,
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
    /// A complete response. `head` holds no Content-Length and no hop-by-hop field: both are made on delivery.
    pub(crate) fn whole(facts: Facts, position: u64, tags: Vec<u64>, head: &Fields, body: WholeBody) -> Self {
        let head = head.as_block();
        let mut bytes = Vec::with_capacity(head.len() + body.contiguous_len());
        bytes.extend_from_slice(head);
        let rest = match body {
            WholeBody::Contiguous(pieces) => {
                pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
                None
            }
            WholeBody::Blocks(blocks, len) => {
                Some(Box::new(Rest::Blocks(Blocks { blocks: blocks.into(), len })))
            }
        };
        Stored {
            facts,
            position: position.into(),
            tags: tags.into(),
            bytes: bytes.into(),
            head_len: head.len() as u32,
            rest,
        }
    }

    /// A response of which only parts are held.
    pub(crate) fn partial(facts: Facts, position: u64, tags: Vec<u64>, head: &Fields, parts: Parts) -> Self {
        Stored {
            facts,
            position: position.into(),
            tags: tags.into(),
            bytes: head.as_block().into(),
            head_len: head.as_block().len() as u32,
            rest: Some(Box::new(Rest::Parts(parts))),
        }
    }

    /// The same body under a head that a 304 has updated.
    pub(crate) fn with_head(&self, facts: Facts, position: u64, tags: Vec<u64>, head: &Fields) -> Self {
        let head = head.as_block();
        let mut bytes = Vec::with_capacity(head.len() + self.bytes.len() - self.head_len as usize);
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(&self.bytes[self.head_len as usize..]);
        let rest = self.rest.as_deref().map(|rest| {
            Box::new(match rest {
                Rest::Blocks(blocks) => {
                    Rest::Blocks(Blocks { blocks: blocks.blocks.clone(), len: blocks.len })
                }
                Rest::Parts(parts) => Rest::Parts(parts.clone()),
            })
        });
        Stored {
            facts,
            position: position.into(),
            tags: tags.into(),
            bytes: bytes.into(),
            head_len: head.len() as u32,
            rest,
        }
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
        &self.bytes[..self.head_len as usize]
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
        match self.rest.as_deref() {
            None => Some((self.bytes.len() - self.head_len as usize) as u64),
            Some(Rest::Blocks(blocks)) => Some(blocks.len),
            Some(Rest::Parts(_)) => None,
        }
    }

    /// The held parts, when that is all there is.
    pub(crate) fn parts(&self) -> Option<&Parts> {
        match self.rest.as_deref() {
            Some(Rest::Parts(parts)) => Some(parts),
            _ => None,
        }
    }

    /// The longest contiguous slice of a whole body from `offset` on; empty at the end.
    pub(crate) fn body_at(&self, offset: u64) -> &[u8] {
        match self.rest.as_deref() {
            None => {
                let body = &self.bytes[self.head_len as usize..];
                body.get(offset as usize..).unwrap_or(&[])
            }
            Some(Rest::Blocks(blocks)) => {
                let block = blocks.blocks.get(offset as usize / BLOCK_BYTES);
                block.and_then(|block| block.get(offset as usize % BLOCK_BYTES..)).unwrap_or(&[])
            }
            Some(Rest::Parts(parts)) => parts.at(offset),
        }
    }
}

impl Parts {
    /// The longest held slice from `offset` on; empty when that byte is not held.
    pub(crate) fn at(&self, offset: u64) -> &[u8] {
        let next = self.runs.partition_point(|(start, _)| *start <= offset);
        let Some((start, run)) = next.checked_sub(1).map(|index| &self.runs[index]) else { return &[] };
        run.get((offset - start) as usize..).unwrap_or(&[])
    }

    /// Adds a run; bytes that are already held win.
    pub(crate) fn insert(&mut self, start: u64, content: Bytes) {
        let end = start + content.len() as u64;
        let mut at = start;
        let mut fresh = Vec::new();
        for (run_start, run) in &self.runs {
            let run_end = run_start + run.len() as u64;
            if run_end <= at || *run_start >= end {
                continue;
            }
            if *run_start > at {
                fresh.push((at, content.slice((at - start) as usize..(*run_start - start) as usize)));
            }
            at = run_end;
        }
        if at < end {
            fresh.push((at, content.slice((at - start) as usize..)));
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

/// A complete body on its way into [`Stored`].
pub(crate) enum WholeBody {
    /// At most [`BLOCK_BYTES`] in pieces: copied behind the head.
    Contiguous(Vec<Bytes>),
    /// Blocks of [`BLOCK_BYTES`], the last one shorter, and their total.
    Blocks(Vec<Bytes>, u64),
}

impl WholeBody {
    fn contiguous_len(&self) -> usize {
        match self {
            WholeBody::Contiguous(pieces) => pieces.iter().map(Bytes::len).sum(),
            WholeBody::Blocks(..) => 0,
        }
    }
}

/// What one run of a partial object costs beside its bytes: the pair and the allocation behind `Bytes`.
const RUN_OVERHEAD: usize = 40 + 48;

/// What an allocation costs beside its size: the mean rounding of a size-class allocator, measured with mimalloc.
const ALLOCATION_SLACK: usize = 16;

impl Weigh for Entry {
    fn bytes(&self) -> usize {
        match self {
            Entry::Object(stored) => {
                let rest = match stored.rest.as_deref() {
                    None => 0,
                    Some(Rest::Blocks(blocks)) => blocks.len as usize + blocks.blocks.len() * RUN_OVERHEAD,
                    Some(Rest::Parts(parts)) => parts.bytes() + size_of::<Rest>(),
                };
                size_of::<Stored>()
                    + 16
                    + stored.bytes.len()
                    + stored.tags.len() * 8
                    + rest
                    + 2 * ALLOCATION_SLACK
            }
            Entry::Variants(variants) => {
                size_of::<Variants>()
                    + variants
                        .specs
                        .iter()
                        .map(|spec| size_of::<VarySpec>() + spec.as_bytes().len() + ALLOCATION_SLACK)
                        .sum::<usize>()
                    + 2 * ALLOCATION_SLACK
            }
            Entry::Pass { .. } => 0,
        }
    }
}
