//! Where networks are: from an address to a cell, of a quarter of a degree within a country.
//!
//! ```text
//! IPv4  65,536 blocks of /16 ─► a cell for all of it, or a leaf: runs of /24s with one cell; equal leaves are stored once
//! IPv6  runs of equal cells, each from a /48 on, in groups of 32: where each group begins, and the distances within
//! ```
//!
//! An index by the first 16 bits says which groups to look in. A look-up reads three to six lines of memory of IPv4, about ten of IPv6.
//!
//! As a file: `PGEO`, version, xxh3 of what follows, and the content by zstd. Whatever bytes are given to [`Location::decode`], it
//! returns, within a bounded memory, and what it returns can be asked without a panic: every index in it was checked.
//!
//! Pure. Made by `compile`, read at the start.

use std::hash::Hasher;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv6Addr};

use model::Point;
use twox_hash::XxHash3_64;

use crate::systems::{self, Systems};

/// Cells at most, the unknown one included. `table` numbers what it does beyond them.
pub const CELLS_MAX: usize = 65_000;
/// Bytes of the content at most, unpacked: some ten times what the whole internet takes.
pub const CONTENT_BYTES_MAX: u64 = 256 << 20;
/// Runs of IPv6 at most; the whole internet has three and a half million.
pub const RUNS_MAX: usize = 32 << 20;
/// Bytes of the text that says whose data it is.
pub const ATTRIBUTION_BYTES_MAX: usize = 1_000;
/// The cell of networks that nobody knows anything about.
pub const UNKNOWN: u16 = 0;

const MAGIC: &[u8; 8] = b"PGEO\x01\0\0\0";
/// Blocks of /16.
const BLOCKS: usize = 1 << 16;
const LEAF: usize = 256;
/// Bytes that are read at once.
const PIECE: usize = 1 << 16;
/// The largest window of zstd that is followed: what its level 19 uses, and as much again.
const WINDOW_LOG_MAX: u32 = 24;
const CUT: Damaged = Damaged("is cut off");
/// In a block: this is a leaf's number, not a cell.
const IS_LEAF: u32 = 1 << 31;

/// A place that visitors come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// ISO 3166, two capital letters; zeros when it is not known.
    pub country: [u8; 2],
    /// The middle of the networks in it.
    pub point: Point,
}

/// Where networks are. See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Location {
    /// Whose data it is, to be shown where its results are.
    pub attribution: String,
    /// When it was made, in s since 1970.
    pub built_secs: u64,
    cells: Vec<Cell>,
    blocks: Vec<u32>,
    leaves: Leaves,
    /// Where each run begins, by its first 48 bits.
    starts: Starts,
    run_cells: Vec<u16>,
    systems: Systems,
}

/// The leaves of IPv4, each as runs of equal cells.
#[derive(Clone, Debug, Default, PartialEq)]
struct Leaves {
    /// The first run of each, and behind the last.
    firsts: Vec<u32>,
    /// The first /24 of each run, within its leaf; a leaf's first is 0.
    starts: Vec<u8>,
    cells: Vec<u16>,
}

/// The /24s of a /16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf<'l> {
    starts: &'l [u8],
    /// The cells of its runs.
    pub(crate) cells: &'l [u16],
}

impl Leaf<'_> {
    /// The run that holds a /24, given by its last byte.
    pub(crate) fn run_of(&self, network: u8) -> usize {
        self.starts.partition_point(|start| *start <= network).saturating_sub(1)
    }

    /// The first and the last /24 of a run.
    pub(crate) fn range(&self, run: usize) -> (u8, u8) {
        (self.starts[run], self.starts.get(run + 1).map_or(u8::MAX, |next| next - 1))
    }
}

impl Leaves {
    fn push(&mut self, cells: &[u16]) {
        if self.firsts.is_empty() {
            self.firsts.push(0);
        }
        for (at, cell) in cells.iter().enumerate() {
            if at == 0 || cells[at - 1] != *cell {
                self.starts.push(at as u8);
                self.cells.push(*cell);
            }
        }
        self.firsts.push(self.cells.len() as u32);
    }

    fn count(&self) -> usize {
        self.firsts.len().saturating_sub(1)
    }

