//! The words of a block's shared memory: the last write to each, and the reads since.
//!
//! Most of them are written as a whole by a thread of the block, and read as a whole by its warps. Of such a word the
//! time, the thread and the instruction of the last write are kept, which are short to look through, and its reads as
//! [`Marks`]. A word of which there is more to say has a [`Cell`], until it is written in that way again.

use std::ops::Range;

use slab::Slab;

use super::cell::{Cell, Event, ReaderLists};
use super::reads::{Marks, Read, chunk};
use super::view::{Knower, PENDING, Who};

/// In the place of the time of a write: the word has a cell, whose number is in the place of the thread.
const CELL: u32 = PENDING;

/// An ordinary write of whole words by a thread of the block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) who: Who,
    pub(crate) now: u32,
    pub(crate) pc: u32,
    /// Up to when the thread knows its block.
    pub(crate) floor: u32,
}

/// Who last wrote a word.
#[derive(Clone, Copy, Debug, Default)]
struct Writer {
    who: Who,
    pc: u32,
}

/// What happened to the shared memory of a block.
#[derive(Debug)]
pub(crate) struct SharedShadow {
    /// Number of the block in the grid.
    number: u32,
    /// Time of the last write to each word: 0 where there is none.
    written: Vec<u32>,
    writers: Vec<Writer>,
    /// Time of the last of each word's marks. A row of its own: what is read of one beside it would wait for a store to this.
    marked: Vec<u32>,
    cells: Slab<Cell>,
    lists: ReaderLists,
    /// Reads by the block's own warps.
    reads: Marks,
    /// Reads by products that have been waited for, where the program has products.
    pub(crate) multiplied: Marks,
}

impl SharedShadow {
    /// Nothing has happened yet.
    pub(crate) fn new(number: u32, words: usize, warps: usize, has_products: bool) -> SharedShadow {
        SharedShadow {
            number,
            written: vec![0; words],
            marked: vec![0; words],
            writers: vec![Writer::default(); words],
            cells: Slab::new(),
            lists: ReaderLists::default(),
            reads: Marks::new(words, warps),
            multiplied: if has_products { Marks::new(words, warps) } else { Marks::default() },
        }
    }

    /// What is known of a word, and the lists that this may refer to.
    pub(crate) fn get(&self, word: usize) -> (Cell, &ReaderLists) {
        let Writer { who, pc } = self.writers[word];
        let cell = match self.written[word] {
            CELL => self.cells[who as usize],
            0 => Cell::NEW,
            time => Cell::written(Event { who, time, pc }),
        };
        (cell, &self.lists)
    }

    /// The cell of a word, which it has from now on.
    pub(crate) fn cell(&mut self, word: usize) -> (&mut Cell, &mut ReaderLists) {
        if self.written[word] != CELL {
            let (cell, _) = self.get(word);
            self.writers[word].who = self.cells.insert(cell) as u32;
            self.written[word] = CELL;
        }
        (&mut self.cells[self.writers[word].who as usize], &mut self.lists)
    }

