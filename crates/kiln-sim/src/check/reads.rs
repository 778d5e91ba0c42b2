//! Reads of shared memory by the block's own warps: one mark for each word and warp.
//!
//! A read is recorded by one store, and a write looks at the marks of all warps. Marks are never cleared: what happened
//! before an ordered write is known to whatever is ordered after that write.

use super::cell::Event;
use super::view::Knower;

/// The last reads of a word by one warp.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) time: u32,
    /// Lanes that have read it and may not be known to each other yet.
    pub(crate) lanes: u32,
    pub(crate) pc: u32,
}

impl Mark {
    /// Records a read at `now` by `lanes`, all of which know of their warp up to `known`.
    #[inline(always)]
    pub(crate) fn read(&mut self, now: u32, lanes: u32, pc: u32, known: u32) {
        self.lanes = if self.time <= known { lanes } else { self.lanes | lanes };
        self.time = now;
        self.pc = pc;
    }
}

/// A read among the marks of a word that a writer does not know of.
#[inline]
pub(crate) fn unknown_reader(marks: &[Mark], first_warp: u32, me: &Knower<'_>) -> Option<Event> {
    marks.iter().enumerate().filter(|(_, mark)| mark.time > me.block_floor).find_map(|(warp, mark)| {
        let warp = first_warp + warp as u32;
        (0..32)
            .filter(|lane| mark.lanes >> lane & 1 == 1)
            .map(|lane| warp << 5 | lane)
            .find(|who| !me.knows(*who, mark.time))
            .map(|who| Event { who, time: mark.time, pc: mark.pc })
    })
}

#[cfg(test)]
mod tests {
    use super::super::view::{Level, View};
    use super::*;

    fn knower(who: u32, view: &View, block_floor: u32) -> Knower<'_> {
        Knower { who, block_floor, warp_floor: 0, view }
    }

    #[test]
    fn a_writer_must_know_of_every_lane_that_read() {
        let mut marks = [Mark::default(); 4];
        marks[1].read(5, 1 << 3, 10, 0);
        marks[1].read(5, 1 << 4, 11, 0);
        let view = View::default();
        assert_eq!(unknown_reader(&marks, 0, &knower(32 + 3, &view, 4)).map(|e| e.who), Some(32 + 4));
        assert_eq!(unknown_reader(&marks, 0, &knower(32 + 3, &view, 5)), None);
    }

    #[test]
    fn each_warp_keeps_its_own_time() {
        let mut marks = [Mark::default(); 2];
        marks[0].read(5, 1, 0, 0);
        marks[1].read(20, 1, 0, 0);
        let mut view = View::default();
        view.learn(Level::Warp(0), 7);
        view.learn(Level::Warp(1), 25);
        assert_eq!(unknown_reader(&marks, 0, &knower(64, &view, 0)), None);
        marks[0].read(8, 1, 0, 0);
        assert_eq!(unknown_reader(&marks, 0, &knower(64, &view, 0)).map(|e| e.who), Some(0));
    }

    #[test]
    fn lanes_that_are_known_are_forgotten() {
        let mut mark = Mark::default();
        mark.read(5, 1, 0, 0);
        mark.read(9, 2, 0, 6);
        assert_eq!((mark.lanes, mark.time), (2, 9));
        mark.read(10, 4, 0, 6);
        assert_eq!(mark.lanes, 6);
    }
}