    fn get(&self, number: usize) -> Leaf<'_> {
        let (from, to) = (self.firsts[number] as usize, self.firsts[number + 1] as usize);
        Leaf { starts: &self.starts[from..to], cells: &self.cells[from..to] }
    }

    fn shrink(mut self) -> Leaves {
        self.starts.shrink_to_fit();
        self.cells.shrink_to_fit();
        self
    }
}

/// Numbers of 48 bits that ascend from 0.
#[derive(Clone, Debug, Default, PartialEq)]
struct Starts {
    /// The first of each [`GROUP`], and where its distances begin.
    groups: Vec<(u64, u32)>,
    /// From each to the next within its group, seven bits per byte.
    steps: Vec<u8>,
    /// For the first 16 bits, how many numbers lie before them.
    index: Vec<u32>,
    count: usize,
    last: u64,
}

/// Runs of IPv6 whose starts are put together.
const GROUP: usize = 32;

impl Starts {
    /// They must ascend.
    fn push(&mut self, start: u64) {
        while self.index.len() as u64 <= start >> 32 {
            self.index.push(self.count as u32);
        }
        match self.count.is_multiple_of(GROUP) {
            true => self.groups.push((start, self.steps.len() as u32)),
            false => write_number(&mut self.steps, start - self.last),
        }
        (self.count, self.last) = (self.count + 1, start);
    }

    fn finish(mut self) -> Starts {
        self.index.resize(BLOCKS + 1, self.count as u32);
        self.steps.shrink_to_fit();
        self
    }

    /// The numbers of a group, in order.
    fn group(&self, group: usize) -> impl Iterator<Item = u64> {
        let (mut start, mut at) = self.groups[group];
        let count = (self.count - group * GROUP).min(GROUP);
        (0..count).map(move |place| {
            if place > 0 {
                let mut shift = 0;
                let mut step = 0u64;
                loop {
                    let byte = self.steps[at as usize];
                    at += 1;
                    step |= u64::from(byte & 0x7f) << shift;
                    shift += 7;
                    if byte < 0x80 {
                        break;
                    }
                }
                start += step;
            }
            start
        })
    }

    fn get(&self, number: usize) -> Option<u64> {
        let group = (number < self.count).then_some(number / GROUP)?;
        self.group(group).nth(number % GROUP)
    }

    /// The last that is not above `key`.
    fn last_up_to(&self, key: u64) -> usize {
        let top = (key >> 32) as usize;
        // The one that is wanted may lie before those of its block.
        let from = (self.index[top] as usize).saturating_sub(1) / GROUP;
        let to = (self.index[top + 1] as usize).div_ceil(GROUP);
        let group =
            from + self.groups[from..to].partition_point(|(first, _)| *first <= key).saturating_sub(1);
        let within = self.group(group).take_while(|start| *start <= key).count();
        group * GROUP + within.saturating_sub(1)
    }
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damaged {}

impl Location {
    /// One that knows nothing: every network is in the cell [`UNKNOWN`].
    pub fn empty() -> Location {
        let nowhere = Cell { country: [0; 2], point: Point { latitude: 0.0, longitude: 0.0 } };
        Location::of(vec![nowhere], vec![0; BLOCKS], Leaves::default(), vec![0], vec![UNKNOWN])
    }

    /// From the cell of each /24 (2^24 of them), and the runs of IPv6 (first 64 bits, ascending from 0). The first cell is [`UNKNOWN`].
    pub(crate) fn compile(
        cells: Vec<Cell>,
        by_24: &[u16],
        starts: Vec<u64>,
        run_cells: Vec<u16>,
    ) -> Location {
        let mut leaves = Leaves::default();
        let mut known = std::collections::HashMap::new();
        let blocks = by_24
            .chunks(LEAF)
            .map(|leaf| {
                if leaf.iter().all(|cell| *cell == leaf[0]) {
                    return u32::from(leaf[0]);
                }
                let number = *known.entry(leaf).or_insert_with(|| {
                    leaves.push(leaf);
                    leaves.count() - 1
                });
                IS_LEAF | number as u32
            })
            .collect();
        Location::of(cells, blocks, leaves, starts, run_cells)
    }

    fn of(
        cells: Vec<Cell>,
        blocks: Vec<u32>,
        leaves: Leaves,
        starts: Vec<u64>,
        run_cells: Vec<u16>,
    ) -> Location {
        let mut packed = Starts::default();
        starts.iter().for_each(|start| packed.push(start >> 16));
        Location::with(cells, blocks, leaves, (packed.finish(), run_cells))
    }

