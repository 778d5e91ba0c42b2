//! What a batch and an epoch need on the device, made once and made larger where a larger one is announced.

use super::Batch;
use super::copies::Copies;
use crate::Error;
use crate::gpu::copies::Format;
use crate::gpu::{Buffer, Gpu, Position, Region, RowResults, Scalars};

/// What batches are computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Training,
    /// Losses and hits alone: there are no gradients of activations.
    Evaluation,
}

/// Activations and their gradients, the epoch's order, and what its rows come to.
pub(super) struct Arenas {
    widths: Vec<usize>,
    purpose: Purpose,
    /// Rows that a batch may have.
    batch: usize,
    /// Rows that an epoch may have.
    rows: usize,
    /// Steps that an epoch may have.
    steps: usize,
    /// That of copies of activations and gradients, where products read those.
    copied: Option<Format>,
    /// Outputs (B, N) of each layer, or of the last alone where the others are copies; those of the last become the gradient
    /// there when the loss is taken, or are never there, where a head makes the gradient.
    pub(super) outputs: Vec<Buffer<f32>>,
    /// Gradients (B, N) at the outputs of each layer but the last, for training.
    deltas: Vec<Buffer<f32>>,
    /// The copies, where products read them.
    copies: Option<Copies>,
    /// (rows) samples.
    order: Buffer<u32>,
    /// (1): steps of the epoch that are done.
    pub(super) step: Buffer<u32>,
    /// (steps) learning rate and momentum.
    pub(super) scalars: Buffer<Scalars>,
    /// (rows)
    pub(super) losses: Buffer<f32>,
    /// (rows)
    pub(super) hits: Buffer<u32>,
    /// (steps)
    pub(super) step_losses: Buffer<f64>,
    /// (steps)
    pub(super) step_hits: Buffer<u32>,
}

impl Arenas {
    /// Empty arenas for a model of these widths, with copies or without.
    pub(super) fn new(
        gpu: &Gpu,
        widths: &[usize],
        copied: Option<Format>,
        purpose: Purpose,
    ) -> Result<Self, Error> {
        Ok(Self {
            widths: widths.to_vec(),
            purpose,
            copied,
            copies: None,
            batch: 0,
            rows: 0,
            steps: 0,
            outputs: Vec::new(),
            deltas: Vec::new(),
            order: Buffer::new(gpu, "the order of samples", 0)?,
            step: Buffer::new(gpu, "the step counter", 1)?,
            scalars: Buffer::new(gpu, "learning rates", 0)?,
            losses: Buffer::new(gpu, "losses", 0)?,
            hits: Buffer::new(gpu, "hits", 0)?,
            step_losses: Buffer::new(gpu, "losses of steps", 0)?,
            step_hits: Buffer::new(gpu, "hits of steps", 0)?,
        })
    }

    /// Makes room for batches of so many rows in epochs of so many rows and steps; whether anything has moved.
    pub(super) fn reserve(
        &mut self,
        gpu: &Gpu,
        batch: usize,
        rows: usize,
        steps: usize,
    ) -> Result<bool, Error> {
        let (wider, longer, more) = (batch > self.batch, rows > self.rows, steps > self.steps);
        if wider {
            let arena = |width: &usize| Buffer::new(gpu, "activations", batch.saturating_mul(*width));
            // Where there are copies of the others: the last layer alone.
            let outputs = &self.widths[if self.copied.is_some() { self.widths.len() - 1 } else { 1 }..];
            self.batch = 0;
            // Their memory is free before more is asked for.
            (self.outputs, self.deltas, self.copies) = (Vec::new(), Vec::new(), None);
            let copies = |format| Copies::new(gpu, &self.widths, batch, format, self.purpose);
            self.copies = self.copied.map(copies).transpose()?;
            self.outputs = outputs.iter().map(arena).collect::<Result<_, _>>()?;
            let hidden = match self.purpose {
                Purpose::Training => outputs.len() - 1,
                Purpose::Evaluation => 0,
            };
            self.deltas = outputs[..hidden].iter().map(arena).collect::<Result<_, _>>()?;
            self.batch = batch;
        }
        if longer {
            self.rows = 0;
            self.order = Buffer::new(gpu, "the order of samples", rows)?;
            self.losses = Buffer::new(gpu, "losses", rows)?;
            self.hits = Buffer::new(gpu, "hits", rows)?;
            self.rows = rows;
        }
        if more {
            self.steps = 0;
            self.scalars = Buffer::new(gpu, "learning rates", steps)?;
            self.step_losses = Buffer::new(gpu, "losses of steps", steps)?;
            self.step_hits = Buffer::new(gpu, "hits of steps", steps)?;
            self.steps = steps;
        }
        Ok(wider || longer || more)
    }

    /// Begins an epoch.
    pub(super) fn begin(&mut self, gpu: &Gpu, order: &[u32], scalars: &[Scalars]) -> Result<(), Error> {
        self.order.upload(gpu, order)?;
        self.scalars.upload(gpu, scalars)?;
        self.step.clear(gpu)
    }

    /// Where a batch stands in the epoch that has begun.
    pub(super) fn position(&self, batch: Batch) -> Position<'_> {
        let order = batch.part_of(self.order.all());
        Position { order, step: self.step.all(), slot: batch.slot, batch: batch.stride }
    }

    /// Where the losses and hits of a batch's rows go.
    pub(super) fn results(&self, batch: Batch) -> RowResults<'_> {
        let (losses, hits) = (batch.part_of(self.losses.all()), batch.part_of(self.hits.all()));
        RowResults { losses, hits }
    }

    /// Outputs (B, C) of the last layer; when the loss is taken, the gradient there.
    pub(super) fn last(&self) -> Region<'_, f32> {
        self.outputs[self.outputs.len() - 1].all()
    }

    /// The copies, where products read them.
    pub(super) fn copies(&self) -> Option<&Copies> {
        self.copies.as_ref()
    }

    /// The gradient (B, N) at the outputs of a layer.
    pub(super) fn delta(&self, layer: usize) -> Region<'_, f32> {
        self.deltas.get(layer).map_or_else(|| self.last(), Buffer::all)
    }
}
