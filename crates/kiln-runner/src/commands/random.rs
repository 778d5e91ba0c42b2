//! `kiln parity --random`: gradients of random models, an engine's and candle's, against candle in float64. Their depths are 1
//! to 5, or 2, five times, for the resident engine, which is made for that alone.
//!
//! An engine of lower precision is held against candle that rounds the same operands; beside it is what these roundings cost, and that
//! is no error.

use std::ops::Range;

use anyhow::ensure;
use kiln_engine::{
    Gradients, Job, Loss, Mlp, Precision as EnginePrecision, Samples, Schedule, Sgd, Targets, Tensor, Trainer,
};
use kiln_parity::{Bounds, relative_error};
use kiln_reference::{Batch, Operands, Precision, Reference};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::cli::{ParityArgs, ParityEngine};
use crate::engine::threads_for;
use crate::replay::reference::{AtKinks, clear_of_kinks, operands_of_graph, operands_of_resident};
use crate::terminal::say;

/// Rows of the batch: odd, and one past a tile.
const ROWS: usize = 65;
/// Widths are drawn below this, and most are no multiple of anything.
const WIDTH_MAX: usize = 150;

/// One model, its batch, and the losses that it is tried with.
struct Case {
    layers: Vec<usize>,
    inputs: Vec<f32>,
    labels: Vec<u8>,
    values: Vec<f32>,
}

/// A model's gradients with one of the losses: how many samples they are of, and the errors of each tensor.
struct Compared {
    samples: usize,
    rows: Vec<Row>,
}

/// The gradient of a tensor: how far the engine's is from what it is held against, relative in norm; and, to compare that with, how far
/// candle's is in float32, or in lower precision, what the roundings of operands come to.
struct Row {
    name: String,
    engine: f64,
    beside: f64,
}

pub(crate) fn run(arguments: &ParityArgs) -> anyhow::Result<()> {
    let mut random = SmallRng::seed_from_u64(arguments.seed);
    let beside = match arguments.options.precision() {
        EnginePrecision::F32 => "candle f32",
        EnginePrecision::Tf32 | EnginePrecision::Bf16 => "roundings",
    };
    say(&format!(
        "{:34} {:>7} {:16} {:>10} {beside:>10} {:>8}",
        "model, loss", "samples", "gradient", "engine", "bound"
    ))?;
    let (mut failed, mut compared) = (0, 0);
    let (depths, classes) = match arguments.engine {
        ParityEngine::Resident => ([2; 5], 2..17),
        _ => ([1, 2, 3, 4, 5], 2..20),
    };
    for depth in depths {
        let case = Case::draw(&mut random, depth, classes.clone());
        let widths = case.layers.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
        let operands = operands(arguments, depth);
        let bound = Bounds::beside_rounding(operands.roundoff(), operands.rounded_layers()).gradient;
        for loss in [Loss::CrossEntropy, Loss::MeanSquaredError] {
            let model = format!("{widths}, {loss}");
            let Compared { samples, rows } = match case.compare(loss, &operands, arguments) {
                Err(error) if error.is::<AtKinks>() => {
                    say(&format!("{model:34} left out: {error}"))?;
                    continue;
                }
                compared => compared?,
            };
            for Row { name, engine, beside } in rows {
                let fits = engine <= bound;
                failed += usize::from(!fits);
                compared += 1;
                let verdict = if fits { "ok" } else { "FAILED" };
                say(&format!(
                    "{model:34} {samples:7} {name:16} {engine:10.2e} {beside:10.2e} {bound:8.1e}  {verdict}"
                ))?;
            }
        }
    }
    ensure!(failed == 0, "{failed} of {compared} gradients are not within their bound");
    ensure!(compared > 0, "none of these models can be compared: expected another --seed");
    Ok(())
}

impl Case {
    fn draw(random: &mut SmallRng, depth: usize, classes: Range<usize>) -> Self {
        let mut layers: Vec<usize> = (0..depth).map(|_| random.random_range(1..WIDTH_MAX)).collect();
        layers.push(random.random_range(classes));
        let (inputs, outputs) = (layers[0], layers[depth]);
        let mut noise = |count| (0..count).map(|_| random.random_range(-1.0f32..1.0)).collect::<Vec<f32>>();
        let (inputs, values) = (noise(ROWS * inputs), noise(ROWS * outputs));
        let labels = (0..ROWS).map(|row| (row * 7 % outputs) as u8).collect();
        Self { layers, inputs, labels, values }
    }

