//! What a launch can be laid out as: which jobs fit, on how many blocks, with how much of the data ahead.

use crate::gpu::Team;
use crate::gpu::resident::{Plan, TILE};
use crate::{Error, Job, Optimizer, Sgd};

/// What the kernels are made for.
const INPUTS_MAX: usize = 1024;
const CLASSES_MAX: usize = 16;
const BATCH_MAX: usize = 128;
/// Places of the classes' biases; values from one unit of w2 to the next.
const CLASSES: usize = 16;
const LINE_2: usize = 20;
const WARPS: usize = 8;
/// Slots that the kernel has mbarriers for.
const SLOTS_MAX: usize = 8;
/// Blocks of a run and units of a block, the fewest blocks first that leave none of eight units idle.
const SHAPES: [(usize, usize); 4] = [(8, 8), (16, 8), (8, 16), (16, 16)];
const HIDDEN_MAX: usize = 256;

/// Most weights of a layer.
pub(crate) const WEIGHTS_MAX: usize = INPUTS_MAX * HIDDEN_MAX;

fn unfit(what: &'static str, expected: String, found: usize) -> Error {
    Error::Resident { what, expected, found: found.to_string() }
}

/// The optimizer of a job that is one for the resident engine in batches of `batch`; the device may still be too small for it.
pub(crate) fn check(job: &Job<'_>, batch: usize) -> Result<Sgd, Error> {
    let &[inputs, hidden, classes] = job.model.layers() else {
        let found = job.model.depth() - 1;
        return Err(unfit("hidden layers", "exactly one".into(), found));
    };
    let most = [
        ("inputs", INPUTS_MAX, inputs),
        ("hidden units", HIDDEN_MAX, hidden),
        ("classes", CLASSES_MAX, classes),
        ("samples a batch", BATCH_MAX, batch),
    ];
    if let Some((what, most, found)) = most.into_iter().find(|(_, most, found)| found > most) {
        return Err(unfit(what, format!("at most {most}"), found));
    }
    match job.optimizer {
        Optimizer::Sgd(sgd) => Ok(sgd),
        Optimizer::AdamW(_) => Err(Error::Resident {
            what: "optimizer",
            expected: "SGD".into(),
            found: job.optimizer.to_string(),
        }),
    }
}

/// A job's share of what decides a plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) team: Team,
    pub(super) inputs: usize,
    pub(super) hidden: usize,
    pub(super) classes: usize,
    pub(super) batch: usize,
    /// Bfloat16 terms of an input.
    pub(super) planes: usize,
    /// Bfloat16 terms of a weight.
    pub(super) terms: usize,
}

/// Plans for a device with so much shared memory a block, the best first; `blocks` asks for that many.
pub(super) fn plans(demand: Demand, blocks: Option<u32>, shared_bytes: usize) -> Result<Vec<Plan>, Error> {
    let wide: Vec<_> = SHAPES
        .into_iter()
        .filter(|&(blocks, units)| blocks * units >= demand.hidden)
        .filter(|&(shape, _)| blocks.is_none_or(|wanted| wanted as usize == shape))
        .collect();
    if wide.is_empty() {
        let most = if blocks == Some(8) { 128 } else { HIDDEN_MAX };
        return Err(unfit("hidden units of so few blocks", format!("at most {most}"), demand.hidden));
    }
    let plans: Vec<_> =
        wide.iter().filter_map(|&(blocks, units)| plan(demand, blocks, units, shared_bytes)).collect();
    if plans.is_empty() {
        let (blocks, units) = wide[wide.len() - 1];
        let needed = bytes(demand, blocks, units, TILE, 1);
        let (what, found) = ("shared memory of a block", format!("{shared_bytes} bytes"));
        return Err(Error::Resident { what, expected: format!("{needed} bytes or more"), found });
    }
    Ok(plans)
}

/// Slots for two batches where they fit, otherwise as many as fit of the largest chunk of which two do, or of which one does: then
/// nothing is loaded while a block computes.
fn plan(demand: Demand, blocks: usize, units: usize, shared_bytes: usize) -> Option<Plan> {
    let most = chunk_max(units, demand.planes);
    let tiles = (1..=most / TILE).rev().map(|tiles| tiles * TILE);
    let useful = tiles.filter(|&chunk| chunk < demand.batch + TILE);
    let fits = |chunk, slots| bytes(demand, blocks, units, chunk, slots) <= shared_bytes;
    let whole = useful
        .clone()
        .map(|chunk| (chunk, 2 * demand.batch.div_ceil(chunk)))
        .find(|&(chunk, slots)| slots <= SLOTS_MAX && fits(chunk, slots));
    let parts = |least| {
        let chunk = useful.clone().find(|&chunk| fits(chunk, least))?;
        // One less than two batches: with so many slots the kernel would take them for two.
        let enough = (2 * demand.batch.div_ceil(chunk) - 1).min(SLOTS_MAX);
        let slots = (least..=enough).rev().find(|&slots| fits(chunk, slots))?;
        Some((chunk, slots))
    };
    let (chunk, slots) = whole.or_else(|| parts(2)).or_else(|| parts(1))?;
    let shared_bytes = bytes(demand, blocks, units, chunk, slots) as u32;
    Some(Plan {
        team: demand.team,
        blocks: blocks as u32,
        units: units as u32,
        chunk: chunk as u32,
        slots: slots as u32,
        shared_bytes,
    })
}

