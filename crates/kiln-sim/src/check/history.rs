//! Races between operations: launches, copies and fills that are not ordered by streams, events or the host.
//!
//! For each page the operations that accessed it are kept, with the cells that they read and wrote, until a later
//! operation that comes after them accesses the same cells, or until the host has waited for them. (FastTrack's rule: what
//! conflicts with the earlier and is not ordered after it is not ordered after the later either.)
//!
//! Errs towards reports: cells are four bytes.

use std::collections::HashMap;
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

impl History {
    /// Records what an operation accessed of a page; the first conflict with an operation that it does not come after.
    pub(crate) fn record(
        &mut self,
        page: u64,
        reads: &Bits,
        writes: &Bits,
        stamp: &Arc<Stamp>,
    ) -> Option<Conflict> {
        let records = self.pages.entry(page).or_default();
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

    /// Forgets a range that was freed.
    pub(crate) fn forget(&mut self, address: u64, bytes: u64) {
        let last = (address + bytes).div_ceil(PAGE);
        if bytes / PAGE > self.pages.len() as u64 {
            self.pages.retain(|page, _| *page < address / PAGE * PAGE || *page >= last * PAGE);
        } else {
            (address / PAGE..last).for_each(|number| {
                self.pages.remove(&(number * PAGE));
            });
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

    #[test]
    fn an_earlier_reader_is_not_forgotten_behind_a_later_one() {
        let mut history = History::default();
        history.record_range(0x5000, 4, false, &stamp(0, 1, &[]));
        history.record_range(0x5000, 4, false, &stamp(1, 1, &[]));
        assert!(history.record_range(0x5000, 4, true, &stamp(2, 1, &[(1, 1)])).is_some());
    }
}
