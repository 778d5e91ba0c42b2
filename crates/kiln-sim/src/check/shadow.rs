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

    /// The pages in order of address: address, cells read, cells written.
    pub(crate) fn accesses(&self) -> Vec<(u64, Bits, Bits)> {
        let mut found: Vec<_> = self
            .pages
            .iter()
            .map(|(number, cells)| {
                let (mut reads, mut writes) = ([0; CELLS / 64], [0; CELLS / 64]);
                for (n, cell) in cells.iter().enumerate() {
                    reads[n / 64] |= u64::from(cell.was_read(&self.lists)) << (n % 64);
                    writes[n / 64] |= u64::from(cell.was_written(&self.lists)) << (n % 64);
                }
                (number * PAGE, reads, writes)
            })
            .collect();
        found.sort_unstable_by_key(|page| page.0);
        found
    }

    /// The first races between two workers: address, and the two accesses.
    pub(crate) fn races(&self, other: &GlobalShadow, most: usize) -> Vec<(u64, Event, Event)> {
        let mut found = Vec::new();
        for (mine, theirs) in self.tables.iter().zip(&other.tables) {
            for (a, b) in mine.iter().zip(theirs).filter(|(a, b)| **a > 0 && **b > 0) {
                let ((number, a), (_, b)) = (&self.pages[*a as usize - 1], &other.pages[*b as usize - 1]);
                for (n, (a, b)) in a.iter().zip(b).enumerate() {
                    if let Some((first, second)) = unordered_pair(a, &self.lists, b, &other.lists) {
                        found.push((number * PAGE + 4 * n as u64, first, second));
                        if found.len() == most {
                            return found;
                        }
                    }
                }
            }
        }
        found
    }
}