    fn with(cells: Vec<Cell>, blocks: Vec<u32>, leaves: Leaves, (starts, run_cells): Runs) -> Location {
        Location {
            attribution: String::new(),
            built_secs: 0,
            cells,
            blocks,
            leaves: leaves.shrink(),
            starts,
            run_cells,
            systems: Systems::default(),
        }
    }

    /// With this word on whose networks are.
    pub(crate) fn with_systems(self, systems: Systems) -> Location {
        Location { systems, ..self }
    }

    /// Whose networks are.
    pub fn systems(&self) -> &Systems {
        &self.systems
    }

    /// All cells, the unknown one first.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The cell of an address. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn cell(&self, address: IpAddr) -> u16 {
        match address.to_canonical() {
            IpAddr::V4(address) => self.cell_of_24(u32::from(address) >> 8),
            IpAddr::V6(address) => self.run_cells[self.run_of(first_64(address))],
        }
    }

    /// The cell of a /24, given by its first 24 bits.
    pub(crate) fn cell_of_24(&self, network: u32) -> u16 {
        let block = self.blocks[(network >> 8) as usize];
        match self.leaf(block) {
            Some(leaf) => leaf.cells[leaf.run_of(network as u8)],
            None => block as u16,
        }
    }

    /// The cells of the /24s of a /16: one for all, or a leaf.
    pub(crate) fn block(&self, number: u16) -> Result<u16, Leaf<'_>> {
        let block = self.blocks[usize::from(number)];
        self.leaf(block).map_or(Ok(block as u16), Err)
    }

    fn leaf(&self, block: u32) -> Option<Leaf<'_>> {
        let number = (block & IS_LEAF != 0).then_some((block & !IS_LEAF) as usize)?;
        Some(self.leaves.get(number))
    }

    /// The cells of the runs of IPv6, in order.
    pub(crate) fn run_cells(&self) -> &[u16] {
        &self.run_cells
    }

    /// The run that holds an address, given by its first 64 bits.
    pub(crate) fn run_of(&self, address: u64) -> usize {
        self.starts.last_up_to(address >> 16)
    }

    /// Where a run begins; behind the last one, `None`.
    pub(crate) fn start_of(&self, run: usize) -> Option<u64> {
        self.starts.get(run).map(|start| start << 16)
    }

    /// As a file. `level`: of zstd, 1 to 19.
    pub fn encode(&self, level: i32) -> std::io::Result<Vec<u8>> {
        let mut content = Vec::with_capacity(24 << 20);
        content.extend(self.built_secs.to_le_bytes());
        let mut attribution = self.attribution.as_str();
        while attribution.len() > ATTRIBUTION_BYTES_MAX {
            attribution = &attribution[..attribution.floor_char_boundary(attribution.len() - 1)];
        }
        content.extend((attribution.len() as u32).to_le_bytes());
        content.extend(attribution.bytes());
        content.extend((self.cells.len() as u32).to_le_bytes());
        for cell in &self.cells {
            content.extend(cell.country);
            for degrees in [cell.point.latitude, cell.point.longitude] {
                content.extend(((degrees * 100.0).round() as i16).to_le_bytes());
            }
        }
        self.blocks.iter().for_each(|block| content.extend(block.to_le_bytes()));
        content.extend((self.leaves.count() as u32).to_le_bytes());
        for leaf in (0..self.leaves.count()).map(|number| self.leaves.get(number)) {
            (0..=u8::MAX).for_each(|network| content.extend(leaf.cells[leaf.run_of(network)].to_le_bytes()));
        }
        content.extend((self.starts.count as u32).to_le_bytes());
        let mut before = 0;
        for start in (0..self.starts.groups.len()).flat_map(|group| self.starts.group(group)) {
            write_number(&mut content, start - before);
            before = start;
        }
        self.run_cells.iter().for_each(|cell| content.extend(cell.to_le_bytes()));
        if !self.systems.is_empty() {
            let (v4, v6) = self.systems.runs();
            for runs in [v4, v6] {
                content.extend((runs.len() as u32).to_le_bytes());
                let mut before = 0;
                for (start, system) in runs {
                    write_number(&mut content, start - before);
                    content.extend(system.to_le_bytes());
                    before = start;
                }
            }
        }

        let packed = zstd::bulk::compress(&content, level)?;
        let mut file = MAGIC.to_vec();
        file.extend(XxHash3_64::oneshot(&packed).to_le_bytes());
        file.extend(packed);
        Ok(file)
    }

    /// Reads what [`Location::encode`] wrote, from bytes; see [`Location::read`].
    pub fn decode(file: &[u8]) -> Result<Location, Damaged> {
        Location::read(Cursor::new(file))
    }

    /// Reads what [`Location::encode`] wrote; anything else is refused. The file is read twice, for its sum and for its content, and
    /// never held: beside what it becomes, there are some MiB at most.
    pub fn read(mut file: impl Read + Seek) -> Result<Location, Damaged> {
        const UNPACKED: Damaged = Damaged("cannot be unpacked");
        let mut head = [0; 16];
        file.read_exact(&mut head).map_err(|_| Damaged("is not location data of this version"))?;
        if !head.starts_with(MAGIC) {
            return Err(Damaged("is not location data of this version"));
        }
        let mut hasher = XxHash3_64::new();
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => hasher.write(&piece[..count]),
                Err(_) => return Err(Damaged("cannot be read to its end")),
            }
        }
        if hasher.finish().to_le_bytes() != head[8..] {
            return Err(Damaged("has a wrong checksum: it is damaged or cut off"));
        }
        file.seek(SeekFrom::Start(head.len() as u64)).map_err(|_| Damaged("cannot be read twice"))?;
        let mut unpacking = zstd::stream::read::Decoder::new(file).map_err(|_| UNPACKED)?;
        unpacking.window_log_max(WINDOW_LOG_MAX).map_err(|_| UNPACKED)?;
        Location::decode_content(unpacking.take(CONTENT_BYTES_MAX))
    }

    /// The content of a file, unpacked.
    pub(crate) fn decode_content(content: impl Read) -> Result<Location, Damaged> {
        let mut reader = Reader { from: BufReader::with_capacity(PIECE, content) };
        let built_secs = u64::from_le_bytes(reader.array()?);
        let attribution = reader.count(ATTRIBUTION_BYTES_MAX)?;
        let attribution = String::from_utf8(reader.numbers(attribution, u8::from_le_bytes)?)
            .map_err(|_| Damaged("has an attribution that is no text"))?;
        let count = reader.count(CELLS_MAX)?;
        let mut cells = Vec::new();
        for _ in 0..count {
            let country = reader.array()?;
            let mut degrees = || reader.array().map(|bytes| f64::from(i16::from_le_bytes(bytes)) / 100.0);
            let point = Point { latitude: degrees()?, longitude: degrees()? };
            if !(-90.0..=90.0).contains(&point.latitude) || !(-180.0..=180.0).contains(&point.longitude) {
                return Err(Damaged("has a cell that is not on the earth"));
            }
            cells.push(Cell { country, point });
        }
        let blocks: Vec<u32> = reader.numbers(BLOCKS, u32::from_le_bytes)?;
        let leaf_count = reader.count(BLOCKS)?;
        let mut leaves = Leaves::default();
        for _ in 0..leaf_count {
            leaves.push(
                &reader
                    .array::<{ 2 * LEAF }>()?
                    .as_chunks()
                    .0
                    .iter()
                    .map(|cell| u16::from_le_bytes(*cell))
                    .collect::<Vec<u16>>(),
            );
        }
        let runs = reader.runs()?;
        let is_cell = |cell: usize| cell < cells.len();
        let blocks_good = blocks.iter().all(|block| match block & IS_LEAF {
            0 => is_cell(*block as usize),
            _ => ((block & !IS_LEAF) as usize) < leaf_count,
        });
        if !blocks_good || !leaves.cells.iter().chain(&runs.1).all(|cell| is_cell(usize::from(*cell))) {
            return Err(Damaged("names a cell that it does not have"));
        }
        let location = Location { attribution, built_secs, ..Location::with(cells, blocks, leaves, runs) };
        // Whose networks are, some files say and others don't.
        if reader.is_at_end()? {
            return Ok(location);
        }
        let (v4, v6) = (reader.systems(24)?, reader.systems(48)?);
        match reader.is_at_end()? {
            true => Ok(location.with_systems(Systems::compile(&v4, &v6))),
            false => Err(Damaged("has bytes behind its end")),
        }
    }
}

