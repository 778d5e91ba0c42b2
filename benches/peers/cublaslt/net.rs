//! The model on the device, training.

use std::rc::Rc;

use anyhow::{Result, bail};
use cudarc::driver::{CudaGraph, CudaSlice};
use kiln_data::Split;
use kiln_engine::Mlp;

use crate::device::Device;
use crate::launches::{count_hits, gather, update};
use crate::lt::{Library, Precision};
use crate::memory::{Memory, Sizes};
use crate::plan::{Fusion, Maker, Step};

/// Steps of the large graph.
const GRAPH_STEPS: usize = 32;

/// The model, ready to train.
pub(crate) struct Net<'d> {
    device: &'d Device,
    sizes: Sizes,
    memory: Memory,
    whole: Step,
    tail: Option<Step>,
    graphs: Vec<(usize, CudaGraph)>,
}

/// Microseconds a step with each of the epilogues, or why it cannot be.
pub(crate) type Tried = Vec<(Fusion, Result<f32, String>)>;

impl<'d> Net<'d> {
    /// Measures a step with each of the epilogues, and takes the fastest.
    pub(crate) fn new(
        device: &'d Device,
        library: &Rc<Library>,
        precision: Precision,
        model: &Mlp,
        train: &Split,
        batch: usize,
        fusions: &[Fusion],
    ) -> Result<(Self, Tried)> {
        let sizes = Sizes::new(model, precision, train.len(), batch);
        let mut memory = Memory::new(device, &sizes, train)?;
        let samples: Vec<u32> = (0..sizes.samples as u32).collect();
        device.stream.memcpy_htod(&samples, &mut memory.order)?;
        let initial = sizes.lay_out(model);
        let (mut best, mut tried): (Option<(f32, Step, Option<Step>)>, Tried) = (None, Vec::new());
        for &fusion in fusions {
            // Measured with parameters and activations as they come.
            reset(device, &mut memory, &initial)?;
            let maker = Maker { device, library, sizes: &sizes, memory: &mut memory, fusion };
            match maker.steps() {
                Ok((time, whole, tail)) => {
                    if best.as_ref().is_none_or(|(least, ..)| time < *least) {
                        best = Some((time, whole, tail));
                    }
                    tried.push((fusion, Ok(time)));
                }
                Err(error) => tried.push((fusion, Err(format!("{error:#}")))),
            }
        }
        let Some((_, whole, tail)) = best else {
            let reasons: Vec<String> = tried
                .iter()
                .filter_map(|(fusion, tried)| Some(format!("{fusion}: {}", tried.as_ref().err()?)))
                .collect();
            bail!("cuBLASLt does not compute a step: {}", reasons.join("; "));
        };
        let mut net = Self { device, sizes, memory, whole, tail, graphs: Vec::new() };
        net.start(&initial)?;
        for steps in [GRAPH_STEPS, 1] {
            let graph = device.capture(|| (0..steps).try_for_each(|_| net.submit(&net.whole)))?;
            graph.upload()?;
            net.graphs.push((steps, graph));
        }
        Ok((net, tried))
    }

    pub(crate) fn fusion(&self) -> Fusion {
        self.whole.fusion
    }

    pub(crate) fn steps(&self) -> usize {
        self.sizes.steps()
    }

    /// Initial parameters and their copies, all else at rest.
    fn start(&mut self, initial: &[f32]) -> Result<()> {
        let Self { device, memory, .. } = self;
        let stream = &device.stream;
        reset(device, memory, initial)?;
        stream.memset_zeros(&mut memory.gradients)?;
        stream.memset_zeros(&mut memory.low_gradients)?;
        // An update by nothing makes the copies of the parameters.
        update(device, &self.sizes, &self.memory, 0, 0.0)?;
        Ok(stream.synchronize()?)
    }

    /// Trains one epoch; the mean of the batch losses. `meanwhile` runs while the device works.
    pub(crate) fn epoch(&mut self, order: &[u32], meanwhile: impl FnOnce()) -> Result<f64> {
        let stream = &self.device.stream;
        stream.memcpy_htod(order, &mut self.memory.order)?;
        stream.memset_zeros(&mut self.memory.step)?;
        let mut left = self.sizes.samples / self.sizes.batch;
        for (steps, graph) in &self.graphs {
            while left >= *steps {
                graph.launch()?;
                left -= steps;
            }
        }
        if let Some(tail) = &self.tail {
            self.submit(tail)?;
        }
        meanwhile();
        let losses = stream.clone_dtoh(&self.memory.losses)?;
        stream.synchronize()?;
        Ok(losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / self.steps() as f64)
    }

    fn submit(&self, step: &Step) -> Result<()> {
        step.submit(self.device, &self.sizes, &self.memory)
    }

    /// The part of samples whose class is the largest output.
    pub(crate) fn accuracy(&mut self, test: &Split) -> Result<f64> {
        let Self { device, sizes, memory, .. } = self;
        let stream = &device.stream;
        let pixels = stream.clone_htod(&test.images.pixels)?;
        let labels = stream.clone_htod(&test.labels)?;
        let batches = test.len().div_ceil(sizes.batch);
        let last = test.len() as u32 - 1;
        let order: Vec<u32> = (0..(batches * sizes.batch) as u32).map(|sample| sample.min(last)).collect();
        let order = stream.clone_htod(&order)?;
        let hits: CudaSlice<u32> = device.zeros(1)?;
        for batch in 0..batches as u32 {
            stream.memcpy_htod(&[batch], &mut memory.step)?;
            gather(device, sizes, memory, [device.address(&pixels), device.address(&order)], sizes.batch)?;
            self.whole.forward.iter().try_for_each(|product| product.submit(device))?;
            let [labels, hits] = [device.address(&labels), device.address(&hits)];
            count_hits(device, sizes, memory, labels, test.len(), hits)?;
        }
        let hits = stream.clone_dtoh(&hits)?;
        stream.synchronize()?;
        Ok(f64::from(hits[0]) / test.len() as f64)
    }
}

/// Initial parameters, as they lie in memory, and velocities zero.
fn reset(device: &Device, memory: &mut Memory, initial: &[f32]) -> Result<()> {
    device.stream.memcpy_htod(initial, &mut memory.parameters)?;
    Ok(device.stream.memset_zeros(&mut memory.velocities)?)
}
