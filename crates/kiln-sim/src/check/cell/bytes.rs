//! Accesses to some bytes of a cell.
//!
//! Different bytes are different memory, so neighbours may write 16-bit elements of one word. Most cells are never accessed
//! but as a whole; one that is, is split into a cell for each byte, which lie beside the lists of readers. Most of those again
//! are only read, each byte by one lane of a warp: then who that was fits into the cell itself.

use super::{BYTES, Cell, Event, Judge, ReaderLists, Readers, Reading, SPLIT};

/// All four bytes of a cell.
pub(crate) const WHOLE: u8 = 15;

fn those(bytes: u8) -> impl Iterator<Item = usize> {
    (0..4).filter(move |byte| bytes >> byte & 1 == 1)
}

impl Cell {
    /// Whether more is known than of the cell as a whole: it is split, or holds who read its bytes.
    fn is_by_bytes(&self) -> bool {
        self.init & (SPLIT | BYTES) != 0
    }

    /// The cells of the bytes: four times itself, if it is not split.
    pub(super) fn parts(&self, lists: &ReaderLists) -> [Cell; 4] {
        if self.init & SPLIT != 0 {
            lists.parts[self.read_who as usize]
        } else if self.init & BYTES != 0 {
            self.read_set.to_le_bytes().map(|lane| self.read_by(lane))
        } else {
            [*self; 4]
        }
    }

    /// The cell of a byte that a lane, plus one, has read, or none has.
    fn read_by(&self, lane: u8) -> Cell {
        let init = self.init & !BYTES;
        match lane.checked_sub(1) {
            None => Cell { init, ..Cell::NEW },
            Some(lane) => Cell {
                read_time: self.read_time,
                read_who: self.read_who,
                read_set: 1 << lane,
                read_pc: self.read_pc,
                readers: Readers::One,
                init,
                ..Cell::NEW
            },
        }
    }

    /// Records an ordinary read of some bytes in the cell itself, where there is room for it; whether it is so.
    fn read_bytes_plainly(&mut self, bytes: u8, by: Reading, lane: usize) -> bool {
        if !self.is_by_bytes() && self.write_time == 0 && self.readers == Readers::None {
            *self = Cell {
                // A time that is not zero keeps the short ways off the cell, as the flag does.
                write_time: 1,
                read_time: by.now,
                read_who: by.warp,
                read_pc: by.pc,
                init: self.init | BYTES,
                ..Cell::NEW
            };
        }
        if self.init & BYTES == 0 {
            return false;
        }
        let mut by_lane = self.read_set.to_le_bytes();
        if !by.neighbours.has(self.read_who >> 5) {
            return those(bytes).all(|byte| by_lane[byte] > 0);
        }
        let lane = lane as u8 + 1;
        let fits = (self.read_who, self.read_time, self.read_pc) == (by.warp, by.now, by.pc)
            && those(bytes).all(|byte| by_lane[byte] == 0 || by_lane[byte] == lane);
        if fits {
            those(bytes).for_each(|byte| by_lane[byte] = lane);
            self.read_set = u32::from_le_bytes(by_lane);
        }
        fits
    }

    /// Splits the cell, unless it is; where its parts are.
    fn split(&mut self, lists: &mut ReaderLists) -> usize {
        if self.init & SPLIT != 0 {
            return self.read_who as usize;
        }
        let mut parts = self.parts(lists);
        if self.readers == Readers::List {
            for part in &mut parts[1..] {
                part.read_who = lists.copy(self.read_who);
            }
        }
        let index = lists.parts.insert(parts);
        // A time that is not zero keeps the short ways off the cell, as the flag does.
        *self = Cell { init: self.init & !BYTES | SPLIT, read_who: index as u32, write_time: 1, ..Cell::NEW };
        index
    }

    /// The last writes: of the cell as a whole, or of each of its bytes.
    pub(crate) fn writes(&self, lists: &ReaderLists) -> [Option<Event>; 4] {
        match self.is_by_bytes() {
            true => self.parts(lists).map(|part| part.last_write()),
            false => [self.last_write(), None, None, None],
        }
    }

    /// Whether any byte has been read.
    pub(crate) fn was_read(&self, lists: &ReaderLists) -> bool {
        match self.init & SPLIT != 0 {
            true => lists.parts[self.read_who as usize].iter().any(|part| part.readers != Readers::None),
            false => self.readers != Readers::None || self.init & BYTES != 0,
        }
    }

