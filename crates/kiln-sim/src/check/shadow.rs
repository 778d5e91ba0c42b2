//! The cells of global memory, for one worker and one launch.
//!
//! A worker runs its blocks one after the other and sees their accesses in its own cells, so nothing is shared while
//! blocks run. What two workers recorded of the same bytes is compared after the launch; their blocks had no order.

use std::collections::HashMap;

use super::cell::{Cell, Event, ReaderLists, unordered_pair};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Cells of a page.
pub(crate) const CELLS: usize = PAGE as usize / 4;

/// Which cells of a page were accessed: one bit each.
pub(crate) type Bits = [u64; CELLS / 64];

#[derive(Debug, Default)]
pub(crate) struct GlobalShadow {
    index: HashMap<u64, usize>,
    pages: Vec<(u64, Box<[Cell]>)>,
    last: Option<(u64, usize)>,
    pub(crate) lists: ReaderLists,
}

impl GlobalShadow {
    /// The cell of an address, and the lists that it may refer to.
    #[inline]
    pub(crate) fn cell(&mut self, address: u64) -> (&mut Cell, &mut ReaderLists) {
        let number = address / PAGE;
        let at = match self.last {
            Some((last, at)) if last == number => at,
            _ => self.page(number),
        };
        (&mut self.pages[at].1[(address % PAGE / 4) as usize], &mut self.lists)
    }

    fn page(&mut self, number: u64) -> usize {
        let at = *self.index.entry(number).or_insert_with(|| {
            self.pages.push((number, vec![Cell::NEW; CELLS].into_boxed_slice()));
            self.pages.len() - 1
        });
        self.last = Some((number, at));
        at
    }

    /// The pages in order of address: address, cells read, cells written.
    pub(crate) fn accesses(&self) -> Vec<(u64, Bits, Bits)> {
        let mut found: Vec<_> = self
            .pages
            .iter()
            .map(|(number, cells)| {
                let (mut reads, mut writes) = ([0; CELLS / 64], [0; CELLS / 64]);
                for (n, cell) in cells.iter().enumerate() {
                    reads[n / 64] |= u64::from(cell.was_read()) << (n % 64);
                    writes[n / 64] |= u64::from(cell.last_write().is_some()) << (n % 64);
                }
                (number * PAGE, reads, writes)
            })
            .collect();
        found.sort_unstable_by_key(|page| page.0);
        found
    }

    /// The first races between two workers: address, and the two accesses.
    pub(crate) fn races(&self, other: &GlobalShadow, most: usize) -> Vec<(u64, Event, Event)> {
        let mut shared: Vec<u64> =
            self.index.keys().filter(|number| other.index.contains_key(number)).copied().collect();
        shared.sort_unstable();
        let mut found = Vec::new();
        for number in shared {
            let (a, b) = (&self.pages[self.index[&number]].1, &other.pages[other.index[&number]].1);
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                if let Some((first, second)) = unordered_pair(a, &self.lists, b, &other.lists) {
                    found.push((number * PAGE + 4 * n as u64, first, second));
                    if found.len() == most {
                        return found;
                    }
                }
            }
        }
        found
    }
}
