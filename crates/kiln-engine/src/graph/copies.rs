//! Steps whose products read copies: of a batch's inputs, of activations and of their gradients.
//!
//! Where precision is `bf16` or `tf32`, products round their operands whoever does it. In a wide layer a value is an operand of many
//! tiles: here it is rounded once, by the kernel that makes it, and from then on moves 16 bytes at a time, and in bfloat16 as two
//! bytes. In `f32` it is taken apart once, into three planes of bfloat16, so that tensor cores multiply it without any rounding.

use super::{Arenas, Batch, Feed, Graph, Purpose};
use crate::gpu::copies::{
    Chunk, Copied, Format, Gradient, Input, Output, batch, gradient, input_gradient, linear, parts_max,
    parts_of_hidden, parts_of_last, weight_gradient,
};
use crate::gpu::{Buffer, Gpu, Sink, Source};
use crate::resident::WEIGHTS_MAX as RESIDENT_WEIGHTS_MAX;
use crate::{Choices, Error, Precision};

// Parameters of the resident engine, which writes them by itself, have no copies that would stay behind.
const _: () = assert!(RESIDENT_WEIGHTS_MAX <= Choices::DEFAULT.copied_weights_max);

/// Whether a model of these widths is trained on copies.
pub(super) fn pay(gpu: &Gpu, widths: &[usize], precision: Precision) -> bool {
    let own = if gpu.fast_planes { Choices::FAST_F32_WEIGHTS_MAX } else { usize::MAX };
    let most = match precision {
        Precision::F32 => gpu.choices.copied_f32_weights_max.unwrap_or(own),
        Precision::Tf32 | Precision::Bf16 => gpu.choices.copied_weights_max,
    };
    widths.windows(2).any(|layer| layer[0].saturating_mul(layer[1]) > most)
}

/// The copies of a batch.
pub(super) struct Copies {
    format: Format,
    /// (B, K) of the first layer.
    inputs: Buffer<Chunk>,
    /// Outputs (B, N) of each layer but the last.
    hidden: Vec<Buffer<Chunk>>,
    /// Gradients (B, N) at the outputs of each layer, for training.
    deltas: Vec<Buffer<Chunk>>,
    /// Sums of parts of them.
    parts: Vec<Buffer<f32>>,
}

impl Copies {
    pub(super) fn new(
        gpu: &Gpu,
        widths: &[usize],
        rows: usize,
        format: Format,
        purpose: Purpose,
    ) -> Result<Self, Error> {
        let copy = |width: &usize| Buffer::new(gpu, "activations", format.chunks(rows, *width));
        let parts =
            |width: &usize| Buffer::new(gpu, "sums of gradients", parts_max(rows).saturating_mul(*width));
        let outputs = &widths[1..];
        let trained = match purpose {
            Purpose::Training => outputs,
            Purpose::Evaluation => &[],
        };
        Ok(Self {
            format,
            inputs: copy(&widths[0])?,
            hidden: outputs[..outputs.len() - 1].iter().map(copy).collect::<Result<_, _>>()?,
            deltas: trained.iter().map(copy).collect::<Result<_, _>>()?,
            parts: trained.iter().map(parts).collect::<Result<_, _>>()?,
        })
    }

    /// One of them.
    fn of<'b>(&self, chunks: &'b Buffer<Chunk>) -> Copied<'b> {
        Copied { chunks: chunks.all(), format: self.format }
    }
}