/// The first half of an address: what tells networks apart.
pub(crate) fn first_64(address: Ipv6Addr) -> u64 {
    (u128::from(address) >> 64) as u64
}

/// Seven bits per byte, the lowest first.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Where runs begin, and their cells.
type Runs = (Starts, Vec<u16>);

struct Reader<R> {
    from: BufReader<R>,
}

impl<R: Read> Reader<R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|_| CUT)?;
        Ok(bytes)
    }

    fn count(&mut self, max: usize) -> Result<usize, Damaged> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > max { Err(Damaged("has a count beyond its limit")) } else { Ok(count) }
    }

    /// So many numbers of N bytes. A count that lies gets memory that it never touches.
    fn numbers<T, const N: usize>(
        &mut self,
        count: usize,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Damaged> {
        let mut numbers = Vec::with_capacity(count);
        let mut piece = vec![0; PIECE / N * N];
        while numbers.len() < count {
            let now = (count - numbers.len()).min(PIECE / N);
            self.from.read_exact(&mut piece[..now * N]).map_err(|_| CUT)?;
            numbers.extend(piece[..now * N].as_chunks::<N>().0.iter().map(|chunk| read(*chunk)));
        }
        Ok(numbers)
    }

    fn is_at_end(&mut self) -> Result<bool, Damaged> {
        self.from.fill_buf().map(<[u8]>::is_empty).map_err(|_| CUT)
    }

    /// Runs of networks of one system, which begin at numbers of so many bits.
    fn systems(&mut self, width: u32) -> Result<Vec<(u64, u32)>, Damaged> {
        let count = self.count(systems::RUNS_MAX)?;
        let mut runs: Vec<(u64, u32)> = Vec::new();
        for _ in 0..count {
            let start = self.start(runs.last().map(|(start, _)| *start), width)?;
            let start = start.ok_or(Damaged("has systems that do not ascend from 0"))?;
            runs.push((start, u32::from_le_bytes(self.array()?)));
        }
        Ok(runs)
    }

    /// The runs of IPv6.
    fn runs(&mut self) -> Result<Runs, Damaged> {
        let count = self.count(RUNS_MAX)?;
        let mut starts = Starts::default();
        let mut before = None;
        for _ in 0..count {
            let start = self.start(before, 48)?.ok_or(Damaged("has runs that do not ascend from 0"))?;
            starts.push(start);
            before = Some(start);
        }
        if count == 0 {
            return Err(Damaged("has no runs"));
        }
        Ok((starts.finish(), self.numbers(count, u16::from_le_bytes)?))
    }

    /// Where a run begins, a number of so many bits; `None` if it is not behind the one before it, or the first is not at 0.
    fn start(&mut self, before: Option<u64>, width: u32) -> Result<Option<u64>, Damaged> {
        let step = self.number()?;
        let start = before.unwrap_or(0).checked_add(step).filter(|start| start >> width == 0);
        Ok(start.filter(|_| (step == 0) == before.is_none()))
    }

    fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte < 0x80 {
                // The last byte has one bit of 64 left.
                let fits = bits << shift >> shift == bits;
                return if fits { Ok(number) } else { Err(Damaged("has a number over 64 bits")) };
            }
        }
        Err(Damaged("has a number over 64 bits"))
    }
}