/// Most rows of a chunk: `CHUNK` in the kernel.
fn chunk_max(units: usize, planes: usize) -> usize {
    512 / units / if planes == 1 { 1 } else { 2 }
}

/// Shared memory of a block: `Layout` in the kernel.
fn bytes(demand: Demand, blocks: usize, units: usize, chunk: usize, slots: usize) -> usize {
    let float = size_of::<f32>();
    let padded = demand.batch.next_multiple_of(TILE);
    let owned = demand.batch.div_ceil(blocks);
    let stride = demand.planes * demand.inputs.next_multiple_of(TILE) * 2 + 16;
    let (barriers, run, times) = (96, 80, 64);
    let layer_2 = 2 * units * LINE_2 * float + 2 * units * float + 2 * CLASSES * float;
    let shares = WARPS / 2 * units * chunk_max(units, demand.planes) * float;
    let lines = demand.terms * units * (padded + 8) * 2;
    let width = demand.classes.next_multiple_of(4);
    let (dz, z) = (padded * width * float, blocks * owned * width * float);
    let exchanged = if demand.team == Team::Grid { dz } else { 2 * (dz + z) };
    let batch = padded * units * float + exchanged;
    let layer_1 = WARPS * units * float + shares.max(lines);
    barriers + run + times + layer_2 + layer_1 + batch + slots * chunk * stride
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: usize = 227 << 10;
    const MNIST: Demand =
        Demand { team: Team::Cluster, inputs: 784, hidden: 128, classes: 10, batch: 64, planes: 1, terms: 3 };

    #[test]
    fn the_textbook_job_keeps_two_batches_on_sixteen_blocks() {
        let plans = plans(MNIST, None, H100).unwrap();
        let found: Vec<_> = plans.iter().map(|p| (p.blocks, p.units, p.chunk, p.slots)).collect();
        assert_eq!(found, [(16, 8, 64, 2), (8, 16, 32, 4), (16, 16, 32, 4)]);
        assert!(plans.iter().all(|plan| plan.shared_bytes as usize <= H100), "{plans:?}");
    }

    #[test]
    fn everything_that_is_promised_fits_the_large_devices() {
        for planes in 1..=3 {
            for (hidden, cluster) in [(1, None), (64, Some(8)), (128, Some(8)), (129, None), (256, Some(16))]
            {
                for inputs in [1, 16, 17, 784, 1024] {
                    for batch in [1, 16, 17, 64, 100, 128] {
                        let demand = Demand { inputs, hidden, classes: 16, batch, planes, terms: 3, ..MNIST };
                        // Three terms of the widest floats leave room for one slot beside the widest batches.
                        let least = if planes == 3 && inputs == 1024 && batch > 64 { 1 } else { 2 };
                        for plan in plans(demand, cluster, H100).unwrap() {
                            assert!(plan.blocks * plan.units >= hidden as u32);
                            assert!((least..=SLOTS_MAX as u32).contains(&plan.slots), "{demand:?}: {plan:?}");
                            assert!(plan.shared_bytes as usize <= H100);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_small_device_holds_chunks_of_the_batch() {
        let plan = plans(MNIST, Some(16), 99 << 10).unwrap()[0];
        assert_eq!((plan.chunk, plan.slots), (16, 3));
        let refused = plans(MNIST, None, 48 << 10);
        assert!(
            matches!(refused, Err(Error::Resident { what: "shared memory of a block", .. })),
            "{refused:?}"
        );
    }

    /// Blocks of a grid have no places for z of all blocks, and one for dz: batch 64 of 12 floats.
    #[test]
    fn blocks_of_a_grid_need_less() {
        let grid = |shared| plans(Demand { team: Team::Grid, ..MNIST }, Some(16), shared).unwrap()[0];
        let (sm_80, sm_86) = (grid(163 << 10), grid(99 << 10));
        assert_eq!((sm_80.chunk, sm_80.slots, sm_86.chunk, sm_86.slots), (32, 2, 16, 3));
        let cluster = plans(MNIST, Some(16), 99 << 10).unwrap()[0];
        assert_eq!(cluster.shared_bytes - sm_86.shared_bytes, (2 * 16 * 4 + 64) * 12 * 4);
    }

    #[test]
    fn eight_blocks_hold_half_as_much() {
        let refused = plans(Demand { hidden: 129, ..MNIST }, Some(8), H100);
        assert!(refused.unwrap_err().to_string().contains("at most 128, found 129"));
        assert_eq!(plans(Demand { hidden: 64, ..MNIST }, None, H100).unwrap()[0].blocks, 8);
    }
}
