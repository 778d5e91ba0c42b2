//! The machine: runs the blocks of a launch.
//!
//! A worker runs blocks one after the other; the blocks of a cluster, and all blocks of a cooperative launch, together.
//! Blocks that may talk to each other through global memory (the kernel has atomics or ordered accesses there) are run by
//! one worker, so that the order of what they do is the schedule's and not the host's; others are spread over the host's
//! threads, each of which keeps its own record of accesses.

mod access;
mod asynchronous;
mod atomic;
mod barrier;
mod convert;
mod exchange;
mod float;
mod halves;
mod integer;
mod lifetime;
mod mbarrier;
mod order;
mod plain;
mod proxy;
mod regs;
mod report;
mod schedule;
mod sources;
mod state;
mod step;
mod system;
mod tensor;
mod wgmma;
mod words;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rayon::prelude::*;

use crate::check::shadow::{EndedShadow, GlobalShadow};
use crate::check::view::{Neighbours, START};
use crate::finding::{Finding, Kind};
use crate::isa::{Function, Program};
use crate::memory::{Allocation, GlobalMemory};
use crate::num::mma::TensorCore;

use asynchronous::AsyncOp;
use order::Released;
use proxy::Fence;
use sources::BulkSource;
use state::{Block, Cluster};

/// Findings of one launch that are kept.
const MOST_FINDINGS: usize = 20;

/// In which order things run that a program leaves unordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The same each time.
    Fixed,
    /// Random, from a seed.
    Seeded(u64),
}

impl Schedule {
    fn is_random(self) -> bool {
        matches!(self, Schedule::Seeded(_))
    }
}

/// A launch, as the machine needs it.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Program,
    pub(crate) function: usize,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) cluster: [u32; 3],
    pub(crate) explicit_cluster: bool,
    pub(crate) dynamic_shared: u32,
    pub(crate) cooperative: bool,
    /// Where the barrier of a cooperative launch's grid lies; 0 for other launches.
    pub(crate) workspace: u64,
    pub(crate) params: &'a [u8],
    pub(crate) memory: &'a GlobalMemory,
    pub(crate) tensor_core: TensorCore,
    pub(crate) checks: bool,
    pub(crate) schedule: Schedule,
    pub(crate) fuel: u64,
    pub(crate) threads: usize,
    pub(crate) number: u64,
}

/// What a launch did.
pub(crate) struct Outcome {
    pub(crate) findings: Vec<Finding>,
    pub(crate) instructions: u64,
    /// What each worker accessed.
    pub(crate) shadows: Vec<EndedShadow>,
    /// What the kernel printed.
    pub(crate) printed: String,
}

impl Launch<'_> {
    fn function(&self) -> &Function {
        &self.program.functions[self.function]
    }

    fn clusters(&self) -> [u32; 3] {
        std::array::from_fn(|axis| self.grid[axis] / self.cluster[axis])
    }

    fn cluster_blocks(&self) -> u32 {
        self.cluster.iter().product()
    }

    /// The blocks that can be ordered with a block: those of its cluster, unless all may talk to each other.
    fn neighbours(&self, block: u32) -> Neighbours {
        if self.cooperative || self.function().communicates {
            return Neighbours::ALL;
        }
        let count = self.cluster_blocks();
        Neighbours { first: block / count * count, count }
    }

    /// Runs all blocks.
    pub(crate) fn run(&self) -> Outcome {
        let clusters = self.clusters().iter().map(|n| u64::from(*n)).product::<u64>();
        let snapshot = self.memory.snapshot();
        let alone = self.cooperative || self.function().communicates || clusters == 1;
        let workers = if alone { 1 } else { (self.threads as u64).clamp(1, clusters) };
        let share = clusters.div_ceil(workers);
        let run = |worker: u64| {
            let range = worker * share..((worker + 1) * share).min(clusters);
            let mut machine = Machine::new(self, &snapshot);
            machine.run_clusters(range);
            machine.end()
        };
        let ended: Vec<Ended> =
            if workers == 1 { vec![run(0)] } else { (0..workers).into_par_iter().map(run).collect() };
        self.collect(ended)
    }

    fn collect(&self, ended: Vec<Ended>) -> Outcome {
        let mut outcome =
            Outcome { findings: Vec::new(), instructions: 0, shadows: Vec::new(), printed: String::new() };
        for worker in ended {
            outcome.instructions += worker.instructions;
            outcome.findings.extend(worker.findings);
            outcome.shadows.push(worker.shadow);
            outcome.printed += &worker.printed;
        }
        if self.checks {
            for first in 0..outcome.shadows.len() {
                for second in first + 1..outcome.shadows.len() {
                    let races = outcome.shadows[first].races(&outcome.shadows[second], MOST_FINDINGS);
                    let mut seen: Vec<(u32, u32)> = Vec::new();
                    for (address, a, b) in races {
                        if !seen.contains(&(a.pc, b.pc)) {
                            seen.push((a.pc, b.pc));
                            outcome.findings.push(report::race(
                                self,
                                b,
                                a,
                                "global",
                                address,
                                4,
                                self.memory.describe(address),
                            ));
                        }
                    }
                }
            }
        }
        outcome.findings.truncate(MOST_FINDINGS);
        outcome
    }
}

