//! Races: the last write and the reads since, for each four bytes.
//!
//! The algorithm is FastTrack (Flanagan and Freund, "FastTrack: Efficient and Precise Dynamic Race Detection", 2009) with
//! the views of [`super::view`] in the place of vector clocks: an access is compared with the last write and, if it
//! writes, with the reads since; whatever is not known to have happened before it is a race. Reads are kept by warp, each
//! with its lanes and its time, not as one last reader. A cell of which a part has been accessed is split into its bytes,
//! or holds who has read each, until it is next written as a whole ([`bytes`]).
//!
//! Which way it errs. Towards reports:
//! - lanes of a warp are threads: what orders them is `bar.warp.sync`, a barrier or an mbarrier, not running in step;
//! - two lanes that store to one address with one instruction are reported, even if the values are equal;
//! - reads by more than [`MANY`] warps are merged into one of all blocks between the first and the last.
//!
//! A weak read by a stranger, a block that nothing can order before those to come, stands for all reads after it: whoever
//! writes races with it.
//!
//! Towards silence: only the schedule that ran is judged. A read that would have seen another value under another schedule
//! of *atomics* is not found; many seeds help.

mod bytes;

use slab::Slab;

use crate::isa::Scope;

pub(crate) use bytes::{WHOLE, unordered_pair};

use super::view::{COPIER, Knower, Neighbours, PENDING, Who, block_of, warp_of};

/// Readers that are kept apart.
pub(crate) const MANY: usize = 64;

/// What a strong access (atomic, relaxed, volatile) is; weak ones have none.
pub(crate) type Strength = Option<Strong>;

/// A strong access: its scope, and the bytes of an element. Of other sizes two overlap in part, and then neither is strong to the other
/// (PTX ISA, "Morally strong operations").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strong {
    pub(crate) scope: Scope,
    pub(crate) bytes: u8,
}

/// One access, as findings name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) who: Who,
    pub(crate) time: u32,
    pub(crate) pc: u32,
}

/// Reads of a warp.
#[derive(Clone, Copy, Debug)]
struct Reader {
    warp: u32,
    lanes: u32,
    time: u32,
    pc: u32,
}

/// Four bytes of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    write_time: u32,
    write_who: Who,
    write_pc: u32,
    /// Time of the newest read; 0 for none.
    read_time: u32,
    /// One reader: its warp. Several: index of their list. Merged: the first and the last block.
    read_who: u32,
    read_set: u32,
    read_pc: u32,
    write_strength: u8,
    read_strength: u8,
    readers: Readers,
    /// Bytes that have been written, one bit each; and flags above those.
    pub(crate) init: u8,
}

/// Set in [`Cell::init`] of what an asynchronous copy reads, or has read.
pub(crate) const READING: u8 = 0x40;

/// Set in [`Cell::init`] of a cell that is split: its bytes are at `read_who` of the lists' parts.
const SPLIT: u8 = 0x20;

/// Set in [`Cell::init`] of a cell of which lanes of one warp have read bytes at `read_time`, and no more is known: `read_set` has
/// for each byte the lane, plus one.
const BYTES: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    None,
    One,
    List,
    Blocks,
}

impl Cell {
    pub(crate) const NEW: Cell = Cell {
        write_time: 0,
        write_who: 0,
        write_pc: 0,
        read_time: 0,
        read_who: 0,
        read_set: 0,
        read_pc: 0,
        write_strength: 0,
        read_strength: 0,
        readers: Readers::None,
        init: 0,
    };

    /// The last write, if there was one.
    pub(crate) fn last_write(&self) -> Option<Event> {
        (self.write_time > 0).then_some(Event {
            who: self.write_who,
            time: self.write_time,
            pc: self.write_pc,
        })
    }

    /// A cell of which no more is known than an ordinary write to all of it.
    pub(crate) fn written(write: Event) -> Cell {
        Cell { write_time: write.time, write_who: write.who, write_pc: write.pc, init: WHOLE, ..Cell::NEW }
    }

    /// The last write, if no more is known of the cell than [`Cell::written`] says.
    pub(crate) fn sole_write(&self) -> Option<Event> {
        let alone = self.init == WHOLE && self.write_strength == 0 && self.readers == Readers::None;
        self.last_write().filter(|_| alone && !self.is_pending())
    }

