//! Races between operations: launches, copies and fills that are not ordered by streams, events or the host.
//!
//! For each page the operations that accessed it are kept, with the cells that they read and wrote, until a later
//! operation that comes after them accesses the same cells, or until the host has waited for them. (FastTrack's rule: what
//! conflicts with the earlier and is not ordered after it is not ordered after the later either.)
//!
//! Errs towards reports: cells are four bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::stamp::Stamp;

use super::shadow::{Bits, CELLS, PAGE};

#[derive(Debug)]
struct Record {
    stamp: Arc<Stamp>,
    reads: Bits,
    writes: Bits,
}

/// Operations by page.
#[derive(Debug, Default)]
pub(crate) struct History {
    pages: HashMap<u64, Vec<Record>>,
    /// Allocations that came in their turn, by their first address: to each of their pages they are the first write.
    allocated: BTreeMap<u64, (u64, Arc<Stamp>)>,
}

/// A conflict between operations: where, and with which.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    pub(crate) address: u64,
    pub(crate) earlier: Arc<Stamp>,
    pub(crate) earlier_writes: bool,
}

fn and(a: &Bits, b: &Bits) -> Option<usize> {
    a.iter()
        .zip(b)
        .enumerate()
        .find_map(|(n, (x, y))| (x & y != 0).then(|| n * 64 + (x & y).trailing_zeros() as usize))
}

fn clear(bits: &mut Bits, by: &Bits) {
    bits.iter_mut().zip(by).for_each(|(x, y)| *x &= !y);
}

/// The allocation that a page is of, if it came in its turn.
fn allocation_of(allocated: &BTreeMap<u64, (u64, Arc<Stamp>)>, page: u64) -> Option<Arc<Stamp>> {
    let (base, (bytes, stamp)) = allocated.range(..page + PAGE).next_back()?;
    (base + bytes > page).then(|| stamp.clone())
}

impl History {
    /// Records what an operation accessed of a page; the first conflict with an operation that it does not come after.
    pub(crate) fn record(
        &mut self,
        page: u64,
        reads: &Bits,
        writes: &Bits,
        stamp: &Arc<Stamp>,
    ) -> Option<Conflict> {
        let allocated = &self.allocated;
        let records = self.pages.entry(page).or_insert_with(|| {
            let all = |stamp| Record { stamp, reads: [0; CELLS / 64], writes: [u64::MAX; CELLS / 64] };
            allocation_of(allocated, page).map(all).into_iter().collect()
        });
        let mut conflict = None;
        for record in records.iter_mut() {
            if !Arc::ptr_eq(&record.stamp, stamp) && !stamp.follows(&record.stamp) {
                let written = and(&record.writes, reads).or_else(|| and(&record.writes, writes));
                let found = written.or_else(|| and(&record.reads, writes));
                if let (Some(cell), None) = (found, &conflict) {
                    conflict = Some(Conflict {
                        address: page + 4 * cell as u64,
                        earlier: record.stamp.clone(),
                        earlier_writes: written.is_some(),
                    });
                }
                continue;
            }
            clear(&mut record.reads, reads);
            clear(&mut record.reads, writes);
            clear(&mut record.writes, writes);
        }
        let host = &stamp.host;
        records.retain(|record| {
            host.get(record.stamp.timeline) < record.stamp.number
                && record.reads.iter().chain(&record.writes).any(|bits| *bits != 0)
        });
        records.push(Record { stamp: stamp.clone(), reads: *reads, writes: *writes });
        conflict
    }

    /// Records an access to a range of bytes.
    pub(crate) fn record_range(
        &mut self,
        address: u64,
        bytes: u64,
        write: bool,
        stamp: &Arc<Stamp>,
    ) -> Option<Conflict> {
        let mut conflict = None;
        let mut at = address;
        while at < address + bytes {
            let page = at / PAGE * PAGE;
            let end = (address + bytes).min(page + PAGE);
            let mut touched = [0; CELLS / 64];
            let (first, last) = ((at - page) / 4, (end - 1 - page) / 4);
            for (n, word) in touched.iter_mut().enumerate() {
                let (low, high) = (64 * n as u64, 64 * n as u64 + 63);
                if first <= high && last >= low {
                    let (from, to) = (first.max(low) - low, last.min(high) - low);
                    *word = u64::MAX >> (63 - to) & u64::MAX << from;
                }
            }
            let none = [0; CELLS / 64];
            let found = if write {
                self.record(page, &none, &touched, stamp)
            } else {
                self.record(page, &touched, &none, stamp)
            };
            conflict = conflict.or(found);
            at = end;
        }
        conflict
    }

    /// Notes that memory is there from an operation on. It takes no room for pages that nobody touches.
    pub(crate) fn allocate(&mut self, address: u64, bytes: u64, stamp: &Arc<Stamp>) {
        self.allocated.insert(address, (bytes, stamp.clone()));
    }

