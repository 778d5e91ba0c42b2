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

/// A recording to replay.
#[derive(Debug, Clone, Copy)]
pub struct Replay<'a> {
    golden: &'a Golden,
    mnist: Option<&'a Dataset>,
}

impl<'a> Replay<'a> {
    /// Replays this recording. `mnist` may be `None` where it brings its own data.
    pub fn new(golden: &'a Golden, mnist: Option<&'a Dataset>) -> Self {
        Self { golden, mnist }
    }

    /// Through the host engine, on so many threads, or on as many as help.
    ///
    /// # Errors
    /// Where the recording makes no job, or MNIST is wanted and missing or too short.
    pub fn host(&self, threads: Option<NonZeroUsize>) -> anyhow::Result<Recording> {
        let job = self.job()?;
        let threads = threads_for(&job.model, threads);
        self.run(Trainer::host(job, threads)?)
    }

    /// Through the graph engine.
    ///
    /// # Errors
    /// As for [`Replay::host`], and where there is no GPU.
    pub fn graph(&self, options: &GraphOptions) -> anyhow::Result<Recording> {
        self.run(self.graph_trainer(options)?)
    }

    /// Through the resident engine, on the blocks that the options ask for.
    ///
    /// # Errors
    /// As for [`Replay::graph`], and where the engine is not made for the recording.
    pub fn resident(&self, options: &ResidentOptions) -> anyhow::Result<Recording> {
        self.run(self.resident_trainer(options)?)
    }

    fn graph_trainer(&self, options: &GraphOptions) -> anyhow::Result<Trainer<'a>> {
        Ok(Trainer::graph(self.job()?, options)?)
    }

    fn resident_trainer(&self, options: &ResidentOptions) -> anyhow::Result<Trainer<'a>> {
        let options = ResidentOptions { batch: self.golden.batch, ..*options };
        Ok(Trainer::resident(self.job()?, &options)?)
    }

    /// The job that was recorded.
    ///
    /// # Errors
    /// Where it makes no model, or MNIST is wanted and missing or too short.
    pub fn job(&self) -> anyhow::Result<Job<'a>> {
        let golden = self.golden;
        let init = golden.init.iter().map(|t| Tensor {
            name: t.name.clone(),
            shape: t.shape.clone(),
            data: t.data.clone(),
        });
        let model = Mlp::from_tensors(&golden.layers, init)?;
        let loss = match golden.loss {
            GoldenLoss::CrossEntropy => Loss::CrossEntropy,
            GoldenLoss::MeanSquaredError => Loss::MeanSquaredError,
        };
        let (optimizer, schedule) = (optimizer(golden), schedule(golden));
        Ok(Job { model, loss, optimizer, schedule, train: samples(golden, self.mnist)? })
    }

    fn run(&self, mut trainer: Trainer<'_>) -> anyhow::Result<Recording> {
        let (order, batch) = (&self.golden.order, self.golden.batch);
        let grad0 = doubles(&trainer.gradients(&order[..batch])?.tensors);
        let losses = order
            .chunks(batch)
            .map(|rows| Ok(trainer.epoch(rows, batch)?.loss))
            .collect::<anyhow::Result<_>>()?;
        Ok(Recording { losses, grad0, finals: doubles(trainer.model()?.tensors()) })
    }
}

fn doubles(tensors: &[Tensor]) -> Vec<Vec<f64>> {
    tensors.iter().map(|t| t.data.iter().map(|&v| v.into()).collect()).collect()
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
pub mod reference;
