//! Which warp runs, and when there is none that can.

use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::check::shared::SharedShadow;
use crate::check::view::{MAX_BLOCKS, View};
use crate::finding::{Finding, Kind};

use super::report::place;
use super::state::{Barrier, Block, Cluster, Wait, Warp};
use super::wgmma::Products;
use super::{Machine, Schedule};

/// Instructions that a warp may execute at a stretch on the fixed schedule.
const SLICE: u32 = 4096;
/// Instructions that may pass in all warps together without a store, an arrival, an exit.
const IDLE: u64 = 1 << 32;
/// Clusters that a random schedule runs at the same time where blocks communicate.
const TOGETHER: u64 = 4;

impl Machine<'_> {
    /// Runs clusters, by number.
    pub(super) fn run_clusters(&mut self, range: Range<u64>) {
        let most = match (
            self.launch.cooperative,
            self.launch.function().communicates && self.launch.schedule.is_random(),
        ) {
            (true, _) => u64::MAX,
            (false, true) => TOGETHER,
            (false, false) => 1,
        };
        let mut at = range.start;
        while at < range.end && !self.stopped {
            let end = range.end.min(at.saturating_add(most));
            self.blocks.clear();
            self.clusters.clear();
            for cluster in at..end {
                self.place_cluster(cluster);
            }
            self.begin_blocks(at);
            self.run_blocks();
            at = end;
        }
    }

    /// What runs together draws its own random numbers and has its own fuel: neither depends on which worker it falls to.
    fn begin_blocks(&mut self, cluster: u64) {
        if let Schedule::Seeded(seed) = self.launch.schedule {
            self.random = Some(SmallRng::seed_from_u64(seed ^ cluster << 32 ^ self.launch.number << 40));
        }
        self.blocks_began = self.instructions;
    }

    fn place_cluster(&mut self, number: u64) {
        let launch = self.launch;
        let count = launch.cluster_blocks();
        let clusters = launch.clusters();
        let number = (number % MAX_BLOCKS) as u32;
        let first = self.blocks.len();
        let id =
            [number % clusters[0], number / clusters[0] % clusters[1], number / (clusters[0] * clusters[1])];
        let cluster = self.clusters.len();
        self.clusters.push(Cluster { first, count, id, ..Cluster::default() });
        for rank in 0..count {
            let block = self.new_block(number * count + rank, rank, cluster);
            self.blocks.push(block);
        }
    }

    fn new_block(&self, number: u32, rank: u32, cluster: usize) -> Block {
        let launch = self.launch;
        let function = launch.function();
        let threads: u32 = launch.block.iter().product();
        let shared_bytes = function.shared_bytes.next_multiple_of(16) * u32::from(launch.dynamic_shared > 0)
            + function.shared_bytes * u32::from(launch.dynamic_shared == 0)
            + launch.dynamic_shared;
        let words = shared_bytes.div_ceil(4) as usize;
        // Where there are none, nothing need be watched.
        let products: Option<Box<Products>> = (!launch.program.wgmmas.is_empty()).then(Box::default);
        let warps = (0..threads.div_ceil(32))
            .map(|index| Warp::new(number, index, threads - 32 * index, function, launch.function as u32))
            .map(|warp| Warp { products: products.clone(), ..warp })
            .collect();
        Block {
            number,
            id: launch.block_id(number),
            rank,
            cluster,
            neighbours: launch.neighbours(number),
            warps,
            live_threads: threads,
            strays: false,
            shared: vec![0; words],
            shared_bytes,
            shadow: SharedShadow::new(number, words, threads.div_ceil(32) as usize, products.is_some()),
            barriers: vec![Barrier::default(); 16],
            mbars: Default::default(),
            visitors: Default::default(),
            known_at_end: View::default(),
            warpgroups: Vec::new(),
        }
    }

    /// Runs the blocks that are placed until all their threads have exited.
    fn run_blocks(&mut self) {
        self.sources.clear();
        self.fences.clear();
        let warps: Vec<(usize, usize)> = self
            .blocks
            .iter()
            .enumerate()
            .flat_map(|(b, block)| (0..block.warps.len()).map(move |w| (b, w)))
            .collect();
        let mut quiet = (self.events, self.instructions);
        loop {
            let before = (self.events, self.instructions);
            let alive = match self.random {
                None => self.round(&warps),
                Some(_) => self.random_round(&warps),
            };
            if self.stopped {
                return;
            }
            if alive == 0 && self.operations.is_empty() {
                return;
            }
            self.complete_operations();
            let nothing_ran = self.instructions == before.1;
            if nothing_ran && self.events == before.0 || self.all_poll(&warps, before.0) {
                return self.deadlock(&warps);
            }
            if self.events != quiet.0 {
                quiet = (self.events, self.instructions);
            }
            if self.instructions - quiet.1 > IDLE || self.spent() > self.launch.fuel {
                return self.out_of_fuel(&warps);
            }
        }
    }

    /// Instructions since these blocks began.
    pub(super) fn spent(&self) -> u64 {
        self.instructions - self.blocks_began
    }

    /// What a warp may execute at a stretch: no more than one instruction beyond the fuel.
    fn slice(&self, most: u32) -> u32 {
        let left = self.launch.fuel.saturating_sub(self.spent()).saturating_add(1);
        u32::try_from(left).unwrap_or(u32::MAX).min(most)
    }

    /// Every warp in turn; how many are alive.
    fn round(&mut self, warps: &[(usize, usize)]) -> usize {
        let mut alive = 0;
        for &(block, warp) in warps {
            if self.blocks[block].warps[warp].live == 0 {
                continue;
            }
            alive += 1;
            if self.blocks[block].warps[warp].is_ready() {
                self.run_warp(block, warp, self.slice(SLICE));
            }
            if self.stopped {
                break;
            }
        }
        alive
    }

    /// Some warps, at random, each for a random while; how many are alive.
    fn random_round(&mut self, warps: &[(usize, usize)]) -> usize {
        let alive: Vec<_> =
            warps.iter().filter(|(b, w)| self.blocks[*b].warps[*w].live != 0).copied().collect();
        for _ in 0..alive.len().min(64) {
            let ready: Vec<_> =
                alive.iter().filter(|(b, w)| self.blocks[*b].warps[*w].is_ready()).copied().collect();
            let Some(random) = self.random.as_mut().filter(|_| !ready.is_empty()) else { break };
            let (block, warp) = ready[random.random_range(0..ready.len())];
            let slice = 1 << random.random_range(0..10);
            self.run_warp(block, warp, self.slice(slice));
            if self.stopped {
                break;
            }
        }
        alive.len()
    }

    /// Whether all that runs is polling for what nobody is going to do.
    fn all_poll(&self, warps: &[(usize, usize)], events_before: u64) -> bool {
        if self.events != events_before || !self.operations.is_empty() {
            return false;
        }
        let mut polling = false;
        for &(block, warp) in warps {
            let warp = &self.blocks[block].warps[warp];
            if warp.live == 0 || !warp.is_ready() {
                continue;
            }
            if warp.polls < 64 {
                return false;
            }
            polling = true;
        }
        polling
    }

    /// Says who waits where.
    fn deadlock(&mut self, warps: &[(usize, usize)]) {
        self.waiting(warps, Kind::Deadlock, "threads wait for what cannot come");
    }

    fn out_of_fuel(&mut self, warps: &[(usize, usize)]) {
        let message = format!("no end after {} instructions", self.spent());
        self.waiting(warps, Kind::OutOfFuel, &message);
    }

    fn waiting(&mut self, warps: &[(usize, usize)], kind: Kind, message: &str) {
        let mut lines = Vec::new();
        let mut first = None;
        for &(block, warp) in warps {
            let block = &self.blocks[block];
            let warp = &block.warps[warp];
            for group in &warp.groups {
                let who = block.number << 10 | warp.index << 5 | group.mask.trailing_zeros().min(31);
                let doing = match group.wait {
                    Wait::Barrier { id } => format!("waits at barrier {id}"),
                    Wait::Lanes { needed } => format!("waits for lanes {:#010x}", needed & !group.mask),
                    Wait::WarpSync { mask } => format!("waits for lanes {:#010x}", mask & !group.mask),
                    _ => "runs".into(),
                };
                let [x, y, z] = block.id;
                first = first.or(Some((group.pc, who)));
                if lines.len() < 8 {
                    lines.push(format!(
                        "block ({x}, {y}, {z}) warp {} {doing} at PTX line {}",
                        warp.index,
                        self.line(group.pc)
                    ));
                }
            }
        }
        let Some((pc, who)) = first else { return };
        let message = format!("{message}: {}", lines.join("; "));
        let place = place(self.launch, pc, Some(who));
        self.report(Finding { kind, message, place, other: None, location: None }, pc, 0);
    }
}
