//! Reads of shared memory by the block's own warps: one mark for each warp and word.
//!
//! A read is recorded in its warp's row of marks, and a write looks at the marks of all warps. Marks are never cleared: what
//! happened before an ordered write is known to whatever is ordered after that write.

use super::cell::Event;
use super::view::Knower;

/// The last reads of a word by one warp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) time: u32,
    /// Lanes that have read it and may not be known to each other yet.
    pub(crate) lanes: u32,
    pub(crate) pc: u32,
}

/// A read by some lanes of a warp, by its number in the block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) warp: usize,
    pub(crate) mark: Mark,
    /// Up to when the lanes know of their warp.
    pub(crate) known: u32,
}

/// The marks of all words, a row for each warp.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    words: usize,
    marks: Vec<Mark>,
}

/// `N` entries of a row, from one on.
#[inline(always)]
pub(super) fn chunk<const N: usize, T>(row: &mut [T], at: usize) -> &mut [T; N] {
    let len = row.len();
    match row.get_mut(at..).and_then(<[T]>::first_chunk_mut) {
        Some(chunk) => chunk,
        None => panic!("words {at} to {} of {len}", at + N),
    }
}

impl Marks {
    pub(crate) fn new(words: usize, warps: usize) -> Marks {
        Marks { words, marks: vec![Mark::default(); words * warps] }
    }

    /// Records a read of `N` words from one on.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&mut self, word: usize, read: Read) {
        let Read { warp, mark, known } = read;
        let own = warp * self.words + word;
        for old in chunk::<N, _>(&mut self.marks, own) {
            let lanes = if old.time <= known { mark.lanes } else { old.lanes | mark.lanes };
            *old = Mark { lanes, ..mark };
        }
    }

    /// The marks of a word, warp by warp.
    pub(crate) fn of(&self, word: usize) -> impl Iterator<Item = Mark> {
        self.marks.iter().copied().skip(word).step_by(self.words.max(1))
    }

    /// A read of a word that a writer does not know of.
    pub(crate) fn unknown_reader(&self, word: usize, first_warp: u32, me: &Knower<'_>) -> Option<Event> {
        self.of(word).zip(first_warp..).filter(|(mark, _)| mark.time > me.block_floor).find_map(
            |(mark, warp)| {
                (0..32)
                    .filter(|lane| mark.lanes >> lane & 1 == 1)
                    .map(|lane| warp << 5 | lane)
                    .find(|who| !me.knows(*who, mark.time))
                    .map(|who| Event { who, time: mark.time, pc: mark.pc })
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::{Level, View};
    use super::*;

    fn knower(who: u32, view: &View, block_floor: u32) -> Knower<'_> {
        Knower { who, block_floor, warp_floor: 0, view }
    }

    fn read(warp: usize, time: u32, lanes: u32, known: u32) -> Read {
        Read { warp, mark: Mark { time, lanes, pc: 0 }, known }
    }

    #[test]
    fn a_writer_must_know_of_every_lane_that_read() {
        let mut marks = Marks::new(3, 4);
        marks.read::<1>(2, read(1, 5, 1 << 3, 0));
        marks.read::<1>(2, read(1, 5, 1 << 4, 0));
        let view = View::default();
        let unknown =
            |floor| marks.unknown_reader(2, 0, &knower(32 + 3, &view, floor)).map(|event| event.who);
        assert_eq!(unknown(4), Some(32 + 4));
        assert_eq!(unknown(5), None);
    }

    #[test]
    fn each_warp_keeps_its_own_time() {
        let mut marks = Marks::new(1, 2);
        marks.read::<1>(0, read(0, 5, 1, 0));
        marks.read::<1>(0, read(1, 20, 1, 0));
        let mut view = View::default();
        view.learn(Level::Warp(0), 7);
        view.learn(Level::Warp(1), 25);
        let unknown =
            |marks: &Marks| marks.unknown_reader(0, 0, &knower(64, &view, 0)).map(|event| event.who);
        assert_eq!(unknown(&marks), None);
        marks.read::<1>(0, read(0, 26, 1, 0));
        assert_eq!(unknown(&marks), Some(0));
    }

    #[test]
    fn lanes_that_are_known_are_forgotten() {
        let mut marks = Marks::new(1, 1);
        let last = |marks: &Marks| marks.of(0).map(|mark| (mark.lanes, mark.time)).collect::<Vec<_>>();
        marks.read::<1>(0, read(0, 5, 1, 0));
        marks.read::<1>(0, read(0, 9, 2, 6));
        assert_eq!(last(&marks), [(2, 9)]);
        marks.read::<1>(0, read(0, 10, 4, 6));
        assert_eq!(last(&marks), [(6, 10)]);
    }

    #[test]
    fn a_read_of_several_words_marks_those_and_no_others() {
        let mut marks = Marks::new(7, 3);
        marks.read::<4>(2, read(1, 5, 1, 0));
        for word in 0..7 {
            let mark =
                if (2..6).contains(&word) { Mark { time: 5, lanes: 1, pc: 0 } } else { Mark::default() };
            let none = Mark::default();
            assert_eq!(marks.of(word).collect::<Vec<_>>(), [none, mark, none], "word {word}");
        }
    }
}
