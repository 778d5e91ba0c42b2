//! Recorded trajectories through candle's autograd: exactly, or with operands rounded as an engine of lower precision rounds them.

use anyhow::{Context, ensure};
use kiln_engine::{Precision as EnginePrecision, Trainer};
use kiln_parity::{
    Comparison, Golden, GoldenData, GoldenLoss, GoldenOptimizer, Recording, Report, bound_beside_rounding,
};
pub use kiln_reference::Precision;
use kiln_reference::{AdamW, Batch, Error, Loss, Optimizer, Reference, Rounding, Sgd, Targets};

use super::Replay;

/// How an engine rounds the operands of a model's matrix products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operands {
    of_inputs: Rounding,
    of_layers: Vec<Rounding>,
}

impl Operands {
    /// Those of the graph engine: all but pixels, which are whole numbers until their sum is complete.
    pub fn of_graph(precision: EnginePrecision, depth: usize, pixels: bool) -> Self {
        let rounding = rounding(precision);
        Self { of_inputs: if pixels { Rounding::None } else { rounding }, of_layers: vec![rounding; depth] }
    }

    /// Those of the resident engine: the same, but for the second layer, which is float32.
    pub fn of_resident(precision: EnginePrecision, pixels: bool) -> Self {
        let graph = Self::of_graph(precision, 2, pixels);
        Self { of_layers: vec![graph.of_layers[0], Rounding::None], ..graph }
    }

    /// The largest relative error of a rounded operand.
    pub fn roundoff(&self) -> f64 {
        self.of_layers.iter().map(|rounding| rounding.roundoff()).fold(0.0, f64::max)
    }

    /// Those samples of `rows` of which no hidden unit is so near zero that roundings may decide whether anything flows through it.
    /// `margins` are [`Reference::margins`].
    ///
    /// # Errors
    /// That of `margins`, and where no sample is left.
    pub fn clear_of_kinks(
        &self,
        rows: &[u32],
        margins: impl FnOnce(&[u32]) -> anyhow::Result<Vec<f64>>,
    ) -> anyhow::Result<Vec<u32>> {
        let margins = margins(rows)?;
        let clear = rows.iter().zip(margins).filter(|(_, margin)| *margin > self.roundoff());
        let clear: Vec<u32> = clear.map(|(&row, _)| row).collect();
        ensure!(!clear.is_empty(), "every sample has a hidden unit that roundings may turn on or off");
        Ok(clear)
    }

    /// A model that rounds like this.
    ///
    /// # Errors
    /// As [`Reference::rounding`].
    pub fn reference(
        &self,
        layers: &[usize],
        init: &[Vec<f64>],
        loss: Loss,
        optimizer: impl Into<Optimizer>,
    ) -> Result<Reference, Error> {
        Reference::rounding(layers, init, loss, optimizer, self.of_inputs, &self.of_layers)
    }
}

fn rounding(precision: EnginePrecision) -> Rounding {
    match precision {
        EnginePrecision::F32 => Rounding::None,
        EnginePrecision::Tf32 => Rounding::Tf32,
        EnginePrecision::Bf16 => Rounding::Bf16,
    }
}