    /// Whether all four bytes were written no later than `floor`, by ordinary writes of block `number`: any thread
    /// that knows that block up to then may read them.
    #[inline(always)]
    pub(crate) fn is_settled(&self, floor: u32, number: u32) -> bool {
        self.init == 15 && self.write_time <= floor && self.write_who >> 10 == number
    }

    /// Whether nothing of the cell itself speaks against an ordinary write by a thread that knows its block up to `floor`.
    #[inline(always)]
    pub(crate) fn may_be_written(&self, floor: u32, who: Who) -> bool {
        let ordered = self.write_time <= floor && self.write_who >> 10 == who >> 10 || self.write_who == who;
        (ordered || self.write_time == 0)
            && self.write_time != PENDING
            && self.init & !15 == 0
            && (self.readers == Readers::None
                || self.readers == Readers::One && self.reader_is_known(floor, who))
    }

    /// Whether the one warp that has read is known to a thread that knows its block up to `floor`: as of its block, or
    /// as itself.
    #[inline(always)]
    fn reader_is_known(&self, floor: u32, who: Who) -> bool {
        let settled = self.read_who >> 5 == who >> 10 && self.read_time <= floor;
        settled || self.read_who == who >> 5 && self.read_set == 1 << (who & 31)
    }

    /// Records an ordinary write that [`Cell::may_be_written`] still allows; whether it does.
    #[inline(always)]
    pub(crate) fn write_plainly(&mut self, floor: u32, who: Who, now: u32, pc: u32) -> bool {
        let allowed = self.may_be_written(floor, who);
        if allowed {
            self.write_time = now;
            self.write_who = who;
            self.write_pc = pc;
            self.write_strength = 0;
            self.readers = Readers::None;
            self.read_time = 0;
            self.init = 15;
        }
        allowed
    }

    /// Records an ordinary read of a cell that nobody has written in this launch, where it needs no list; whether it
    /// is so.
    #[inline(always)]
    pub(crate) fn read_plainly(&mut self, by: Reading, lanes: u32) -> bool {
        if self.write_time != 0 {
            return false;
        }
        if self.readers == Readers::None {
            self.readers = Readers::One;
            self.read_who = by.warp;
            self.read_set = lanes;
            self.read_strength = 0;
        } else if self.readers != Readers::One || self.read_strength != 0 {
            return false;
        } else if self.read_who == by.warp {
            let known = self.read_time <= by.known && self.read_time != by.now;
            self.read_set = if known { lanes } else { self.read_set | lanes };
        } else {
            return !by.neighbours.has(self.read_who >> 5);
        }
        self.read_time = by.now;
        self.read_pc = by.pc;
        true
    }

    /// Whether an asynchronous write is under way.
    pub(crate) fn is_pending(&self) -> bool {
        self.write_time == PENDING
    }

    /// Marks the asynchronous write complete: known to those who know of `who` at `time`.
    pub(crate) fn complete(&mut self, who: Who, time: u32) {
        self.write_who = who;
        self.write_time = time;
    }
}

/// An ordinary read by some lanes of a warp that all know the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) warp: u32,
    pub(crate) now: u32,
    pub(crate) pc: u32,
    /// Up to when the lanes know of each other.
    pub(crate) known: u32,
    pub(crate) neighbours: Neighbours,
}

/// Zero, or the scope, and above its two bits the size.
fn strength_code(strength: Strength) -> u8 {
    let Some(Strong { scope, bytes }) = strength else { return 0 };
    let scope = match scope {
        Scope::Cta => 1,
        Scope::Cluster => 2,
        Scope::Gpu => 3,
    };
    scope | (bytes.trailing_zeros() as u8) << 2
}

/// The code of two accesses that are kept as one: no stronger than either.
fn weaker(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 || a >> 2 != b >> 2 { 0 } else { a.min(b) }
}

/// Lists of readers, for the cells that have several.
#[derive(Debug, Default)]
pub(crate) struct ReaderLists {
    lists: Slab<Vec<Reader>>,
    /// Bytes of the cells that are split.
    parts: Slab<[Cell; 4]>,
}

/// What the check of an access needs besides the cell.
pub(crate) struct Judge<'a> {
    pub(crate) me: Knower<'a>,
    pub(crate) now: u32,
    pub(crate) pc: u32,
    pub(crate) strength: Strength,
    /// Blocks in a cluster: who is in the scope `.cluster`.
    pub(crate) cluster_blocks: u32,
    pub(crate) neighbours: Neighbours,
}