    /// The words that have cells.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (usize, &Cell)> {
        let with_cells = self.written.iter().enumerate().filter(|(_, time)| **time == CELL);
        with_cells.map(|(word, _)| (word, &self.cells[self.writers[word].who as usize]))
    }

    /// The word needs no cell: this is all that is known.
    fn keep_write(&mut self, word: usize, write: Event) {
        if self.written[word] == CELL {
            self.cells.remove(self.writers[word].who as usize);
        }
        self.written[word] = write.time;
        self.writers[word] = Writer { who: write.who, pc: write.pc };
    }

    /// Records an ordinary read of a word by lanes of the block.
    pub(crate) fn mark(&mut self, word: usize, read: Read) {
        self.mark_all::<1>(word, read);
    }

    #[inline(always)]
    fn mark_all<const N: usize>(&mut self, word: usize, read: Read) {
        self.reads.read::<N>(word, read);
        *chunk(&mut self.marked, word) = [read.mark.time; N];
    }

    /// A read of a word by lanes of the block that a writer does not know of.
    pub(crate) fn unknown_reader(&self, word: usize, me: &Knower<'_>) -> Option<Event> {
        let may_be = self.marked[word] > me.block_floor;
        may_be.then(|| self.reads.unknown_reader(word, self.number << 5, me)).flatten()
    }

    /// Records an ordinary read of `N` words from one on by lanes that know their block up to `floor`; whether the block wrote
    /// all of them before that.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&mut self, word: usize, floor: u32, read: Read) -> bool {
        self.mark_all::<N>(word, read);
        let written = chunk::<N, _>(&mut self.written, word);
        let settled = written.iter().fold(true, |settled, time| settled & is_known(*time, floor));
        settled || (word..word + N).all(|word| self.is_settled(word, floor))
    }

    /// Whether the block wrote a word no later than `floor`. A cell that says no more than that is given up.
    fn is_settled(&mut self, word: usize, floor: u32) -> bool {
        if self.written[word] != CELL {
            return is_known(self.written[word], floor);
        }
        let cell = self.cells[self.writers[word].who as usize];
        let settled = cell.is_settled(floor, self.number);
        if settled && let Some(write) = cell.sole_write() {
            self.keep_write(word, write);
        }
        settled
    }

    /// Records an ordinary write of `N` words from one on, if nothing speaks against it; whether that is so.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&mut self, word: usize, write: Write) -> bool {
        let Write { who, now, pc, floor } = write;
        let after = |times: &[u32; N]| times.iter().fold(false, |after, time| after | (*time > floor));
        if after(chunk(&mut self.marked, word)) {
            return false;
        }
        let written = chunk(&mut self.written, word);
        if after(written) {
            return self.write_each(word..word + N, write);
        }
        *written = [now; N];
        *chunk(&mut self.writers, word) = [Writer { who, pc }; N];
        true
    }

    fn write_each(&mut self, words: Range<usize>, write: Write) -> bool {
        let Write { who, now, pc, floor } = write;
        let allowed = words.clone().all(|word| self.get(word).0.may_be_written(floor, who));
        if allowed {
            words.for_each(|word| self.keep_write(word, Event { who, time: now, pc }));
        }
        allowed
    }
}

