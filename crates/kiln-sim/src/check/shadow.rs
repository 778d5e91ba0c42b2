//! The cells of global memory, for one worker and one launch.
//!
//! A worker runs its blocks one after the other and sees their accesses in its own cells, so nothing is shared while
//! blocks run. What two workers recorded of the same bytes is compared after the launch; their blocks had no order.

use super::cell::{Cell, Event, ReaderLists, unordered_pair};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Cells of a page.
pub(crate) const CELLS: usize = PAGE as usize / 4;

/// Which cells of a page were accessed: one bit each.
pub(crate) type Bits = [u64; CELLS / 64];

#[derive(Debug, Default)]
pub(crate) struct GlobalShadow {
    /// For each allocation, by its number in the launch, and each of its pages: number in `pages`, plus one.
    tables: Vec<Vec<u32>>,
    /// Numbers of pages (address / [`PAGE`]) and their cells.
    pages: Vec<(u64, Box<[Cell]>)>,
    pub(crate) lists: ReaderLists,
}

impl GlobalShadow {
    /// The cell of an address in allocation `index`, which starts at `base`, and the lists that it may refer to.
    #[inline]
    pub(crate) fn cell(&mut self, index: usize, base: u64, address: u64) -> (&mut Cell, &mut ReaderLists) {
        let (cells, lists) = self.row(index, base, address, 1);
        (&mut cells[0], lists)
    }

    /// The cells of `most` words from an address on, or of those of them that are on one page.
    #[inline]
    pub(crate) fn row(
        &mut self,
        index: usize,
        base: u64,
        address: u64,
        most: usize,
    ) -> (&mut [Cell], &mut ReaderLists) {
        let page = (address / PAGE - base / PAGE) as usize;
        let at = match self.tables.get(index).and_then(|table| table.get(page)) {
            Some(&at) if at > 0 => at as usize - 1,
            _ => self.new_page(index, page, address / PAGE),
        };
        let first = (address % PAGE / 4) as usize;
        (&mut self.pages[at].1[first..CELLS.min(first + most)], &mut self.lists)
    }

    #[cold]
    fn new_page(&mut self, index: usize, page: usize, number: u64) -> usize {
        if self.tables.len() <= index {
            self.tables.resize_with(index + 1, Vec::new);
        }
        let table = &mut self.tables[index];
        if table.len() <= page {
            table.resize(page + 1, 0);
        }
        // Two small allocations may share a page of addresses; each has cells of its own.
        self.pages.push((number, vec![Cell::NEW; CELLS].into_boxed_slice()));
        table[page] = self.pages.len() as u32;
        self.pages.len() - 1
    }

    /// What was accessed, page by page as they came into being.
    fn touched(&self) -> Vec<Accesses> {
        let touched = |(number, cells): &(u64, Box<[Cell]>)| {
            let (mut reads, mut writes) = ([0; CELLS / 64], [0; CELLS / 64]);
            for (n, cell) in cells.iter().enumerate() {
                reads[n / 64] |= u64::from(cell.was_read(&self.lists)) << (n % 64);
                writes[n / 64] |= u64::from(cell.was_written(&self.lists)) << (n % 64);
            }
            Accesses { address: number * PAGE, reads, writes }
        };
        self.pages.iter().map(touched).collect()
    }

    /// The worker's blocks have ended.
    pub(crate) fn end(self) -> EndedShadow {
        EndedShadow { touched: self.touched(), shadow: self }
    }
}

/// The cells of a page that were accessed.
#[derive(Clone, Debug)]
pub(crate) struct Accesses {
    /// Of the page.
    pub(crate) address: u64,
    pub(crate) reads: Bits,
    pub(crate) writes: Bits,
}

impl Accesses {
    /// The cells that both accessed and one wrote.
    fn conflicts<'t>(&'t self, other: &'t Accesses) -> impl Iterator<Item = usize> + 't {
        (0..CELLS / 64).flat_map(|n| {
            let (mine, theirs) = (self.writes[n], other.writes[n]);
            let both = mine & (other.reads[n] | theirs) | self.reads[n] & theirs;
            (0..64).filter(move |bit| both >> bit & 1 == 1).map(move |bit| 64 * n + bit)
        })
    }
}

/// The cells of a worker whose blocks have ended.
#[derive(Debug)]
pub(crate) struct EndedShadow {
    shadow: GlobalShadow,
    /// As the shadow's pages.
    touched: Vec<Accesses>,
}

impl EndedShadow {
    /// What was accessed, in order of address.
    pub(crate) fn accesses(&self) -> Vec<&Accesses> {
        let mut found: Vec<_> = self.touched.iter().collect();
        found.sort_unstable_by_key(|page| page.address);
        found
    }

    /// The first races between two workers: address, and the two accesses.
    pub(crate) fn races(&self, other: &EndedShadow, most: usize) -> Vec<(u64, Event, Event)> {
        let mut found = Vec::new();
        for (mine, theirs) in self.shadow.tables.iter().zip(&other.shadow.tables) {
            for (a, b) in mine.iter().zip(theirs).filter(|(a, b)| **a > 0 && **b > 0) {
                let (a, b) = (*a as usize - 1, *b as usize - 1);
                for cell in self.touched[a].conflicts(&other.touched[b]) {
                    let (mine, theirs) = (&self.shadow.pages[a].1[cell], &other.shadow.pages[b].1[cell]);
                    let race = unordered_pair(mine, &self.shadow.lists, theirs, &other.shadow.lists);
                    found.extend(race.map(|(a_event, b_event)| {
                        (self.touched[a].address + 4 * cell as u64, a_event, b_event)
                    }));
                    if found.len() == most {
                        return found;
                    }
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Judge, WHOLE};
    use super::super::view::{Knower, Neighbours, View};
    use super::*;

    /// What a worker's blocks did to some words of one allocation: the word, and whether they wrote it.
    fn worker(block: u32, accesses: &[(u64, bool)]) -> EndedShadow {
        const BASE: u64 = 0x10200;
        let (mut shadow, nothing) = (GlobalShadow::default(), View::default());
        let me = Knower { who: block << 10, block_floor: 0, warp_floor: 0, view: &nothing };
        let neighbours = Neighbours { first: block, count: 1 };
        let judge = Judge { me, now: 2, pc: block, strength: None, cluster_blocks: 1, neighbours };
        for (word, writes) in accesses {
            let (cell, lists) = shadow.cell(0, BASE, BASE + 4 * word);
            match writes {
                true => judge.write_bytes(cell, WHOLE, lists),
                false => judge.read_bytes(cell, WHOLE, lists),
            };
        }
        shadow.end()
    }

    #[test]
    fn workers_race_where_both_accessed_a_word_and_one_wrote_it() {
        let words = [0, 1, 63, 64, 895, 896, 5000];
        for (mine, theirs) in [(true, true), (true, false), (false, true), (false, false)] {
            let first = worker(3, &words.map(|word| (word, mine)));
            let second = worker(7, &[(2, true), (64, theirs), (896, theirs), (4999, true), (9000, true)]);
            let races = first.races(&second, 20);
            let found: Vec<_> = races.iter().map(|(address, a, b)| (*address, a.who, b.who)).collect();
            let at = |word: u64| (0x10200 + 4 * word, 3 << 10, 7 << 10);
            let expected = if mine || theirs { vec![at(64), at(896)] } else { vec![] };
            assert_eq!(found, expected, "{mine}, {theirs}");
            assert_eq!(first.races(&second, 1).len(), expected.len().min(1));
        }
    }
}