impl Judge<'_> {
    /// Whether two strong accesses are of the same bytes, and include each other's threads in their scopes.
    fn morally_strong(&self, other: Who, code: u8) -> bool {
        let scope = weaker(strength_code(self.strength), code) & 3;
        if scope == 0 || other & COPIER != 0 {
            return false;
        }
        let (a, b) = (block_of(self.me.who), block_of(other));
        let needed = if a == b {
            1
        } else if a / self.cluster_blocks == b / self.cluster_blocks {
            2
        } else {
            3
        };
        scope >= needed
    }

    fn write_is_ordered(&self, cell: &Cell) -> bool {
        cell.write_time == 0
            || self.me.knows(cell.write_who, cell.write_time)
            || self.morally_strong(cell.write_who, cell.write_strength)
    }

    /// The last write, if it is not known to have happened before.
    fn unordered_write(&self, cell: &Cell) -> Option<Event> {
        if self.write_is_ordered(cell) { None } else { cell.last_write() }
    }

    /// Judges and records a read; the write that it races with, if any.
    #[inline]
    fn read(&self, cell: &mut Cell, lists: &mut ReaderLists) -> Option<Event> {
        let conflict = self.unordered_write(cell);
        self.record_read(cell, lists);
        conflict
    }

    #[inline]
    fn record_read(&self, cell: &mut Cell, lists: &mut ReaderLists) {
        if self.keeps_stranger(cell, lists) {
            return;
        }
        let (warp, lane) = (warp_of(self.me.who), 1u32 << (self.me.who & 31));
        let code = strength_code(self.strength);
        match cell.readers {
            Readers::One if cell.read_who == warp => {
                cell.read_set = if cell.read_time == self.now || !self.me_knows_warp(cell.read_time) {
                    cell.read_set | lane
                } else {
                    lane
                };
                // Who writes strongly need not know of either: a weak read before this one still counts.
                cell.read_strength = weaker(cell.read_strength, code);
            }
            Readers::None => self.sole_reader(cell, warp, lane, code),
            _ if self.knows_readers(cell, lists) => {
                if cell.readers == Readers::List {
                    lists.lists.remove(cell.read_who as usize);
                }
                self.sole_reader(cell, warp, lane, code);
            }
            _ => self.join_readers(cell, lists, warp, lane, code),
        }
        cell.read_time = self.now;
        cell.read_pc = self.pc;
    }

    fn me_knows_warp(&self, time: u32) -> bool {
        time <= self.me.block_floor || time <= self.me.warp_floor
    }

    fn sole_reader(&self, cell: &mut Cell, warp: u32, lane: u32, code: u8) {
        cell.readers = Readers::One;
        cell.read_who = warp;
        cell.read_set = lane;
        cell.read_strength = code;
    }

    /// Whether a recorded weak read is by a stranger, with whom whoever writes next has a race anyway. Then it is kept
    /// alone, as the next reads will be by strangers too.
    fn keeps_stranger(&self, cell: &mut Cell, lists: &mut ReaderLists) -> bool {
        let first = match cell.readers {
            Readers::One => Some(cell.read_who),
            Readers::List => lists.lists[cell.read_who as usize].first().map(|reader| reader.warp),
            Readers::None | Readers::Blocks => None,
        };
        let found = cell.read_strength == 0 && first.is_some_and(|warp| !self.neighbours.has(warp >> 5));
        if found && cell.readers == Readers::List {
            let list = cell.read_who;
            let Reader { warp, lanes, time, pc } = lists.lists[list as usize][0];
            lists.lists.remove(list as usize);
            cell.readers = Readers::One;
            (cell.read_who, cell.read_set, cell.read_time, cell.read_pc) = (warp, lanes, time, pc);
        }
        found
    }

    /// Whether all recorded reads happened before, so that this one can stand for them. Cheap cases only.
    fn knows_readers(&self, cell: &Cell, lists: &ReaderLists) -> bool {
        let block = block_of(self.me.who);
        let mine = match cell.readers {
            Readers::One => cell.read_who >> 5 == block,
            Readers::List => {
                lists.lists[cell.read_who as usize].iter().all(|reader| reader.warp >> 5 == block)
            }
            _ => false,
        };
        mine && cell.read_time <= self.me.block_floor
    }

    fn join_readers(&self, cell: &mut Cell, lists: &mut ReaderLists, warp: u32, lane: u32, code: u8) {
        cell.read_strength = weaker(cell.read_strength, code);
        if cell.readers == Readers::One {
            let first =
                Reader { warp: cell.read_who, lanes: cell.read_set, time: cell.read_time, pc: cell.read_pc };
            cell.read_who = lists.lists.insert(vec![first]) as u32;
            cell.readers = Readers::List;
        }
        if cell.readers == Readers::List {
            let list = &mut lists.lists[cell.read_who as usize];
            if let Some(reader) = list.iter_mut().find(|reader| reader.warp == warp) {
                reader.lanes |= lane;
                (reader.time, reader.pc) = (self.now, self.pc);
                return;
            }
            if list.len() < MANY {
                list.push(Reader { warp, lanes: lane, time: self.now, pc: self.pc });
                return;
            }
            let (first, last) =
                list.iter().fold((u32::MAX, 0), |(a, b), r| (a.min(r.warp >> 5), b.max(r.warp >> 5)));
            lists.lists.remove(cell.read_who as usize);
            cell.readers = Readers::Blocks;
            (cell.read_who, cell.read_set) = (first, last);
        }
        cell.read_who = cell.read_who.min(warp >> 5);
        cell.read_set = cell.read_set.max(warp >> 5);
    }

    /// Judges and records a write; the write or read that it races with, if any.
    #[inline]
    fn write(&self, cell: &mut Cell, lists: &mut ReaderLists) -> Option<Event> {
        let mut conflict = self.unordered_write(cell);
        if cell.readers != Readers::None {
            conflict = conflict.or_else(|| self.unordered_reader(cell, lists));
            if cell.readers == Readers::List {
                lists.lists.remove(cell.read_who as usize);
            }
            cell.readers = Readers::None;
            cell.read_time = 0;
        }
        cell.write_time = self.now;
        cell.write_who = self.me.who;
        cell.write_pc = self.pc;
        cell.write_strength = strength_code(self.strength);
        conflict
    }

    /// A write by the copy engine on behalf of `who`: pending until [`Cell::complete`].
    pub(crate) fn write_pending(&self, cell: &mut Cell, lists: &mut ReaderLists, who: Who) -> Option<Event> {
        let conflict = self.write_bytes(cell, WHOLE, lists);
        cell.write_time = PENDING;
        cell.write_who = who;
        conflict
    }

    fn unordered_reader(&self, cell: &Cell, lists: &ReaderLists) -> Option<Event> {
        let lanes_unknown = |reader: Reader| {
            (0..32)
                .filter(|lane| reader.lanes >> lane & 1 == 1)
                .map(|lane| reader.warp << 5 | lane)
                .find(|who| {
                    !self.me.knows(*who, reader.time) && !self.morally_strong(*who, cell.read_strength)
                })
                .map(|who| Event { who, time: reader.time, pc: reader.pc })
        };
        match cell.readers {
            Readers::None => None,
            Readers::One => lanes_unknown(Reader {
                warp: cell.read_who,
                lanes: cell.read_set,
                time: cell.read_time,
                pc: cell.read_pc,
            }),
            Readers::List => {
                lists.lists[cell.read_who as usize].iter().find_map(|reader| lanes_unknown(*reader))
            }
            Readers::Blocks => {
                let all = |block: u32| {
                    self.me.knows(block << 10 | 1023, cell.read_time)
                        || self.morally_strong(block << 10, cell.read_strength)
                };
                let unknown = (cell.read_who..=cell.read_set).find(|block| !all(*block));
                unknown.map(|block| Event { who: block << 10, time: cell.read_time, pc: cell.read_pc })
            }
        }
    }
}

impl ReaderLists {
    /// One of the reads of a cell, to name it.
    fn some_reader(&self, cell: &Cell) -> Option<Event> {
        let who = match cell.readers {
            Readers::None => return None,
            Readers::One => cell.read_who << 5 | cell.read_set.trailing_zeros(),
            Readers::List => {
                let first = self.lists[cell.read_who as usize].first()?;
                return Some(Event {
                    who: first.warp << 5 | first.lanes.trailing_zeros(),
                    time: first.time,
                    pc: first.pc,
                });
            }
            Readers::Blocks => cell.read_who << 10,
        };
        Some(Event { who, time: cell.read_time, pc: cell.read_pc })
    }
}

#[cfg(test)]
mod tests;
