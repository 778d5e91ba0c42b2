//! Recorded trajectories through candle's autograd: exactly, or with operands rounded as an engine of lower precision rounds them.

use anyhow::Context;
use kiln_engine::{GraphOptions, Precision as EnginePrecision, ResidentOptions, Trainer};
use kiln_parity::{Bounds, Comparison, Golden, GoldenData, GoldenLoss, GoldenOptimizer, Recording, Report};
pub use kiln_reference::Precision;
use kiln_reference::{AdamW, Batch, Error, Loss, Operands, Optimizer, Reference, Rounding, Sgd, Targets};

use super::Replay;

/// How the graph engine rounds operands: all but pixels, which are whole numbers until their sum is complete.
pub fn operands_of_graph(precision: EnginePrecision, depth: usize, pixels: bool) -> Operands {
    let rounding = rounding(precision);
    Operands { inputs: if pixels { Rounding::None } else { rounding }, layers: vec![rounding; depth] }
}

/// How the resident engine does: the same, but for the second layer, which is float32.
pub fn operands_of_resident(precision: EnginePrecision, pixels: bool) -> Operands {
    let first = operands_of_graph(precision, 1, pixels);
    Operands { layers: vec![first.layers[0], Rounding::None], ..first }
}

/// Those samples of which no hidden unit is so near zero that errors of operands with this roundoff may decide whether anything flows
/// through it. `margins` are theirs, from [`Reference::margins`].
///
/// Both sides round, so that they differ where a value lies next to a border between rounded ones: in few of the terms of a sum, by the
/// roundoff twice. A sixteenth of the roundoff is more than what is left of that, relative to the sizes of all terms.
///
/// # Errors
/// [`AtKinks`] where they are less than a quarter.
pub fn clear_of_kinks(rows: &[u32], margins: &[f64], roundoff: f64) -> Result<Vec<u32>, AtKinks> {
    let clear = rows.iter().zip(margins).filter(|(_, margin)| **margin > roundoff / 16.0);
    let clear: Vec<u32> = clear.map(|(&row, _)| row).collect();
    let (samples, found) = (rows.len(), clear.len());
    if 4 * found < samples { Err(AtKinks { samples, clear: found }) } else { Ok(clear) }
}

/// The gradients of a batch cannot be compared: too few of its samples are clear of kinks.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected a quarter of {samples} samples without a hidden unit that roundings may turn on or off, found {clear}"
)]
pub struct AtKinks {
    /// Samples of the batch.
    pub samples: usize,
    /// Those that are clear of kinks.
    pub clear: usize,
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
        super::samples(golden, self.mnist)?; // as many as the recording is of
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

    /// Through the graph engine, beside a reference that rounds the operands of the same products.
    ///
    /// # Errors
    /// As for [`Replay::graph`] and [`Replay::reference`], and [`AtKinks`].
    pub fn graph_beside_rounding(&self, options: &GraphOptions) -> anyhow::Result<Report> {
        let depth = self.golden.layers.len() - 1;
        let operands = operands_of_graph(options.precision, depth, self.has_pixels());
        self.beside(self.graph_trainer(options)?, operands)
    }

    /// Through the resident engine, beside such a reference.
    ///
    /// # Errors
    /// As for [`Replay::resident`] and [`Replay::reference`], and [`AtKinks`].
    pub fn resident_beside_rounding(&self, options: &ResidentOptions) -> anyhow::Result<Report> {
        let operands = operands_of_resident(options.precision, self.has_pixels());
        self.beside(self.resident_trainer(options)?, operands)
    }

    /// Any trainer of this recording beside a reference that rounds these operands, by [`Bounds::beside_rounding`].
    ///
    /// Two that round differ more with every step, from the first value on that lies near a border between rounded ones, or near the kink
    /// of ReLU. So the reference takes each step from the trainer's own parameters, and the gradients are those of the samples that keep
    /// clear of kinks.
    ///
    /// # Errors
    /// As for [`Replay::reference`], where the operands are of a model of another depth, [`AtKinks`], or what the engine fails of.
    pub fn beside(&self, mut trainer: Trainer<'_>, operands: Operands) -> anyhow::Result<Report> {
        let golden = self.golden;
        let (layers, roundoff) = (&golden.layers, operands.roundoff());
        let bounds = Bounds::beside_rounding(roundoff, operands.rounded_layers());
        let mut reference =
            Reference::rounding(layers, &self.init(), self.loss(), optimizer(golden), operands)?;
        let mut comparison = Comparison::new(golden, bounds);
        let first = &golden.order[..golden.batch];
        let margins = self.with_batch(first, |batch| reference.margins(batch))?;
        let rows = clear_of_kinks(first, &margins, roundoff)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_near_a_kink_are_left_out() {
        let roundoff = Rounding::Bf16.roundoff();
        let margins = [f64::INFINITY, roundoff / 15.0, roundoff / 17.0, 0.0];
        assert_eq!(clear_of_kinks(&[7, 5, 3, 1], &margins, roundoff).unwrap(), [7, 5]);
        assert_eq!(clear_of_kinks(&[7, 5, 3, 1], &margins, 0.0).unwrap(), [7, 5, 3]);
        let few = clear_of_kinks(&[7, 5, 3, 1, 2], &[1.0, 0.0, 0.0, 0.0, 0.0], roundoff).unwrap_err();
        assert!(few.to_string().contains("a quarter of 5 samples") && few.to_string().ends_with("found 1"));
    }

    #[test]
    fn pixels_and_the_resident_engines_second_layer_are_not_rounded() {
        let (none, bf16) = (Rounding::None, Rounding::Bf16);
        let of = |inputs, layers: &[Rounding]| Operands { inputs, layers: layers.to_vec() };
        assert_eq!(operands_of_graph(EnginePrecision::Bf16, 3, true), of(none, &[bf16; 3]));
        assert_eq!(operands_of_graph(EnginePrecision::Bf16, 2, false), of(bf16, &[bf16; 2]));
        assert_eq!(operands_of_resident(EnginePrecision::Bf16, false), of(bf16, &[bf16, none]));
        assert_eq!(operands_of_graph(EnginePrecision::F32, 2, false), Operands::exact(2));
    }
}
