//! Where the time of a step goes: training by the timed kernels, which give the same bits and count cycles.

use std::sync::atomic::AtomicBool;

use super::run::RunState;
use super::{Core, ResidentOptions};
use crate::gpu::Buffer;
use crate::gpu::resident::PHASES;
use crate::{Error, Job};

/// The cycles of a phase of a step, as the first thread of each block counts them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhaseCycles {
    /// What is done in it.
    pub name: &'static str,
    /// Cycles a step, the mean over the blocks.
    pub mean: f64,
    /// The same of the block with the fewest and of that with the most.
    pub range: (f64, f64),
}

/// What a profile came to.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseProfile {
    /// What ran and where, for a person.
    pub engine: String,
    /// Steps that were trained.
    pub steps: usize,
    /// Nanoseconds of a step by the device's clock, with what the counting costs.
    pub ns_per_step: f64,
    /// In the order of a step.
    pub phases: Vec<PhaseCycles>,
}

/// Trains epochs of these orders, all of one length, in one launch that counts the cycles of each phase.
///
/// # Errors
/// As [`crate::Trainer::resident`] and [`crate::Trainer::epoch`].
pub fn profile_phases(
    job: Job<'_>,
    options: &ResidentOptions,
    orders: &[Vec<u32>],
) -> Result<PhaseProfile, Error> {
    job.check()?;
    let (sgd, schedule) = (super::plan::check(&job, options.batch)?, job.schedule);
    let Some(rows) = orders.first().map(Vec::len) else { return Err(Error::Empty { what: "orders" }) };
    for order in orders {
        crate::trainer::check_epoch(order, options.batch, job.train.len())?;
        if order.len() != rows {
            let expected = format!("{rows} rows, as the first has");
            return Err(Error::Resident {
                what: "orders of a profile",
                expected,
                found: order.len().to_string(),
            });
        }
    }
    let mut core = Core::new(job, *options, true)?;
    core.check_launch(rows, options.batch.min(rows), orders.len())?;
    let mut run = RunState::new(&mut core.graph, sgd, schedule)?;
    let sizes = core.sizes(rows, options.batch, orders.len());
    run.begin(&core.graph.gpu, &sizes, orders)?;
    let blocks = core.plan.blocks as usize;
    let times = Buffer::new(&core.graph.gpu, "cycles of phases", blocks * PHASES.len())?;
    let mut runs = [run];
    let trained = core.train_timed(&sizes, &runs, &AtomicBool::new(false), Some(&times))?[0];
    let epochs = runs[0].end(&core.graph.gpu, &sizes, trained)?.whole()?;
    let mut cycles = vec![0u64; times.len()];
    times.download(&core.graph.gpu, &mut cycles)?;
    let steps: usize = epochs.iter().map(|trained| trained.epoch.steps).sum();
    let seconds: f64 = epochs.iter().filter_map(|trained| trained.device_seconds).sum();
    let phase = |(at, &name): (usize, &&'static str)| {
        // Divided at last, so that the mean of equal blocks is theirs.
        let of_blocks = || cycles.iter().skip(at).step_by(PHASES.len()).copied();
        let a_step = |cycles: u64, blocks: usize| cycles as f64 / (steps * blocks) as f64;
        let range = (of_blocks().min().unwrap_or(0), of_blocks().max().unwrap_or(0));
        PhaseCycles {
            name,
            mean: a_step(of_blocks().sum(), blocks),
            range: (a_step(range.0, 1), a_step(range.1, 1)),
        }
    };
    let phases = PHASES.iter().enumerate().map(phase).collect();
    Ok(PhaseProfile { engine: core.describe(), steps, ns_per_step: seconds * 1e9 / steps as f64, phases })
}