    /// Samples of which a hidden unit is within roundings of zero are left out.
    fn compare(&self, loss: Loss, operands: &Operands, arguments: &ParityArgs) -> anyhow::Result<Compared> {
        let model = Mlp::new(&self.layers, arguments.seed)?;
        let init: Vec<Vec<f64>> = model.tensors().iter().map(|t| doubles(&t.data)).collect();
        let (layers, of_loss, sgd) = (&self.layers, of_reference(loss), kiln_reference::Sgd::default());
        let reference = Reference::rounding(layers, &init, of_loss, sgd, operands.clone())?;
        let beside = match arguments.options.precision() {
            EnginePrecision::F32 => Precision::F32,
            EnginePrecision::Tf32 | EnginePrecision::Bf16 => Precision::F64,
        };
        let beside = Reference::new(layers, &init, of_loss, sgd, beside)?;

        let all: Vec<u32> = (0..ROWS as u32).collect();
        let margins = self.with_batch(loss, &all, |batch| reference.margins(batch))?;
        let samples = clear_of_kinks(&all, &margins, operands.roundoff())?;
        let expected = self.with_batch(loss, &samples, |batch| reference.gradients(batch))?.1;
        let beside = self.with_batch(loss, &samples, |batch| beside.gradients(batch))?.1;
        let engine = self.engine(model, loss, &samples, arguments)?;
        let row = |(tensor, (expected, beside)): (&Tensor, (&Vec<f64>, &Vec<f64>))| Row {
            name: tensor.name.clone(),
            engine: relative_error(&doubles(&tensor.data), expected),
            beside: relative_error(beside, expected),
        };
        let rows = engine.tensors.iter().zip(expected.iter().zip(&beside)).map(row).collect();
        Ok(Compared { samples: samples.len(), rows })
    }

    fn engine(
        &self,
        model: Mlp,
        loss: Loss,
        rows: &[u32],
        arguments: &ParityArgs,
    ) -> anyhow::Result<Gradients> {
        let targets = match loss {
            Loss::CrossEntropy => Targets::Labels(&self.labels),
            Loss::MeanSquaredError => Targets::Values(&self.values),
        };
        let train = Samples::floats(&self.inputs, self.layers[0], targets)?;
        let threads = threads_for(&model, arguments.options.threads);
        let job = Job { model, loss, optimizer: Sgd::default().into(), schedule: Schedule::default(), train };
        let mut trainer = match arguments.engine {
            ParityEngine::Graph => Trainer::graph(job, &arguments.options.graph(None))?,
            ParityEngine::Resident => Trainer::resident(job, &arguments.options.resident(ROWS))?,
            ParityEngine::Host | ParityEngine::ReferenceF32 | ParityEngine::ReferenceF64 => {
                Trainer::host(job, threads)?
            }
        };
        Ok(trainer.gradients(rows)?)
    }

    /// Some rows, for the reference.
    fn with_batch<R>(
        &self,
        loss: Loss,
        rows: &[u32],
        use_it: impl FnOnce(&Batch<'_>) -> Result<R, kiln_reference::Error>,
    ) -> anyhow::Result<R> {
        let pick = |all: &[f32], width: usize| -> Vec<f64> {
            rows.iter().flat_map(|&row| doubles(&all[row as usize * width..][..width])).collect()
        };
        let (inputs, values) =
            (pick(&self.inputs, self.layers[0]), pick(&self.values, self.layers[self.layers.len() - 1]));
        let labels: Vec<u32> = rows.iter().map(|&row| self.labels[row as usize].into()).collect();
        let targets = match loss {
            Loss::CrossEntropy => kiln_reference::Targets::Labels(&labels),
            Loss::MeanSquaredError => kiln_reference::Targets::Values(&values),
        };
        Ok(use_it(&Batch { inputs: &inputs, targets })?)
    }
}

/// How the engine that was asked for rounds the operands of a model of float inputs.
fn operands(arguments: &ParityArgs, depth: usize) -> Operands {
    let precision = arguments.options.precision();
    match arguments.engine {
        ParityEngine::Graph => operands_of_graph(precision, depth, false),
        ParityEngine::Resident => operands_of_resident(precision, false),
        // The reference is refused before.
        ParityEngine::Host | ParityEngine::ReferenceF32 | ParityEngine::ReferenceF64 => {
            Operands::exact(depth)
        }
    }
}

fn of_reference(loss: Loss) -> kiln_reference::Loss {
    match loss {
        Loss::CrossEntropy => kiln_reference::Loss::CrossEntropy,
        Loss::MeanSquaredError => kiln_reference::Loss::MeanSquaredError,
    }
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}
