//! Steps captured in CUDA graphs, and their replay.
//!
//! A captured step finds its batch through the counter in device memory, so that one capture serves a whole run. Launching a
//! graph costs the host more than a step costs the device, hence many steps a graph; what is left of an epoch runs step by
//! step.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode};

use super::{Batch, Graph, Submission};
use crate::Error;
use crate::gpu::{advance, fault};

/// Steps of the large graph.
const STEPS: usize = 16;

/// What a capture depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    steps: usize,
    rows: u32,
    stride: u32,
}

/// Graphs by what they were captured for.
#[derive(Default)]
pub(super) struct Captured(HashMap<Shape, CudaGraph>);

impl Captured {
    /// Runs `steps` steps of batches of `rows` on the device, which is not waited for.
    pub(super) fn run(&mut self, engine: &Graph, steps: usize, rows: u32, stride: u32) -> Result<(), Error> {
        let sizes = std::iter::repeat_n(STEPS, steps / STEPS).chain(std::iter::repeat_n(1, steps % STEPS));
        for steps in sizes {
            let shape = Shape { steps, rows, stride };
            match engine.options.submission {
                Submission::Captured => self.replay(engine, shape)?,
                Submission::Direct | Submission::Synchronous => submit(engine, shape)?,
            }
        }
        Ok(())
    }

    fn replay(&mut self, engine: &Graph, shape: Shape) -> Result<(), Error> {
        let graph = match self.0.entry(shape) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(capture(engine, shape)?),
        };
        graph.launch().map_err(|error| fault("launching captured steps", error))
    }
}

/// The launches of some steps, after which the counter is moved on by as many.
fn submit(engine: &Graph, shape: Shape) -> Result<(), Error> {
    for slot in 0..shape.steps {
        engine.submit_step(Batch { slot: slot as u32, rows: shape.rows, stride: shape.stride })?;
    }
    advance(&engine.gpu, engine.arenas.step.all(), shape.steps as u32)?;
    engine.submitted("epoch")
}

fn capture(engine: &Graph, shape: Shape) -> Result<CudaGraph, Error> {
    let stream = &engine.gpu.stream;
    let failed = |error| fault("capturing a step", error);
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(failed)?;
    let submitted = submit(engine, shape);
    // A capture is ended whatever came of it: a stream that is left in one refuses all further work.
    let ended = stream.end_capture(Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    submitted?;
    let graph = ended.map_err(failed)?;
    graph.ok_or_else(|| Error::Gpu { what: "capturing a step".into(), reason: "the graph is empty".into() })
}
