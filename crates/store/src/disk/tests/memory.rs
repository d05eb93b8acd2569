//! Files in memory that know what a loss of power would take from them, and that fail when they are told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Media, Shelf};

pub(super) const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// Chance, reproducible: splitmix64.
#[derive(Clone)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One page; `None` is all zeros.
type Page = Option<Arc<[u8; PAGE]>>;

/// One file, page by page, so that a copy of it costs little.
#[derive(Clone, Default)]
struct Paged {
    len: u64,
    synced_len: u64,
    pages: Vec<Page>,
    /// What pages were before each write since the last sync, oldest first.
    older: BTreeMap<usize, Vec<Page>>,
}

impl Paged {
    fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let len = (self.len.saturating_sub(offset) as usize).min(buffer.len());
        let mut done = 0;
        while done < len {
            let at = offset as usize + done;
            let within = at % PAGE;
            let part = (PAGE - within).min(len - done);
            match self.pages.get(at / PAGE) {
                Some(Some(page)) => {
                    buffer[done..done + part].copy_from_slice(&page[within..within + part]);
                }
                _ => buffer[done..done + part].fill(0),
            }
            done += part;
        }
        len
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        self.grow(offset + bytes.len() as u64);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let within = at % PAGE;
            let part = (PAGE - within).min(bytes.len() - done);
            let old = self.pages[at / PAGE].clone();
            let mut page = old.as_deref().copied().unwrap_or([0; PAGE]);
            page[within..within + part].copy_from_slice(&bytes[done..done + part]);
            self.older.entry(at / PAGE).or_default().push(old);
            self.pages[at / PAGE] = Some(Arc::new(page));
            done += part;
        }
    }

    fn page_count(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
        self.pages.resize(self.pages.len().max((self.len as usize).div_ceil(PAGE)), None);
    }

    fn sync(&mut self) {
        self.older.clear();
        self.synced_len = self.len;
    }

    fn lose_power(&mut self, chance: &mut Chance) {
        let kept_percent = [0, 20, 50, 80, 95, 100][chance.below(6) as usize];
        for (page, mut versions) in std::mem::take(&mut self.older) {
            if chance.percent(kept_percent) {
                continue;
            }
            versions.push(self.pages[page].clone());
            let some = |chance: &mut Chance| versions[chance.below(versions.len() as u64) as usize].clone();
            self.pages[page] = match chance.below(4) {
                // Any of the writes was the last to arrive.
                0 => some(chance),
                // None arrived.
                1 => versions[0].clone(),
                // Two of them, torn in the middle or at any sectors.
                way => {
                    let (one, other) = (some(chance), some(chance));
                    let halves = way == 2;
                    let mut torn = one.as_deref().copied().unwrap_or([0; PAGE]);
                    let other = other.as_deref().copied().unwrap_or([0; PAGE]);
                    for from in (0..PAGE).step_by(SECTOR) {
                        if (halves && from >= PAGE / 2) || (!halves && chance.percent(50)) {
                            torn[from..from + SECTOR].copy_from_slice(&other[from..from + SECTOR]);
                        }
                    }
                    Some(Arc::new(torn))
                }
            };
        }
        if chance.percent(50) {
            self.len = self.synced_len;
        }
        self.synced_len = self.len;
    }
}

/// All files of a shelf.
#[derive(Clone, Default)]
pub(super) struct Files(BTreeMap<String, Paged>);

impl Files {
    /// What the power leaves of them: any subset of what was not synced, in pieces.
    pub(super) fn lose_power(mut self, chance: &mut Chance) -> Self {
        self.0.values_mut().for_each(|file| file.lose_power(chance));
        self
    }
}

/// What goes wrong at the moment.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) write: Option<io::ErrorKind>,
    pub(super) read: Option<io::ErrorKind>,
    /// Every write writes a part of what it should before it fails.
    pub(super) tears: bool,
    /// The one file that cannot be written, where it is not all of them.
    pub(super) only: Option<&'static str>,
    /// Pages for which there is room: whatever needs more of them finds none.
    pub(super) room: Option<usize>,
    /// No room can be promised, as on a file system without `fallocate`.
    pub(super) promises_nothing: bool,
}