impl Replay<'_> {
    /// Through the reference, with the learning rates that were recorded.
    ///
    /// # Errors
    /// Where the recording makes no model, or MNIST is wanted and missing.
    pub fn reference(&self, precision: Precision) -> anyhow::Result<Recording> {
        let golden = self.golden;
        let (init, optimizer) = (self.init(), optimizer(golden));
        let mut reference = Reference::new(&golden.layers, &init, self.loss(), optimizer, precision)?;
        let first = &golden.order[..golden.batch];
        let grad0 = self.with_batch(first, |batch| reference.gradients(batch))?.1;
        let steps = golden.order.chunks(golden.batch).zip(&golden.lr);
        let losses = steps
            .map(|(rows, &lr)| self.with_batch(rows, |batch| reference.step_with(batch, lr)))
            .collect::<Result<_, _>>()?;
        Ok(Recording { losses, grad0, finals: reference.parameters()? })
    }

    /// How the graph engine rounds operands when it replays this.
    pub fn operands_of_graph(&self, precision: EnginePrecision) -> Operands {
        Operands::of_graph(precision, self.golden.layers.len() - 1, self.has_pixels())
    }

    /// How the resident engine does.
    pub fn operands_of_resident(&self, precision: EnginePrecision) -> Operands {
        Operands::of_resident(precision, self.has_pixels())
    }

    /// A trainer of [`Replay::job`] beside a reference that rounds the operands of its products. The bound is
    /// [`bound_beside_rounding`].
    ///
    /// Two that round differ more with every step, from the first value on that lies near a border between rounded ones, or near the kink
    /// of ReLU. So the reference takes each step from the trainer's own parameters, and the gradients are those of the samples that keep
    /// clear of kinks.
    ///
    /// # Errors
    /// As for [`Replay::reference`], where the operands are of a model of another depth, or where the engine fails.
    pub fn beside(&self, mut trainer: Trainer<'_>, operands: &Operands) -> anyhow::Result<Report> {
        let golden = self.golden;
        let mut reference =
            operands.reference(&golden.layers, &self.init(), self.loss(), optimizer(golden))?;
        let mut comparison = Comparison::new(golden, bound_beside_rounding(operands.roundoff()));
        let rows = operands.clear_of_kinks(&golden.order[..golden.batch], |rows| {
            self.with_batch(rows, |batch| reference.margins(batch))
        })?;
        let expected = self.with_batch(&rows, |batch| reference.gradients(batch))?.1;
        comparison.gradients(&expected, &super::doubles(&trainer.gradients(&rows)?.tensors))?;
        let steps = golden.order.chunks(golden.batch).zip(&golden.lr);
        for (step, (rows, &lr)) in steps.enumerate() {
            let expected = self.with_batch(rows, |batch| reference.step_with(batch, lr))?;
            comparison.loss(step, expected, trainer.epoch(rows, golden.batch)?.loss);
            let parameters = super::doubles(trainer.model()?.tensors());
            comparison.parameters(Some(step), &reference.parameters()?, &parameters)?;
            reference.set_parameters(&parameters)?;
        }
        Ok(comparison.report())
    }

    fn has_pixels(&self) -> bool {
        self.golden.data == GoldenData::Mnist
    }

    fn init(&self) -> Vec<Vec<f64>> {
        self.golden.init.iter().map(|t| t.data.iter().map(|&v| v.into()).collect()).collect()
    }

    fn loss(&self) -> Loss {
        match self.golden.loss {
            GoldenLoss::CrossEntropy => Loss::CrossEntropy,
            GoldenLoss::MeanSquaredError => Loss::MeanSquaredError,
        }
    }

    fn with_batch<R>(
        &self,
        rows: &[u32],
        mut use_it: impl FnMut(&Batch<'_>) -> Result<R, Error>,
    ) -> anyhow::Result<R> {
        let (inputs, labels, values) = self.gather(rows).context("the recording needs MNIST")?;
        let targets = match self.golden.loss {
            GoldenLoss::CrossEntropy => Targets::Labels(&labels),
            GoldenLoss::MeanSquaredError => Targets::Values(&values),
        };
        Ok(use_it(&Batch { inputs: &inputs, targets })?)
    }

    /// Inputs of the rows, and their labels or their values.
    fn gather(&self, rows: &[u32]) -> Option<(Vec<f64>, Vec<u32>, Vec<f64>)> {
        let pick = |all: &[f32], width: usize| -> Vec<f64> {
            let row = |&row: &u32| all[row as usize * width..][..width].iter().map(|&v| f64::from(v));
            rows.iter().flat_map(row).collect()
        };
        match &self.golden.data {
            GoldenData::Random { x, y } => {
                let (inputs, outputs) = (self.golden.layers[0], y.len() / self.golden.samples);
                Some((pick(x, inputs), Vec::new(), pick(y, outputs)))
            }
            GoldenData::Mnist => {
                let train = &self.mnist?.train;
                let width = train.width();
                let row = |&row: &u32| &train.images.pixels[row as usize * width..][..width];
                let inputs = rows.iter().flat_map(row).map(|&pixel| f64::from(pixel) / 255.0).collect();
                let labels = rows.iter().map(|&row| u32::from(train.labels[row as usize])).collect();
                Some((inputs, labels, Vec::new()))
            }
        }
    }
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
