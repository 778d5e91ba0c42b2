//! Blocks, warps, and the groups of lanes that run together.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use crate::check::cell::Event;
use crate::check::shared::SharedShadow;
use crate::check::view::{Knower, Level, Neighbours, View, WarpView, Who, block_of};
use crate::isa::{Function, Registers};

use super::regs::{Row, Row64, lanes};
use super::sources::Source;
use super::wgmma::{Products, Warpgroup, product_agent};

/// Where a frame's registers start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) pred: u32,
    pub(super) r32: u32,
    pub(super) r64: u32,
    /// Of the thread's local memory, in bytes.
    pub(super) local: u32,
}

/// Where a call goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) return_pc: u32,
    pub(super) site: u32,
    pub(super) function: u32,
    pub(super) base: Base,
}

/// What a group of lanes waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Nothing,
    /// The other lanes that this instruction needs.
    Lanes {
        needed: u32,
    },
    /// `bar.warp.sync` with this mask.
    WarpSync {
        mask: u32,
    },
    /// Barrier of the block.
    Barrier {
        id: u8,
    },
    /// The barrier has let it go, with the result of a reduction.
    Released {
        value: u32,
    },
}

/// Lanes at one place in the program.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) pc: u32,
    pub(super) mask: u32,
    pub(super) function: u32,
    pub(super) base: Base,
    pub(super) stack: Vec<Frame>,
    pub(super) wait: Wait,
    pub(super) made: Made,
}

/// What has been made of a strong access that a group makes bit by bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    /// Elements that all lanes have made, and lanes that have made the next.
    pub(super) elements: u8,
    pub(super) lanes: u32,
    /// A lane makes all of its elements at once.
    pub(super) by_lane: bool,
    /// The last element is the first.
    pub(super) descending: bool,
}

/// A `cp.async` under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub(super) offset: u32,
    pub(super) bytes: u8,
    pub(super) data: [u32; 4],
    /// What it reads, if anything.
    pub(super) source: Option<Source>,
}

/// A bulk copy to global memory that its thread has not waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct BulkStore {
    /// Number of the operation, and of its source.
    pub(super) id: u64,
    /// Allocation and offset of the destination.
    pub(super) index: usize,
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

/// A thread's asynchronous copies.
#[derive(Clone, Debug, Default)]
pub(super) struct Copies {
    pub(super) open: Vec<Copy>,
    pub(super) groups: VecDeque<Vec<Copy>>,
    /// Bulk groups: copies of the open one, and of those committed.
    pub(super) bulk_open: Vec<BulkStore>,
    pub(super) bulk_groups: VecDeque<Vec<BulkStore>>,
    /// How many of those, the oldest, have been waited for as far as they read.
    pub(super) bulk_read: usize,
}

/// Lanes that have accessed memory, one bit each: since the last meeting of the whole block, and of the whole warp.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touched {
    pub(super) since_block: u32,
    pub(super) since_warp: u32,
}

/// A warp.
#[derive(Clone, Debug)]
pub(super) struct Warp {
    pub(super) index: u32,
    /// Lanes that have a thread which has not exited.
    pub(super) live: u32,
    /// Lanes that have accessed memory since the block, or the warp, last met as a whole.
    pub(super) touched: Touched,
    /// Whether a lane exited after an access that the warp does not know of: then the warp's level covers it no more.
    pub(super) strays: bool,
    pub(super) groups: Vec<Group>,
    pub(super) pred: Vec<u32>,
    pub(super) r32: Vec<Row>,
    pub(super) r64: Vec<Row64>,
    /// Words of local memory, lane by lane for each word, with the bytes that have been written.
    pub(super) local: Vec<Row>,
    pub(super) local_init: Vec<[u8; 32]>,
    pub(super) view: WarpView,
    /// What a fence has made ready to be published, by scope.
    pub(super) fenced: [Option<Rc<View>>; 3],
    /// What relaxed reads have seen and a fence will make known.
    pub(super) seen: View,
    pub(super) copies: Vec<Copies>,
    /// The cluster barrier's generation in which each lane has arrived, plus one.
    pub(super) cluster_arrived: [u32; 32],
    /// Instructions since the last time that anything came of them.
    pub(super) polls: u32,
    /// Where it has last made a strong load, and how many events there had been then.
    pub(super) looked: (u32, u64),
    /// Turns that its groups have had, while there were several.
    pub(super) turns: u32,
    /// Whether it ended its slice because it made that load again.
    pub(super) looks_again: bool,
    /// Its part in the products of its warpgroup, where the program has any.
    pub(super) products: Option<Box<Products>>,
}