    /// The first conflict of an operation that writes to all of a range, which is then to be forgotten.
    pub(crate) fn end(&self, address: u64, bytes: u64, stamp: &Arc<Stamp>) -> Option<Conflict> {
        let conflict = |page: u64, record: &Record| {
            let touched: Bits = std::array::from_fn(|n| record.reads[n] | record.writes[n]);
            let cell = and(&touched, &[u64::MAX; CELLS / 64]).filter(|_| !stamp.follows(&record.stamp))?;
            let earlier_writes = record.writes.iter().any(|bits| *bits != 0);
            Some(Conflict { address: page + 4 * cell as u64, earlier: record.stamp.clone(), earlier_writes })
        };
        let of = |page: u64| {
            self.pages.get(&page).into_iter().flatten().rev().find_map(|record| conflict(page, record))
        };
        // The lowest, whatever the order of the map, and there the newest.
        let found = self.pages_of(address, bytes).into_iter().filter_map(of);
        let untouched = || {
            let (_, allocated) = self.allocated.get(&address)?;
            let earlier = (!stamp.follows(allocated)).then(|| allocated.clone())?;
            Some(Conflict { address, earlier, earlier_writes: true })
        };
        found.min_by_key(|conflict| conflict.address).or_else(untouched)
    }

    /// The pages of a range, but for some that nobody has touched.
    fn pages_of(&self, address: u64, bytes: u64) -> Vec<u64> {
        let numbers = address / PAGE..(address + bytes).div_ceil(PAGE);
        if bytes / PAGE > self.pages.len() as u64 {
            self.pages.keys().copied().filter(|page| numbers.contains(&(page / PAGE))).collect()
        } else {
            numbers.map(|number| number * PAGE).collect()
        }
    }

    /// Forgets a range that was freed.
    pub(crate) fn forget(&mut self, address: u64, bytes: u64) {
        self.allocated.remove(&address);
        for page in self.pages_of(address, bytes) {
            self.pages.remove(&page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Clock;

    fn stamp(timeline: usize, number: u64, after: &[(usize, u64)]) -> Arc<Stamp> {
        let mut clock = Clock::default();
        after.iter().for_each(|&(timeline, number)| clock.advance(timeline, number));
        Arc::new(Stamp {
            timeline,
            number,
            clock: Arc::new(clock),
            host: Arc::default(),
            label: Arc::from("test"),
        })
    }

    #[test]
    fn unordered_operations_conflict_where_one_writes_the_same_bytes() {
        let mut history = History::default();
        let (a, b) = (stamp(0, 1, &[]), stamp(1, 1, &[]));
        assert!(history.record_range(8192, 100, true, &a).is_none());
        assert!(history.record_range(8192 + 100, 50, true, &b).is_none(), "other bytes");
        let conflict = history.record_range(8192 + 96, 8, false, &b).unwrap();
        assert_eq!(conflict.address, 8192 + 96);
        assert!(conflict.earlier_writes && Arc::ptr_eq(&conflict.earlier, &a));
    }

    #[test]
    fn reads_do_not_conflict_and_order_clears() {
        let mut history = History::default();
        assert!(history.record_range(0x5000, 9000, false, &stamp(0, 1, &[])).is_none());
        assert!(history.record_range(0x5000, 9000, false, &stamp(1, 1, &[])).is_none());
        assert!(history.record_range(0x5000, 9000, true, &stamp(2, 1, &[(0, 1), (1, 1)])).is_none());
        assert!(history.record_range(0x7000, 4, false, &stamp(1, 2, &[(1, 1)])).is_some());
    }

    /// It is the first write to every page, and takes no room for those that nobody touches.
    #[test]
    fn an_allocation_is_a_write_to_all_of_it() {
        let mut history = History::default();
        let allocation = stamp(0, 1, &[]);
        history.allocate(0x5000, 1 << 40, &allocation);
        assert!(history.pages.is_empty());
        let early = history.record_range(0x7_0000_0000, 4, false, &stamp(1, 1, &[])).unwrap();
        assert!(early.earlier_writes && Arc::ptr_eq(&early.earlier, &allocation));
        assert!(history.record_range(0x8_0000_0000, 4, true, &stamp(1, 2, &[(0, 1), (1, 1)])).is_none());
        assert!(
            history.record_range(0x5000 + (1 << 40), 4, true, &stamp(1, 3, &[(1, 2)])).is_none(),
            "beyond it"
        );
        assert_eq!(history.pages.len(), 3);
        let free = |after: &[(usize, u64)]| history.end(0x5000, 1 << 40, &stamp(2, 1, after));
        assert_eq!(free(&[(0, 1), (1, 1)]).unwrap().address, 0x8_0000_0000);
        assert!(free(&[(0, 1), (1, 2)]).is_none());
        history.forget(0x5000, 1 << 40);
        assert!(history.record_range(0x7_0000_0000, 4, false, &stamp(3, 1, &[])).is_none());
    }

    #[test]
    fn an_earlier_reader_is_not_forgotten_behind_a_later_one() {
        let mut history = History::default();
        history.record_range(0x5000, 4, false, &stamp(0, 1, &[]));
        history.record_range(0x5000, 4, false, &stamp(1, 1, &[]));
        assert!(history.record_range(0x5000, 4, true, &stamp(2, 1, &[(1, 1)])).is_some());
    }
}
