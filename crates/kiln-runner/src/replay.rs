//! Replays of recorded trajectories, one function for each way of computing them.

use std::num::NonZeroUsize;

use anyhow::{bail, ensure};
use kiln_data::Dataset;
use kiln_engine::{
    AdamW, Curve, GraphOptions, Job, Loss, Mlp, OneCycle, Optimizer, ResidentOptions, Samples, Schedule, Sgd,
    Targets, Tensor, Trainer,
};
use kiln_parity::{Golden, GoldenData, GoldenLoss, GoldenOptimizer, GoldenSchedule, Recording};

use crate::commands::data;
use crate::engine::threads_for;

/// Replays a recording through the host engine, on so many threads, or on as many as help. `mnist` may be `None`
/// where the recording brings its own data.
///
/// # Errors
/// Where the recording makes no job, or MNIST is wanted and missing or too short.
pub fn host(
    golden: &Golden,
    mnist: Option<&Dataset>,
    threads: Option<NonZeroUsize>,
) -> anyhow::Result<Recording> {
    let job = job(golden, mnist)?;
    let threads = threads_for(&job.model, threads);
    replay(golden, Trainer::host(job, threads)?)
}

/// Replays a recording through the graph engine; `mnist` as in [`host`].
///
/// # Errors
/// As for [`host`], and where there is no GPU.
pub fn graph(golden: &Golden, mnist: Option<&Dataset>, options: &GraphOptions) -> anyhow::Result<Recording> {
    replay(golden, Trainer::graph(job(golden, mnist)?, options)?)
}

/// Replays a recording through the resident engine, on the blocks that the options ask for; `mnist` as in [`host`].
///
/// # Errors
/// As for [`graph`], and where the engine is not made for the recording.
pub fn resident(
    golden: &Golden,
    mnist: Option<&Dataset>,
    options: &ResidentOptions,
) -> anyhow::Result<Recording> {
    let options = ResidentOptions { batch: golden.batch, ..*options };
    replay(golden, Trainer::resident(job(golden, mnist)?, &options)?)
}

/// The job that was recorded.
fn job<'d>(golden: &'d Golden, mnist: Option<&'d Dataset>) -> anyhow::Result<Job<'d>> {
    let init: Vec<Tensor> = golden
        .init
        .iter()
        .map(|t| Tensor { name: t.name.clone(), shape: t.shape.clone(), data: t.data.clone() })
        .collect();
    let model = Mlp::from_tensors(&golden.layers, &init)?;
    let loss = match golden.loss {
        GoldenLoss::CrossEntropy => Loss::CrossEntropy,
        GoldenLoss::MeanSquaredError => Loss::MeanSquaredError,
    };
    let (optimizer, schedule) = (optimizer(golden), schedule(golden));
    Ok(Job { model, loss, optimizer, schedule, train: samples(golden, mnist)? })
}

fn replay(golden: &Golden, mut trainer: Trainer<'_>) -> anyhow::Result<Recording> {
    let doubles =
        |tensors: &[Tensor]| tensors.iter().map(|t| t.data.iter().map(|&v| v.into()).collect()).collect();
    let grad0 = doubles(&trainer.gradients(&golden.order[..golden.batch])?.tensors);
    let steps = golden.order.chunks(golden.batch);
    let losses =
        steps.map(|rows| Ok(trainer.epoch(rows, golden.batch)?.loss)).collect::<anyhow::Result<_>>()?;
    Ok(Recording { losses, grad0, finals: doubles(trainer.model()?.tensors()) })
}

fn optimizer(golden: &Golden) -> Optimizer {
    match golden.optimizer {
        GoldenOptimizer::Sgd(o) => Optimizer::Sgd(Sgd {
            lr: o.lr,
            momentum: o.momentum,
            dampening: o.dampening,
            weight_decay: o.weight_decay,
            nesterov: o.nesterov,
        }),
        GoldenOptimizer::AdamW(o) => Optimizer::AdamW(AdamW {
            lr: o.lr,
            beta1: o.betas[0],
            beta2: o.betas[1],
            eps: o.eps,
            weight_decay: o.weight_decay,
        }),
    }
}

/// The schedule that was recorded: its terms, not the learning rates that they came to.
fn schedule(golden: &Golden) -> Schedule {
    let after = |warmup_steps, curve| Schedule { warmup_steps, curve };
    match golden.schedule {
        None => Schedule::default(),
        Some(GoldenSchedule::ConstantLR { warmup_steps }) => after(warmup_steps, Curve::Constant),
        Some(GoldenSchedule::StepLR { step_size, gamma, warmup_steps }) => {
            after(warmup_steps, Curve::Step { every_steps: step_size, gamma })
        }
        Some(GoldenSchedule::CosineAnnealingLR { t_max, eta_min, warmup_steps }) => {
            after(warmup_steps, Curve::Cosine { half_period_steps: t_max, min_lr: eta_min })
        }
        Some(GoldenSchedule::OneCycleLR {
            max_lr,
            total_steps,
            pct_start,
            div_factor,
            final_div_factor,
            warmup_steps,
        }) => {
            let cycle = OneCycle { max_lr, total_steps, pct_start, div_factor, final_div_factor };
            after(warmup_steps, Curve::OneCycle(cycle))
        }
    }
}