/// For the fuzz target.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::*;

    /// Reads any bytes as a file and as what lies in one; asks what was read.
    pub fn decode(bytes: &[u8]) {
        let content = Location::empty()
            .encode(1)
            .ok()
            .and_then(|file| zstd::bulk::decompress(&file[16..], 1 << 20).ok());
        // Behind the blocks, where nothing but numbers of bytes' choosing stands.
        let mut edited = content.unwrap_or_default();
        let keep = edited.len().saturating_sub(bytes.len() % 64);
        edited.truncate(keep);
        edited.extend_from_slice(bytes);
        for read in
            [Location::decode(bytes), Location::decode_content(bytes), Location::decode_content(&edited[..])]
        {
            let Ok(location) = read else { continue };
            for chunk in bytes.chunks_exact(16) {
                let address = Ipv6Addr::from(u128::from_be_bytes(chunk.try_into().unwrap_or_default()));
                for address in
                    [IpAddr::from(address), Ipv6Addr::to_ipv4(&address).map_or(address.into(), IpAddr::from)]
                {
                    assert!(usize::from(location.cell(address)) < location.cells().len());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Location {
        let cell = |country: &[u8; 2], latitude, longitude| Cell {
            country: *country,
            point: Point { latitude, longitude },
        };
        let cells = vec![cell(&[0; 2], 0.0, 0.0), cell(b"DE", 50.11, 8.68), cell(b"US", 38.9, -77.45)];
        let mut by_24 = vec![UNKNOWN; 1 << 24];
        by_24[0xc0_0000..0xc0_0100].fill(1);
        by_24[0xc0_0110..0xc0_0120].fill(2);
        by_24[0xc0_0210..0xc0_0220].fill(2);
        let starts = vec![0, 0x2001_0db8 << 32, (0x2001_0db8 << 32) | 0x1_0000, 0x2001_0db9 << 32];
        let systems = Systems::compile(&[(0, 0), (0xc0_0000, 64_500)], &[(0, 0), (0x2001_0db8_0001, 64_501)]);
        Location {
            attribution: "somebody".into(),
            built_secs: 7,
            ..Location::compile(cells, &by_24, starts, vec![0, 1, 2, 0]).with_systems(systems)
        }
    }

    #[test]
    fn addresses_are_found_in_their_cells() {
        let location = small();
        let cell = |text: &str| location.cell(text.parse().unwrap());
        assert_eq!(
            ["192.0.0.1", "192.0.255.9", "192.1.15.255", "192.1.16.0", "192.1.31.1", "192.2.16.1"].map(cell),
            [1, 1, 0, 2, 2, 2]
        );
        assert_eq!(["1.1.1.1", "::ffff:192.0.0.1"].map(cell), [0, 1]);
        assert_eq!(
            [
                "2001:db8::1",
                "2001:db8:0:ffff::",
                "2001:db8:1::",
                "2001:db8:ffff::",
                "2001:db9::",
                "::1",
                "ffff::"
            ]
            .map(cell),
            [1, 1, 2, 2, 0, 0, 0]
        );
        assert_eq!(location.leaves.count(), 1, "equal leaves are stored once");
    }

    #[test]
    fn what_was_written_is_read_again_and_nothing_else_is() {
        let location = small();
        let file = location.encode(1).unwrap();
        assert_eq!(Location::decode(&file), Ok(location));
        for cut in [0, 4, 12, 20, file.len() - 1] {
            assert!(Location::decode(&file[..cut]).is_err(), "{cut}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert!(Location::decode(&damaged).is_err(), "{at}");
        }
    }

    #[test]
    fn the_empty_one_knows_nothing_and_can_be_kept() {
        let empty = Location::empty();
        assert_eq!(empty.cell("8.8.8.8".parse().unwrap()), UNKNOWN);
        assert_eq!(Location::decode(&empty.encode(1).unwrap()), Ok(empty));
    }

    proptest! {
        #[test]
        fn starts_are_found_as_in_a_plain_list(
            steps in prop::collection::vec(prop_oneof![1u64..200, 1u64..1 << 20, 1u64..1 << 40], 0..200),
            keys in prop::collection::vec(0u64..1 << 48, 20),
        ) {
            let mut list = vec![0u64];
            for step in steps {
                let next = list[list.len() - 1] + step;
                list.extend((next < 1 << 48).then_some(next));
            }
            let mut packed = Starts::default();
            list.iter().for_each(|start| packed.push(*start));
            let packed = packed.finish();
            let around = list.iter().flat_map(|start| [*start, start + 1, start.saturating_sub(1)]);
            for key in keys.into_iter().chain(around).filter(|key| key >> 48 == 0) {
                prop_assert_eq!(packed.last_up_to(key), list.partition_point(|start| *start <= key) - 1);
            }
            for (number, start) in list.iter().enumerate() {
                prop_assert_eq!(packed.get(number), Some(*start));
            }
            prop_assert_eq!(packed.get(list.len()), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Past the checksum, too: whoever makes the file may be wrong in every byte.
        #[test]
        fn no_content_makes_a_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), address: u128) {
            let file = small().encode(1).unwrap();
            let mut content = zstd::bulk::decompress(&file[16..], 1 << 20).unwrap();
            for (index, byte) in &edits {
                let at = index.index(content.len());
                content[at] = *byte;
            }
            if let Ok(location) = Location::decode_content(&content[..]) {
                let cell = location.cell(IpAddr::from(address.to_be_bytes()));
                prop_assert!(usize::from(cell) < location.cells().len());
            }
        }
    }
}