/// Whether a word was written, and no later than `floor`. Nobody has written it at 0, which becomes the last of all times here.
#[inline(always)]
fn is_known(write: u32, floor: u32) -> bool {
    write.wrapping_sub(1) < floor
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Judge, READING, Strong, WHOLE};
    use super::super::reads::Mark;
    use super::super::view::{Knower, Neighbours, View};
    use super::*;
    use crate::isa::Scope;

    const BLOCK: u32 = 3;

    fn shadow() -> SharedShadow {
        SharedShadow::new(BLOCK, 8, 2, false)
    }

    fn write(thread: u32, now: u32, floor: u32) -> Write {
        Write { who: BLOCK << 10 | thread, now, pc: 7, floor }
    }

    fn read(warp: usize, now: u32) -> Read {
        Read { warp, mark: Mark { time: now, lanes: 1, pc: 9 }, known: 0 }
    }

    #[test]
    fn a_write_is_what_a_cell_says_of_it() {
        let mut shadow = shadow();
        assert_eq!(shadow.get(1).0.last_write(), None);
        assert!(shadow.write::<2>(1, write(40, 5, 4)));
        let event = Event { who: BLOCK << 10 | 40, time: 5, pc: 7 };
        for word in 0..4 {
            let expected = (1..3).contains(&word).then_some(event);
            assert_eq!(shadow.get(word).0.last_write(), expected, "word {word}");
            assert_eq!(shadow.cell(word).0.last_write(), expected, "word {word}");
            assert_eq!(shadow.get(word).0.last_write(), expected, "word {word}, which has a cell");
            assert_eq!(shadow.get(word).0.init, if expected.is_some() { 15 } else { 0 });
        }
    }

    #[test]
    fn what_nobody_wrote_or_who_reads_does_not_know_is_not_settled() {
        let mut shadow = shadow();
        assert!(!shadow.read::<1>(0, u32::MAX - 1, read(0, 9)), "nobody has written it");
        assert!(shadow.write::<4>(4, write(1, 5, 4)));
        assert!(!shadow.read::<4>(4, 4, read(0, 9)));
        assert!(shadow.read::<4>(4, 5, read(0, 9)));
        shadow.cell(6);
        assert!(!shadow.read::<4>(4, 4, read(0, 9)), "with a cell");
        assert!(shadow.read::<4>(4, 5, read(0, 9)), "with a cell");
        assert!(!shadow.read::<2>(3, 5, read(0, 9)), "the first of two was never written");
    }

    #[test]
    fn a_write_must_know_the_write_before_or_be_by_the_same_thread() {
        for with_cell in [false, true] {
            let mut shadow = shadow();
            assert!(shadow.write::<4>(0, write(1, 5, 4)));
            if with_cell {
                shadow.cell(2);
            }
            assert!(!shadow.write::<4>(0, write(2, 6, 4)));
            assert!(shadow.write::<4>(0, write(1, 6, 4)), "its own");
            assert!(shadow.write::<4>(0, write(2, 7, 6)));
            assert_eq!(shadow.get(2).0.last_write().map(|write| write.time), Some(7));
        }
    }

    #[test]
    fn a_write_that_is_refused_changes_nothing() {
        let mut shadow = shadow();
        assert!(shadow.write::<1>(3, write(1, 5, 4)));
        assert!(!shadow.write::<4>(0, write(2, 6, 4)), "the last of four is not known");
        assert_eq!(shadow.get(0).0.last_write(), None);
    }

    #[test]
    fn a_write_must_know_every_read() {
        let mut shadow = shadow();
        assert!(shadow.write::<4>(0, write(1, 5, 4)));
        assert!(shadow.read::<1>(3, 5, read(1, 8)));
        assert!(!shadow.write::<4>(0, write(1, 9, 7)));
        assert!(shadow.write::<4>(0, write(1, 9, 8)));
    }

    #[test]
    fn flags_of_a_cell_stay_until_it_is_written_and_stand_against_that() {
        let mut shadow = shadow();
        assert!(shadow.write::<1>(0, write(1, 5, 4)));
        shadow.cell(0).0.init |= READING;
        assert!(!shadow.write::<1>(0, write(1, 9, 8)));
        assert!(!shadow.read::<1>(0, 5, read(0, 6)));
        assert_eq!(shadow.get(0).0.init, 15 | READING);
    }

    #[test]
    fn a_cell_that_says_more_than_a_write_is_kept() {
        let nothing = View::default();
        let me = |lane| Knower { who: BLOCK << 10 | lane, block_floor: 9, warp_floor: 0, view: &nothing };
        let judge = |lane, strength| Judge {
            me: me(lane),
            now: 9,
            pc: 1,
            strength,
            cluster_blocks: 1,
            neighbours: Neighbours::ALL,
        };
        // A strong write, and a read of a part.
        for (strength, read) in [(None, 0), (Some(Strong { scope: Scope::Gpu, bytes: 4 }), 0), (None, 1)] {
            let mut shadow = shadow();
            assert!(shadow.write::<1>(0, write(1, 5, 4)));
            let (cell, lists) = shadow.cell(0);
            judge(1, strength).write_bytes(cell, WHOLE, lists);
            if read > 0 {
                judge(2, None).read_bytes(cell, read, lists);
            }
            let settled = shadow.read::<1>(0, 9, self::read(0, 10));
            let plain = strength.is_none() && read == 0;
            assert_eq!(shadow.cells().count(), usize::from(!plain), "{strength:?}, {read}");
            assert_eq!(settled, read == 0, "{strength:?}, {read}");
        }
    }

    #[test]
    fn cells_are_used_again() {
        let mut shadow = shadow();
        for round in 1..9 {
            (0..8).for_each(|word| _ = shadow.cell(word));
            assert_eq!(shadow.cells().count(), 8);
            assert!(shadow.writers.iter().all(|writer| writer.who < 8), "numbers of cells");
            assert!(
                (0..8).all(|word| shadow.write::<1>(word, write(word as u32, 10 * round, 10 * round - 1)))
            );
            assert_eq!(shadow.cells().count(), 0);
        }
    }
}