/// The samples that the recording used.
fn samples<'d>(golden: &'d Golden, mnist: Option<&'d Dataset>) -> anyhow::Result<Samples<'d>> {
    match (&golden.data, mnist) {
        (GoldenData::Random { x, y }, _) => Ok(Samples::floats(x, golden.layers[0], Targets::Values(y))?),
        (GoldenData::Mnist, Some(mnist)) => {
            let (found, expected) = (mnist.train.len(), golden.samples);
            ensure!(found >= expected, "expected {expected} samples of MNIST, found {found}");
            Ok(data::samples(&mnist.train)?.first(expected))
        }
        (GoldenData::Mnist, None) => bail!("the recording needs MNIST"),
    }
}

/// The same trajectories through candle's autograd.
#[cfg(feature = "reference")]
pub mod reference {
    use anyhow::Context;
    use kiln_data::Dataset;
    use kiln_parity::{Golden, GoldenData, GoldenLoss, GoldenOptimizer, Recording};
    pub use kiln_reference::Precision;
    use kiln_reference::{AdamW, Batch, Loss, Optimizer, Reference, Sgd, Targets};

    /// Replays a recording through the reference, with the learning rates that were recorded; `mnist` as in [`super::host`].
    ///
    /// # Errors
    /// Where the recording makes no model, or MNIST is wanted and missing.
    pub fn replay(
        golden: &Golden,
        mnist: Option<&Dataset>,
        precision: Precision,
    ) -> anyhow::Result<Recording> {
        let loss = match golden.loss {
            GoldenLoss::CrossEntropy => Loss::CrossEntropy,
            GoldenLoss::MeanSquaredError => Loss::MeanSquaredError,
        };
        let init: Vec<Vec<f64>> =
            golden.init.iter().map(|t| t.data.iter().map(|&v| v.into()).collect()).collect();
        let mut reference = Reference::new(&golden.layers, &init, loss, optimizer(golden), precision)?;
        let mut run = Recording::default();
        for (step, (rows, &lr)) in golden.order.chunks(golden.batch).zip(&golden.lr).enumerate() {
            let (inputs, labels, values) =
                gather(golden, mnist, rows).context("the recording needs MNIST")?;
            let targets = match loss {
                Loss::CrossEntropy => Targets::Labels(&labels),
                Loss::MeanSquaredError => Targets::Values(&values),
            };
            let batch = Batch { inputs: &inputs, targets };
            if step == 0 {
                run.grad0 = reference.gradients(&batch)?.1;
            }
            run.losses.push(reference.step_with(&batch, lr)?);
        }
        run.finals = reference.parameters()?;
        Ok(run)
    }

    fn optimizer(golden: &Golden) -> Optimizer {
        match golden.optimizer {
            GoldenOptimizer::Sgd(o) => Optimizer::Sgd(Sgd {
                lr: o.lr,
                momentum: o.momentum,
                dampening: o.dampening,
                weight_decay: o.weight_decay,
                nesterov: o.nesterov,
            }),
            GoldenOptimizer::AdamW(o) => {
                Optimizer::AdamW(AdamW { lr: o.lr, betas: o.betas, eps: o.eps, weight_decay: o.weight_decay })
            }
        }
    }

    /// Inputs of the rows, and their labels or their values.
    fn gather(
        golden: &Golden,
        mnist: Option<&Dataset>,
        rows: &[u32],
    ) -> Option<(Vec<f64>, Vec<u32>, Vec<f64>)> {
        let pick = |all: &[f32], width: usize| -> Vec<f64> {
            let row = |&row: &u32| all[row as usize * width..][..width].iter().map(|&v| f64::from(v));
            rows.iter().flat_map(row).collect()
        };
        match &golden.data {
            GoldenData::Random { x, y } => {
                let (inputs, outputs) = (golden.layers[0], y.len() / golden.samples);
                Some((pick(x, inputs), Vec::new(), pick(y, outputs)))
            }
            GoldenData::Mnist => {
                let train = &mnist?.train;
                let width = train.width();
                let row = |&row: &u32| &train.images.pixels[row as usize * width..][..width];
                let inputs = rows.iter().flat_map(row).map(|&pixel| f64::from(pixel) / 255.0).collect();
                let labels = rows.iter().map(|&row| u32::from(train.labels[row as usize])).collect();
                Some((inputs, labels, Vec::new()))
            }
        }
    }
}
