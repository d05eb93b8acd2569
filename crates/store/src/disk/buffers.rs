//! Memory for reads and writes that go past the page cache: aligned, and used again.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

use super::format::BLOCK;

/// Smallest and largest buffer that is kept for the next use: 2^13 to 2^22 bytes.
const CLASS_MIN: u32 = 13;
const CLASS_MAX: u32 = 22;

/// Bytes of buffers kept for the next use, at most.
const KEPT_BYTES_MAX: u64 = 32 << 20;

/// Bytes of memory that reading so many bytes of a record takes, at most: a buffer has room for whole blocks around them, and is a
/// power of two.
pub fn buffer_bytes(len: u64) -> u64 {
    (len + 3 * BLOCK).next_power_of_two().max(1 << CLASS_MIN)
}

/// Buffers that wait for their next use. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Buffers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    by_class: [Class; (CLASS_MAX - CLASS_MIN + 1) as usize],
    bytes: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Class {
    memory: Vec<Vec<u8>>,
    /// How many were never taken since the last [`Buffers::trim`].
    unused: usize,
}

/// Bytes at an address that is a multiple of [`BLOCK`]. Gives its memory back when dropped.
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
    home: Buffers,
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers::keeping(u64::MAX)
    }
}

impl Buffers {
    /// None yet, and so many bytes or [`KEPT_BYTES_MAX`] later.
    pub(crate) fn keeping(bytes_max: u64) -> Self {
        let kept = Kept { bytes_max: bytes_max.min(KEPT_BYTES_MAX) as usize, ..Kept::default() };
        Buffers(Arc::new(Mutex::new(kept)))
    }

    /// A buffer of `len` bytes of any content.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let class = (len + BLOCK as usize).next_power_of_two().trailing_zeros().max(CLASS_MIN);
        let kept = self.0.lock().take(class);
        let memory = kept.unwrap_or_else(|| vec![0; 1 << class]);
        let start = memory.as_ptr().align_offset(BLOCK as usize);
        Buffer { memory, start, len, home: self.clone() }
    }

    /// Gives back to the system what was not used since the last call.
    pub(crate) fn trim(&self) {
        let mut kept = self.0.lock();
        let mut unused = Vec::new();
        for class in &mut kept.by_class {
            unused.extend(class.memory.drain(..class.unused.min(class.memory.len())));
            class.unused = class.memory.len();
        }
        kept.bytes -= unused.iter().map(Vec::len).sum::<usize>();
        drop(kept);
        // Outside of the lock.
        drop(unused);
    }
}

impl Kept {
    fn take(&mut self, class: u32) -> Option<Vec<u8>> {
        let class = self.by_class.get_mut((class - CLASS_MIN) as usize)?;
        let memory = class.memory.pop()?;
        class.unused = class.unused.min(class.memory.len());
        self.bytes -= memory.len();
        Some(memory)
    }

    fn keep(&mut self, memory: Vec<u8>) {
        let class = memory.len().trailing_zeros() - CLASS_MIN;
        if let Some(kept) = self.by_class.get_mut(class as usize)
            && self.bytes + memory.len() <= self.bytes_max
        {
            self.bytes += memory.len();
            kept.memory.push(memory);
        }
    }
}

impl Buffer {
    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Makes it shorter.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            let memory = std::mem::take(&mut self.memory);
            self.home.0.lock().keep(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_a_while_is_given_back() {
        let buffers = Buffers::default();
        let both = [buffers.take(5000), buffers.take(5000)];
        drop(both);
        buffers.trim();
        assert_eq!(buffers.0.lock().bytes, 2 << 14);
        drop(buffers.take(5000));
        buffers.trim();
        assert_eq!(buffers.0.lock().bytes, 1 << 14);
        buffers.trim();
        assert_eq!(buffers.0.lock().bytes, 0);
    }

    #[test]
    fn buffers_are_aligned_and_used_again() {
        let buffers = Buffers::default();
        for len in [1, 4096, 5000, 1 << 20, 5 << 20] {
            let mut buffer = buffers.take(len);
            assert_eq!((buffer.len(), buffer.as_ptr().align_offset(4096)), (len, 0));
            buffer[len - 1] = 7;
            let address = buffer.as_ptr();
            drop(buffer);
            let again = buffers.take(len);
            assert!(len > 1 << 22 || again.as_ptr() == address);
        }
    }
}