impl Graph<'_> {
    /// Copies the rows of a batch.
    pub(super) fn copy_batch(
        &self,
        copies: &Copies,
        feed: Feed<'_>,
        arenas: &Arenas,
        of: Batch,
    ) -> Result<(), Error> {
        let shape = (of.rows, self.net.widths[0] as u32);
        batch(&self.gpu, &feed.source, &arenas.position(of), copies.of(&copies.inputs), shape)
    }

    /// The outputs of a layer.
    pub(super) fn outputs_on(
        &self,
        copies: &Copies,
        layer: usize,
        feed: Feed<'_>,
        arenas: &Arenas,
        batch: Batch,
    ) -> Result<(), Error> {
        let y = match copies.hidden.get(layer) {
            Some(hidden) => Output::Hidden(copies.of(hidden)),
            None => Output::Last(arenas.last()),
        };
        let (_, b) = self.net.parameters(layer);
        let input = input(copies, layer, feed);
        linear(&self.gpu, &input, self.net.copy(layer), b, &y, self.dims(layer, batch))
    }

    /// Copies the gradient at the outputs.
    pub(super) fn copy_gradient(&self, copies: &Copies, batch: Batch) -> Result<(), Error> {
        let last = self.net.depth() - 1;
        let to = self.gradient_of(copies, last, batch);
        gradient(&self.gpu, self.arenas.last(), &to, (batch.rows, self.net.widths[last + 1] as u32))
    }

    /// The gradient at the outputs of the layer below.
    pub(super) fn input_gradient_on(&self, copies: &Copies, layer: usize, batch: Batch) -> Result<(), Error> {
        let (dz, x) = (copies.of(&copies.deltas[layer]), copies.of(&copies.hidden[layer - 1]));
        let w = self.net.copy(layer);
        let dx = self.gradient_of(copies, layer - 1, batch);
        input_gradient(&self.gpu, dz, w, x, &dx, self.dims(layer, batch))
    }

    /// The gradient of a layer's parameters, into the sink.
    pub(super) fn weight_gradient_on(
        &self,
        copies: &Copies,
        layer: usize,
        feed: Feed<'_>,
        batch: Batch,
        sink: &Sink<'_>,
    ) -> Result<(), Error> {
        let (input, at) = (input(copies, layer, feed), self.arenas.position(batch));
        let dz = self.gradient_of(copies, layer, batch);
        let dims = self.dims(layer, batch);
        weight_gradient(&self.gpu, &input, &at, &dz, sink, self.net.copy(layer), dims)
    }

    /// The gradient at the outputs of a layer.
    fn gradient_of<'b>(&self, copies: &'b Copies, layer: usize, batch: Batch) -> Gradient<'b> {
        let count = match layer + 1 == self.net.depth() {
            true => parts_of_last(batch.rows),
            false => parts_of_hidden(&self.gpu, copies.format, batch.rows, self.net.widths[layer + 1] as u32),
        };
        Gradient { dz: copies.of(&copies.deltas[layer]), parts: copies.parts[layer].all(), count }
    }
}

/// What a layer reads.
fn input<'b>(copies: &'b Copies, layer: usize, feed: Feed<'_>) -> Input<'b> {
    match layer.checked_sub(1) {
        Some(below) => Input::floats(copies.of(&copies.hidden[below])),
        None if matches!(feed.source, Source::Pixels(_)) => Input::pixels(copies.of(&copies.inputs)),
        None => Input::floats(copies.of(&copies.inputs)),
    }
}

#[cfg(test)]
mod tests {
    use kiln_tests::on_device;

    use super::*;
    use crate::engine::Engine;
    use crate::{AdamW, GraphOptions, Job, Loss, Mlp, Optimizer, Samples, Schedule, Sgd, Targets};

    const ROWS: usize = 150;
    const WIDTH: usize = 29;

    /// What training comes to: losses, and all gradients and parameters at the end.
    type Outcome = (Vec<f64>, Vec<f32>, Vec<f32>);

    fn train(
        train: Samples<'_>,
        optimizer: Optimizer,
        layers: &[usize],
        precision: Precision,
        choices: Choices,
        micro_batch: Option<usize>,
    ) -> Outcome {
        let model = Mlp::new(layers, 3).unwrap();
        let (loss, schedule) = (Loss::CrossEntropy, Schedule::default());
        let options = GraphOptions { precision, micro_batch, choices, ..GraphOptions::default() };
        let mut graph = Graph::new(Job { model, loss, optimizer, schedule, train }, options).unwrap();
        let order: Vec<u32> = (0..ROWS as u32).map(|at| at * 7 % ROWS as u32).collect();
        // Four steps, the last of fewer rows.
        let mut losses = vec![graph.epoch(&order, 40, &mut |_| ()).unwrap().loss];
        losses.push(graph.evaluate(&train.first(90)).unwrap().loss);
        let gradients = graph.gradients(&order[..77]).unwrap();
        losses.push(gradients.loss);
        let flat = |tensors: &[crate::Tensor]| tensors.iter().flat_map(|t| t.data.clone()).collect();
        (losses, flat(&gradients.tensors), flat(graph.model().unwrap().tensors()))
    }

    /// Two trainings that round the same operands.
    fn assert_alike(what: &str, layers: &[usize], got: &Outcome, expected: &Outcome) {
        for (got, expected) in got.0.iter().zip(&expected.0) {
            let off = (got - expected).abs();
            assert!(off <= 1e-5 * expected, "{what}: {got}, expected {expected}");
        }
        // An output that is zero but for rounding passes its gradient or does not, where there is a ReLU.
        let gradients = if layers.len() > 2 { 1e-2 } else { 1e-5 };
        for (got, expected, most) in [(&got.1, &expected.1, gradients), (&got.2, &expected.2, 1e-4)] {
            let norm = |values: &mut dyn Iterator<Item = f32>| {
                values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
            };
            let off = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
            let share = off / norm(&mut expected.iter().copied());
            println!("{what}: off by {share:.1e}");
            assert!(share <= most, "{what}: off by {share:e}");
        }
    }

