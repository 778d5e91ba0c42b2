//! Steps captured in CUDA graphs, and their replay.
//!
//! A captured step finds its batch through the counter in device memory, so that one capture serves a whole run. Launching a
//! graph costs the host more than a step costs the device, hence many steps a graph; what is left of an epoch runs step by
//! step.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode};

use super::{Batch, Graph, Submission};
use crate::Error;
use crate::gpu::fault;
use crate::nvtx::range;

/// Graphs that are kept.
const GRAPHS_MAX: usize = 64;

/// What a capture depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    steps: usize,
    rows: u32,
    stride: u32,
    side: usize,
}

/// Graphs by what they were captured for.
#[derive(Default)]
pub(super) struct Captured(HashMap<Shape, CudaGraph>);

impl Captured {
    /// Runs `steps` steps like this one on the device, which is not waited for.
    pub(super) fn run(&mut self, engine: &Graph<'_>, steps: usize, batch: Batch) -> Result<(), Error> {
        let Batch { rows, stride, side, .. } = batch;
        let mut left = steps;
        while left > 0 {
            // A batch in parts is launches enough for a graph.
            let most = engine.captured_steps();
            let many = engine.steps.together(left) >= most && rows <= engine.part_rows();
            let steps = if many { most } else { 1 };
            let shape = Shape { steps, rows, stride, side };
            let numbers = engine.steps.begin(&engine.gpu, steps)?;
            match engine.options.submission {
                Submission::Captured => self.replay(engine, shape, numbers)?,
                Submission::Direct | Submission::Synchronous => submit(engine, shape, numbers.start)?,
            }
            engine.steps.end(&engine.gpu)?;
            left -= steps;
        }
        Ok(())
    }

    /// Graphs are of a few shapes; a caller whose epochs are all of different lengths must not fill the device with them.
    fn replay(&mut self, engine: &Graph<'_>, shape: Shape, numbers: Range<usize>) -> Result<(), Error> {
        if self.0.len() >= GRAPHS_MAX && !self.0.contains_key(&shape) {
            self.0.clear();
        }
        let graph = match self.0.entry(shape) {
            Entry::Occupied(captured) => captured.into_mut(),
            Entry::Vacant(place) => place.insert(capture(engine, shape)?),
        };
        let _range = match numbers.len() {
            1 => range(format_args!("step {}", numbers.start)),
            _ => range(format_args!("steps {}..{}", numbers.start, numbers.end)),
        };
        graph.launch().map_err(|error| fault("launching captured steps", error))
    }
}

/// Submits steps from number `first` of the run on.
fn submit(engine: &Graph<'_>, shape: Shape, first: usize) -> Result<(), Error> {
    for slot in 0..shape.steps {
        let _range = range(format_args!("step {}", first + slot));
        submit_slot(engine, shape, slot).map_err(|error| match engine.options.submission {
            // All before it was waited for: it is this step that failed.
            Submission::Synchronous => error.during(first + slot..first + slot + 1),
            Submission::Captured | Submission::Direct => error,
        })?;
    }
    Ok(())
}

/// The launches of one step of some; after the last the counter is moved on by as many.
fn submit_slot(engine: &Graph<'_>, shape: Shape, slot: usize) -> Result<(), Error> {
    let Shape { steps, rows, stride, side } = shape;
    engine.submit_step(Batch { slot: slot as u32, ..Batch::alone(rows as usize, stride as usize, side) })?;
    match slot + 1 == steps {
        true => engine.submit_advance(steps),
        false => Ok(()),
    }
}

fn capture(engine: &Graph<'_>, shape: Shape) -> Result<CudaGraph, Error> {
    let _range = match shape.steps {
        1 => range(format_args!("capture of 1 step")),
        steps => range(format_args!("capture of {steps} steps")),
    };
    let stream = &engine.gpu.stream;
    let failed = |error| fault("capturing a step", error);
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(failed)?;
    let submitted = (0..shape.steps).try_for_each(|slot| {
        let _range = range(format_args!("captured step {slot}"));
        submit_slot(engine, shape, slot)
    });
    // A capture is ended whatever came of it: a stream that is left in one refuses all further work.
    let ended = stream.end_capture(Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    submitted?;
    let graph = ended.map_err(failed)?;
    graph.ok_or_else(|| Error::Gpu { what: "capturing a step".into(), reason: "the graph is empty".into() })
}