type Hook = Box<dyn FnMut(&Files) + Send>;

#[derive(Default)]
struct State {
    files: Files,
    faults: Faults,
    before_change: Option<Hook>,
}

/// A shelf in memory. All clones are one.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<State>>, &'static str);

impl Memory {
    pub(super) fn new(files: Files) -> Self {
        Memory(Arc::new(Mutex::new(State { files, ..State::default() })), "memory")
    }

    pub(super) fn named(name: &'static str) -> Self {
        Memory(Arc::default(), name)
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Calls `hook` with the files before every write and sync.
    pub(super) fn before_change(&self, hook: impl FnMut(&Files) + Send + 'static) {
        self.0.lock().before_change = Some(Box::new(hook));
    }

    pub(super) fn no_hook(&self) {
        self.0.lock().before_change = None;
    }
}

impl State {
    fn hook(&mut self) {
        if let Some(hook) = &mut self.before_change {
            hook(&self.files);
        }
    }

    fn file(&mut self, name: &str) -> &mut Paged {
        self.files.0.entry(name.to_owned()).or_default()
    }

    /// Why a file cannot be written.
    fn fault(&self, name: &str) -> Option<io::ErrorKind> {
        self.faults.write.filter(|_| self.faults.only.is_none_or(|only| only == name))
    }

    /// Whether there is room for these bytes of a file, beside what all files have.
    fn has_room(&mut self, name: &str, offset: u64, len: u64) -> bool {
        let Some(room) = self.faults.room else { return true };
        let pages = offset as usize / PAGE..(offset + len).div_ceil(PAGE as u64) as usize;
        let file = self.file(name);
        let lacking = pages.filter(|page| !matches!(file.pages.get(*page), Some(Some(_)))).count();
        lacking == 0 || self.files.0.values().map(Paged::page_count).sum::<usize>() + lacking <= room
    }
}

impl Shelf for Memory {
    fn open(&self, name: &str, _direct: bool) -> io::Result<Arc<dyn Media>> {
        self.0.lock().file(name);
        Ok(Arc::new(Opened { shelf: self.clone(), name: name.to_owned() }))
    }

    fn name(&self) -> String {
        self.1.into()
    }
}

struct Opened {
    shelf: Memory,
    name: String,
}

impl Media for Opened {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.shelf.0.lock();
        if let Some(kind) = state.faults.read {
            return Err(kind.into());
        }
        Ok(state.file(&self.name).read(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.shelf.0.lock();
        state.hook();
        if let Some(kind) = state.fault(&self.name) {
            if state.faults.tears {
                state.file(&self.name).write(&bytes[..bytes.len() / 2 / PAGE * PAGE], offset);
            }
            return Err(kind.into());
        }
        if !state.has_room(&self.name, offset, bytes.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.file(&self.name).write(bytes, offset);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.shelf.0.lock();
        state.hook();
        // What is written is safe also where there is no room for more.
        if let Some(kind) = state.fault(&self.name).filter(|kind| *kind != io::ErrorKind::StorageFull) {
            return Err(kind.into());
        }
        state.file(&self.name).sync();
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.shelf.0.lock();
        let has_room = state.fault(&self.name).is_none() && state.has_room(&self.name, offset, len);
        let Faults { room, promises_nothing, .. } = state.faults;
        let file = state.file(&self.name);
        file.grow(offset + len);
        file.synced_len = file.len;
        if promises_nothing {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !has_room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if room.is_some() {
            let pages =
                &mut file.pages[offset as usize / PAGE..(offset + len).div_ceil(PAGE as u64) as usize];
            pages.iter_mut().for_each(|page| _ = page.get_or_insert_with(|| Arc::new([0; PAGE])));
        }
        Ok(())
    }
}