    /// Copies change the order of sums and nothing else: operands are rounded the same either way, or not at all.
    #[test]
    fn copies_change_nothing_but_the_order_of_sums() {
        on_device!();
        let pixels: Vec<u8> = (0..ROWS * WIDTH).map(|at| (at * at * 31 % 251) as u8).collect();
        let floats: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 200.0).collect();
        let labels: Vec<u8> = (0..ROWS).map(|row| (row * 5 % 7) as u8).collect();
        let pixels = Samples::pixels(&pixels, WIDTH, Targets::Labels(&labels)).unwrap();
        let floats = Samples::floats(&floats, WIDTH, Targets::Labels(&labels)).unwrap();
        let momentum: Optimizer = Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() }.into();
        let descent = Sgd { lr: 0.1, ..Sgd::default() }.into();
        let adam = AdamW::default().into();
        for (samples, precision, optimizers) in [
            (pixels, Precision::Bf16, &[momentum, descent, adam][..]),
            (floats, Precision::Tf32, &[momentum, adam]),
            (pixels, Precision::Tf32, &[descent]),
            (pixels, Precision::F32, &[momentum]),
            (floats, Precision::F32, &[descent, adam]),
        ] {
            for (number, &optimizer) in optimizers.iter().enumerate() {
                // What an optimizer does to a weight does not depend on the layers.
                let others = [&[WIDTH, 33, 7][..], &[WIDTH, 7]].into_iter().filter(|_| number == 0);
                for layers in std::iter::once(&[WIDTH, 131, 67, 7][..]).chain(others) {
                    let [copies, floats] = [0, usize::MAX].map(|most| Choices {
                        copied_weights_max: most,
                        copied_f32_weights_max: Some(most),
                        ..Choices::default()
                    });
                    let [on_copies, in_parts, on_floats] =
                        [(copies, None), (copies, Some(13)), (floats, None)].map(|(choices, micro_batch)| {
                            train(samples, optimizer, layers, precision, choices, micro_batch)
                        });
                    assert_ne!(on_copies.2, in_parts.2, "parts change the order of sums");
                    for (got, expected) in in_parts.0.iter().zip(&on_floats.0) {
                        let off = (got - expected).abs();
                        assert!(off <= 1e-4 * expected, "{layers:?}: in parts {got}, expected {expected}");
                    }
                    let what = format!("{precision} {layers:?} {optimizer:?}");
                    assert_alike(&what, layers, &on_copies, &on_floats);
                }
            }
        }
    }

    /// In `f32` where the GPU's tensor cores are fast enough for six products, or where that is asked for.
    #[test]
    fn wide_models_are_trained_on_copies() {
        on_device!(&[("KILN_SIM_ARCH", "sm_90")], &[("KILN_SIM_ARCH", "sm_86")]);
        let mut gpu = Gpu::open(0, Precision::F32).unwrap();
        let fast = gpu.fast_planes;
        for (widths, wide) in [(&[784, 128, 10][..], false), (&[784, 335, 10], true), (&[513, 512], true)] {
            for precision in [Precision::Tf32, Precision::Bf16] {
                assert_eq!(pay(&gpu, widths, precision), wide, "{widths:?} in {precision}");
            }
        }
        assert!(!pay(&gpu, &[1024, 1024, 10], Precision::F32));
        assert_eq!(pay(&gpu, &[1024, 1025, 10], Precision::F32), fast);
        for (most, copied) in [(0, true), (usize::MAX, false)] {
            gpu.choices.copied_f32_weights_max = Some(most);
            assert_eq!(pay(&gpu, &[1024, 1025, 10], Precision::F32), copied);
        }
        match crate::inspect(0).unwrap().capability {
            (9, 0) => assert!(fast),
            (8, 6) => assert!(!fast),
            _ => {}
        }
    }

    /// So does who multiplies: warps, or warpgroups where the device has them.
    #[test]
    fn warpgroups_change_nothing_but_the_order_of_sums() {
        on_device!(&[("KILN_SIM_SEED", "4")]);
        let pixels: Vec<u8> = (0..ROWS * WIDTH).map(|at| (at * at * 31 % 251) as u8).collect();
        let labels: Vec<u8> = (0..ROWS).map(|row| (row * 5 % 7) as u8).collect();
        let samples = Samples::pixels(&pixels, WIDTH, Targets::Labels(&labels)).unwrap();
        let optimizer = Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() }.into();
        let layers = [WIDTH, 131, 67, 7];
        for precision in [Precision::Bf16, Precision::F32] {
            let trained = |warpgroup_columns_max| {
                // Of the largest tile that there is, whatever the device has to do.
                let choices = Choices {
                    copied_weights_max: 0,
                    copied_f32_weights_max: Some(0),
                    tile_blocks_percent: 0,
                    warpgroup_columns_max,
                    ..Choices::default()
                };
                train(samples, optimizer, &layers, precision, choices, None)
            };
            let by_warps = trained(0);
            for columns in [128, 256] {
                let what = format!("{precision} by warpgroups, {columns} columns");
                assert_alike(&what, &layers, &trained(columns), &by_warps);
            }
        }
    }
}
