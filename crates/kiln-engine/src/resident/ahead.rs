//! Epochs that are trained while earlier ones are looked at.
//!
//! Each is a launch of its own on a stream of its own, behind the one before. When it is done, the engine's other stream reads
//! what it came to and evaluates the parameters that it left, on multiprocessors that the next one leaves idle. A launch
//! begins and ends with parameters in memory: a few microseconds of an epoch of some thousands.

use std::collections::VecDeque;

use cudarc::driver::CudaEvent;

use super::run::{RunState, Span};
use super::{Core, training};
use crate::gpu::resident::{RunRecord, Sizes, describe, train};
use crate::gpu::{Buffer, Gpu, fault, passed};
use crate::{Error, Trained};

/// Epochs that are under way: one that is trained, and one that follows at once.
pub(super) const EPOCHS: usize = 2;

/// The stream that trains, and what its launches need.
pub(super) struct Ahead {
    gpu: Gpu,
    /// Taken in turn.
    places: [Place; EPOCHS],
    next: usize,
    under_way: VecDeque<UnderWay>,
    /// When the last that was collected ended, in nanoseconds of the device.
    ended: u64,
    /// What blocks of a grid exchange: made and given back in the order of this stream.
    exchange: Buffer<u64>,
}

struct Place {
    span: Span,
    record: Buffer<RunRecord>,
}

struct UnderWay {
    place: usize,
    sizes: Sizes,
    /// Steps of the run when it is done.
    steps: u64,
    done: CudaEvent,
    /// Whether the device was still busy with another when it was submitted: it begins where that ends.
    follows: bool,
}

impl Ahead {
    /// All that has been submitted to the device comes before the first epoch.
    pub(super) fn new(core: &Core<'_>) -> Result<Self, Error> {
        let gpu = &core.graph.gpu;
        let place = || {
            let span = Span::new(gpu)?.with_snapshots(gpu)?;
            Ok(Place { span, record: Buffer::new(gpu, "descriptions of runs", 1)? })
        };
        let (places, under_way) = ([place()?, place()?], VecDeque::new());
        let gpu = gpu.beside()?;
        let exchange = Buffer::new(&gpu, "what blocks exchange", 0)?;
        Ok(Self { gpu, places, next: 0, under_way, ended: 0, exchange })
    }

    /// Submits an epoch of a run.
    pub(super) fn submit(
        &mut self,
        core: &mut Core<'_>,
        run: &mut RunState,
        order: &[u32],
        batch: usize,
    ) -> Result<(), Error> {
        let gpu = &core.graph.gpu;
        if self.under_way.is_empty() {
            core.stop.clear(gpu)?;
        }
        let sizes = core.sizes(order.len(), batch, 1);
        let Place { span, record } = &mut self.places[self.next];
        span.begin(gpu, &sizes, order, &run.scalars(&sizes, 1))?;
        describe(gpu, &sizes, &[run.run_over(span)], record)?;
        // What it reads is sent, and what it overwrites is read.
        self.gpu.after(&gpu.point()?)?;
        let shared = training(&core.x, core.form, &core.graph, &core.stop, None);
        train(&self.gpu, &core.plan, &sizes, &shared, 1, record, &mut self.exchange)?;
        let follows = match self.under_way.back() {
            Some(last) => {
                !passed(&last.done).map_err(|error| fault("asking how far the training is", error))?
            }
            None => false,
        };
        run.went_on(&sizes, 1);
        let (place, steps, done) = (self.next, run.steps, self.gpu.point()?);
        self.under_way.push_back(UnderWay { place, sizes, steps, done, follows });
        self.next = (self.next + 1) % EPOCHS;
        Ok(())
    }

    /// Waits for the first epoch of the run under way; its parameters are then those that the engine evaluates.
    pub(super) fn collect(&mut self, core: &mut Core<'_>, run: &mut RunState) -> Result<Trained, Error> {
        let Some(UnderWay { place, sizes, steps, done, follows }) = self.under_way.pop_front() else {
            unreachable!("epochs are collected that were submitted")
        };
        let span = &self.places[place].span;
        core.graph.gpu.after(&done)?;
        let mut ended = span.ended(&core.graph.gpu, 1)?;
        if follows {
            ended[0] = self.ended; // with what lies between two launches
        }
        self.ended = ended[1];
        let epochs = span.end(&core.graph.gpu, &sizes, &ended)?.whole()?;
        span.show(&mut core.graph, 0)?;
        run.seen = steps;
        Ok(epochs[0])
    }

    /// Has the engine wait for all epochs under way.
    pub(super) fn settle(&mut self, core: &Core<'_>) -> Result<(), Error> {
        let Some(last) = self.under_way.drain(..).next_back() else { return Ok(()) };
        core.graph.gpu.after(&last.done)
    }
}

impl Drop for Ahead {
    /// Buffers are given back in the order of the other stream: no launch may still use one.
    fn drop(&mut self) {
        let context = self.gpu.stream.context().clone();
        context.record_err(self.gpu.stream.synchronize());
    }
}