impl Warp {
    /// A warp at the start of a kernel, with `threads` lanes.
    pub(super) fn new(block: u32, index: u32, threads: u32, function: &Function, number: u32) -> Warp {
        let live = if threads >= 32 { u32::MAX } else { (1 << threads) - 1 };
        let Registers { pred, r32, r64 } = function.registers;
        let mut warp = Warp {
            index,
            live,
            touched: Touched::default(),
            strays: false,
            groups: Vec::with_capacity(4),
            pred: vec![0; pred as usize],
            r32: vec![[0; 32]; r32 as usize],
            r64: vec![[0; 32]; r64 as usize],
            local: vec![[0; 32]; function.local_bytes as usize / 4],
            local_init: vec![[0; 32]; function.local_bytes as usize / 4],
            view: WarpView::new(block),
            fenced: [None, None, None],
            seen: View::default(),
            copies: Vec::new(),
            cluster_arrived: [0; 32],
            polls: 0,
            looked: (u32::MAX, 0),
            turns: 0,
            looks_again: false,
            products: None,
        };
        warp.set_constants(function, Base::default(), u32::MAX);
        warp.groups.push(Group {
            pc: function.start,
            mask: live,
            function: number,
            base: Base::default(),
            stack: Vec::new(),
            wait: Wait::Nothing,
            made: Made::default(),
        });
        warp
    }

    /// Lanes access memory.
    #[inline(always)]
    pub(super) fn touch(&mut self, lanes: u32) {
        self.touched.since_block |= lanes;
        self.touched.since_warp |= lanes;
    }

    /// An empty stand-in while a warp runs.
    pub(super) fn absent() -> Warp {
        Warp {
            index: 0,
            live: 0,
            touched: Touched::default(),
            strays: false,
            groups: Vec::new(),
            pred: Vec::new(),
            r32: Vec::new(),
            r64: Vec::new(),
            local: Vec::new(),
            local_init: Vec::new(),
            view: WarpView::new(0),
            fenced: [None, None, None],
            seen: View::default(),
            copies: Vec::new(),
            cluster_arrived: [0; 32],
            polls: 0,
            looked: (u32::MAX, 0),
            turns: 0,
            looks_again: false,
            products: None,
        }
    }

    /// Makes room for a frame and sets its constants, which are the same for all lanes.
    pub(super) fn enter(&mut self, function: &Function, base: Base, mask: u32) {
        let Registers { pred, r32, r64 } = function.registers;
        let grow = |have: usize, need: u32| have.max(need as usize);
        self.pred.resize(grow(self.pred.len(), base.pred + pred), 0);
        self.r32.resize(grow(self.r32.len(), base.r32 + r32), [0; 32]);
        self.r64.resize(grow(self.r64.len(), base.r64 + r64), [0; 32]);
        let words = (base.local + function.local_bytes) / 4;
        self.local.resize(grow(self.local.len(), words), [0; 32]);
        self.local_init.resize(grow(self.local_init.len(), words), [0; 32]);
        self.set_constants(function, base, mask);
    }

    /// Only for the lanes of a mask: others may be in a frame of another function at the same place.
    fn set_constants(&mut self, function: &Function, base: Base, mask: u32) {
        for &(reg, value) in &function.constants32 {
            let row = &mut self.r32[base.r32 as usize + usize::from(reg)];
            fill(row, value, mask);
        }
        for &(reg, value) in &function.constants64 {
            let row = &mut self.r64[base.r64 as usize + usize::from(reg)];
            fill(row, value, mask);
        }
    }

    /// Whether a group could run.
    pub(super) fn is_ready(&self) -> bool {
        self.groups.iter().any(|group| matches!(group.wait, Wait::Nothing | Wait::Released { .. }))
    }
}

/// Gives some lanes of a row the same value.
fn fill<T: std::marker::Copy>(row: &mut [T; 32], value: T, mask: u32) {
    if mask == u32::MAX {
        *row = [value; 32];
    } else {
        lanes(mask).for_each(|lane| row[lane] = value);
    }
}