    /// Whether any byte has been written.
    pub(crate) fn was_written(&self, lists: &ReaderLists) -> bool {
        match self.init & SPLIT != 0 {
            true => lists.parts[self.read_who as usize].iter().any(|part| part.last_write().is_some()),
            false => self.last_write().is_some() && self.init & BYTES == 0,
        }
    }
}

impl ReaderLists {
    /// Records an ordinary read of some bytes of a cell, as [`Cell::read_plainly`] does of all; whether it is so.
    #[inline]
    pub(crate) fn read_part_plainly(&mut self, cell: &mut Cell, bytes: u8, by: Reading, lane: usize) -> bool {
        if cell.read_bytes_plainly(bytes, by, lane) {
            return true;
        }
        if !cell.is_by_bytes() && cell.write_time != 0 {
            return false;
        }
        let index = cell.split(self);
        let parts = &mut self.parts[index];
        those(bytes).all(|byte| parts[byte].read_plainly(by, 1 << lane))
    }

    fn copy(&mut self, index: u32) -> u32 {
        let list = self.lists[index as usize].clone();
        self.lists.insert(list) as u32
    }
}

impl Judge<'_> {
    /// The last write to any of some bytes that is not known to have happened before.
    #[inline]
    pub(crate) fn unordered_write_of(&self, cell: &Cell, bytes: u8, lists: &ReaderLists) -> Option<Event> {
        if !cell.is_by_bytes() {
            return self.unordered_write(cell);
        }
        let parts = cell.parts(lists);
        those(bytes).find_map(|byte| self.unordered_write(&parts[byte]))
    }

    /// Judges and records a read of some bytes, one bit each; the write that it races with, if any.
    #[inline]
    pub(crate) fn read_bytes(&self, cell: &mut Cell, bytes: u8, lists: &mut ReaderLists) -> Option<Event> {
        match self.as_whole(cell, bytes) {
            true => self.read(cell, lists),
            false => self.each(cell, bytes, lists, |part, lists| self.read(part, lists)),
        }
    }

    /// Judges and records a write of some bytes, one bit each; the write or read that it races with, if any.
    #[inline]
    pub(crate) fn write_bytes(&self, cell: &mut Cell, bytes: u8, lists: &mut ReaderLists) -> Option<Event> {
        if self.as_whole(cell, bytes) {
            return self.write(cell, lists);
        }
        let found = self.each(cell, bytes, lists, |part, lists| self.write(part, lists));
        if bytes == WHOLE {
            // All bytes have the same last write now, and no readers.
            let parts = lists.parts.remove(cell.read_who as usize);
            *cell = Cell { init: cell.init & !SPLIT, ..parts[0] };
        }
        found
    }

    /// What is under way for the whole cell is in conflict with any of its bytes: no need to split it.
    fn as_whole(&self, cell: &Cell, bytes: u8) -> bool {
        !cell.is_by_bytes() && (bytes == WHOLE || cell.is_pending())
    }

    fn each(
        &self,
        cell: &mut Cell,
        bytes: u8,
        lists: &mut ReaderLists,
        judge: impl Fn(&mut Cell, &mut ReaderLists) -> Option<Event>,
    ) -> Option<Event> {
        let index = cell.split(lists);
        let mut found = None;
        for byte in those(bytes) {
            let mut part = lists.parts[index][byte];
            let race = judge(&mut part, lists);
            lists.parts[index][byte] = part;
            found = found.or(race);
        }
        found
    }
}

/// The race between what two workers recorded of one cell in one launch, where nothing orders them.
pub(crate) fn unordered_pair(
    a: &Cell,
    a_lists: &ReaderLists,
    b: &Cell,
    b_lists: &ReaderLists,
) -> Option<(Event, Event)> {
    if !a.was_written(a_lists) && !b.was_written(b_lists) {
        return None;
    }
    if !a.is_by_bytes() && !b.is_by_bytes() {
        return pair(a, a_lists, b, b_lists);
    }
    let (a, b) = (a.parts(a_lists), b.parts(b_lists));
    a.iter().zip(&b).find_map(|(a, b)| pair(a, a_lists, b, b_lists))
}

fn pair(a: &Cell, a_lists: &ReaderLists, b: &Cell, b_lists: &ReaderLists) -> Option<(Event, Event)> {
    match (a.last_write(), b.last_write()) {
        (Some(x), Some(y)) => Some((x, y)),
        (Some(x), None) => b_lists.some_reader(b).map(|y| (x, y)),
        (None, Some(y)) => a_lists.some_reader(a).map(|x| (x, y)),
        (None, None) => None,
    }
}