struct Ended {
    findings: Vec<Finding>,
    instructions: u64,
    shadow: EndedShadow,
    printed: String,
}

/// A worker and the blocks that it runs together.
pub(crate) struct Machine<'a> {
    launch: &'a Launch<'a>,
    memory: &'a [Arc<Allocation>],
    /// For each instruction the allocation that it hit last.
    hints: Vec<u32>,
    blocks: Vec<Block>,
    clusters: Vec<Cluster>,
    shadow: GlobalShadow,
    /// The time of accesses: moves on at each synchronisation.
    now: u32,
    cluster_blocks: u32,
    /// What has been released, by address of global memory, or by block and offset of shared memory.
    released: HashMap<u64, Vec<Released>>,
    operations: Vec<AsyncOp>,
    /// What bulk copies read, by the number of the first operation.
    sources: BTreeMap<u64, BulkSource>,
    /// Proxy fences, by the warp's number in the grid.
    fences: HashMap<u32, VecDeque<Fence>>,
    next_operation: u64,
    mbarriers: u32,
    findings: Vec<Finding>,
    seen: HashMap<(Kind, u32, u32), ()>,
    /// Of a random schedule.
    random: Option<SmallRng>,
    instructions: u64,
    /// How many there were when the blocks that run now began.
    blocks_began: u64,
    /// Stores, arrivals and the like: whether anything still happens.
    events: u64,
    stopped: bool,
    printed: String,
}

impl<'a> Machine<'a> {
    fn new(launch: &'a Launch<'a>, memory: &'a [Arc<Allocation>]) -> Machine<'a> {
        Machine {
            launch,
            memory,
            hints: vec![0; launch.program.code.len()],
            blocks: Vec::new(),
            clusters: Vec::new(),
            shadow: GlobalShadow::default(),
            now: START + 1,
            cluster_blocks: launch.cluster_blocks(),
            released: HashMap::new(),
            operations: Vec::new(),
            sources: BTreeMap::new(),
            fences: HashMap::new(),
            next_operation: 1,
            mbarriers: 0,
            findings: Vec::new(),
            seen: HashMap::new(),
            random: None,
            instructions: 0,
            blocks_began: 0,
            events: 0,
            stopped: false,
            printed: String::new(),
        }
    }

    fn end(self) -> Ended {
        Ended {
            findings: self.findings,
            instructions: self.instructions,
            shadow: self.shadow.end(),
            printed: self.printed,
        }
    }

    /// Moves the time on; what happened up to `T`, the value returned, is before what comes next.
    fn tick(&mut self) -> u32 {
        let before = self.now;
        self.now += 1;
        before
    }
}