/// One of a block's sixteen barriers.
#[derive(Clone, Debug, Default)]
pub(super) struct Barrier {
    /// Threads that complete it, if given.
    pub(super) expected: Option<u32>,
    pub(super) arrived: u32,
    /// Instruction of the first arrival.
    pub(super) pc: u32,
    /// Warp, lanes, and the time up to which its accesses count: none if it waits.
    pub(super) parts: Vec<(u32, u32, Option<u32>)>,
    pub(super) view: View,
    pub(super) count: u32,
    pub(super) all: bool,
    pub(super) any: bool,
}

/// What those knew who have arrived at an mbarrier.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    /// Of the mbarrier's own block.
    pub(super) own: Rc<View>,
    /// Of all whose scope reaches it, its own block included.
    pub(super) all: Rc<View>,
}

/// An mbarrier.
#[derive(Clone, Debug)]
pub(super) struct Mbar {
    /// Number among all of the launch, for views.
    pub(super) number: u32,
    pub(super) phase: u64,
    /// Whether a thread has seen the phase before complete, if there was one.
    pub(super) waited: bool,
    /// Arrivals of each phase from now on.
    pub(super) expected: u32,
    pub(super) pending: u32,
    /// Bytes that are yet to come.
    pub(super) bytes: i64,
    /// What the arrivals of this phase knew.
    pub(super) arrivals: Arrivals,
    /// What those knew of the phases that are complete.
    pub(super) complete: Arrivals,
    /// Arrivals from other blocks: in this phase, and in phases that no thread of its own block has seen complete.
    pub(super) calls: Vec<Event>,
    pub(super) unseen_calls: Vec<Event>,
    /// Thread and instruction that made it.
    pub(super) who: Who,
    pub(super) pc: u32,
    /// How far its initialisation is known.
    pub(super) init: Init,
}

/// How far the initialisation of an mbarrier is known, beside what orders it like any store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Init {
    Done,
    /// Behind a `fence.mbarrier_init` of its thread.
    Fenced,
    /// Its thread has arrived at the barrier of the cluster since.
    Released,
    /// That barrier is complete.
    Known,
}

/// A block.
#[derive(Debug)]
pub(super) struct Block {
    /// Number in the grid.
    pub(super) number: u32,
    pub(super) id: [u32; 3],
    /// Number in its cluster.
    pub(super) rank: u32,
    /// Index of its cluster among those that run together.
    pub(super) cluster: usize,
    /// The blocks that it can be ordered with.
    pub(super) neighbours: Neighbours,
    pub(super) warps: Vec<Warp>,
    pub(super) live_threads: u32,
    /// Whether a thread exited after an access that no barrier of the whole block covers: then its level covers it no more.
    pub(super) strays: bool,
    pub(super) shared: Vec<u32>,
    pub(super) shared_bytes: u32,
    pub(super) shadow: SharedShadow,
    pub(super) barriers: Vec<Barrier>,
    pub(super) mbars: BTreeMap<u32, Mbar>,
    /// The last access to its shared memory by each thread of other blocks, and the offset.
    pub(super) visitors: BTreeMap<Who, (Event, u32)>,
    /// What its threads knew that have exited.
    pub(super) known_at_end: View,
    /// By the number of the first warp, divided by four.
    pub(super) warpgroups: Vec<Warpgroup>,
}

impl Block {
    /// A read of a word by the block's own warps that a writer does not know of.
    pub(super) fn unknown_reader(&self, word: usize, writer: &Knower<'_>) -> Option<Event> {
        let mut writer = *writer;
        if block_of(writer.who) != self.number {
            writer.block_floor = writer.view.get(Level::Block(self.number));
        }
        let first_warp = self.number << 5;
        let product = self.shadow.multiplied.of(word).zip(first_warp..).find_map(|(mark, warp)| {
            let agent = product_agent(warp);
            let is_known = mark.time <= writer.block_floor || writer.knows(agent, mark.time);
            (!is_known).then_some(Event { who: agent, time: mark.time, pc: mark.pc })
        });
        product.or_else(|| self.shadow.unknown_reader(word, &writer))
    }
}

/// What the blocks of a cluster share.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// Index of the first block, and how many there are.
    pub(super) first: usize,
    pub(super) count: u32,
    pub(super) id: [u32; 3],
    pub(super) generation: u32,
    pub(super) arrived: u32,
    pub(super) view: View,
    pub(super) complete: Rc<View>,
}

impl Cluster {
    /// The indices of its blocks.
    pub(super) fn blocks(&self) -> Range<usize> {
        self.first..self.first + self.count as usize
    }
}
