//! A data set that stays on the host: its rows are gathered in the order of the epoch, chunk by chunk, and copied while the
//! chunk before is computed with.
//!
//! There are two sides, each with pinned memory on the host and a buffer on the device. A side is filled on the host once its
//! last copy is done, and copied to the device once the steps that read it there are done. Captured steps are of one side.

use cudarc::driver::CudaEvent;

use super::feed::{DeviceTargets, Feed};
use crate::gpu::{Copies, Gpu, Source, Staged};
use crate::{Error, Inputs, Samples, Targets};

/// Most bytes of a side.
const SIDE_BYTES_MAX: usize = 64 << 20;
/// Share of the free memory that a side may take.
const SHARE: usize = 32;

/// Chunks of a data set on their way to the device.
pub(super) struct Streamed<'d> {
    // Dropped first: it waits for copies into the buffers below.
    copies: Copies,
    samples: Samples<'d>,
    sides: [Side; 2],
    /// Rows of a side.
    rows: usize,
}

struct Side {
    inputs: StagedInputs,
    targets: StagedTargets,
    /// After the last step that reads the device's side.
    read: Option<CudaEvent>,
}

enum StagedInputs {
    Pixels(Staged<u8>),
    Floats(Staged<f32>),
}

enum StagedTargets {
    Labels(Staged<u8>),
    Values(Staged<f32>),
}

impl<'d> Streamed<'d> {
    /// Sides of so many rows, which must hold a batch.
    pub(super) fn new(gpu: &Gpu, samples: Samples<'d>, rows: usize) -> Result<Self, Error> {
        let sides = [Side::new(gpu, &samples, rows)?, Side::new(gpu, &samples, rows)?];
        let copies = Copies::new(gpu)?;
        copies.after(&gpu.point()?)?; // the buffers exist, and are zero
        Ok(Self { copies, samples, sides, rows })
    }

    /// How many rows a side should have for batches of `stride`: whole batches, whole captures of `steps` where they fit, and
    /// no more than there is data for, or than `most`.
    pub(super) fn rows_for(
        gpu: &Gpu,
        samples: &Samples<'_>,
        stride: usize,
        steps: usize,
        most: Option<usize>,
    ) -> usize {
        let free = gpu.stream.context().mem_get_info().map_or(0, |(free, _)| free);
        let fit = SIDE_BYTES_MAX.min(free / SHARE) / samples.row_bytes().max(1);
        let rows = fit.min(most.unwrap_or(usize::MAX)).min(samples.len().next_multiple_of(stride));
        let whole = |of: usize| rows / of * of;
        let together = stride.saturating_mul(steps);
        if rows >= together { whole(together) } else { whole(stride).max(stride) }
    }

    /// Rows that a chunk has in an epoch of batches of `stride`: whole batches.
    pub(super) fn chunk(&self, stride: usize) -> usize {
        self.rows / stride * stride
    }

    /// What steps of a side read.
    pub(super) fn feed(&self, side: usize) -> Feed<'_> {
        let Side { inputs, targets, .. } = &self.sides[side];
        Feed {
            source: match inputs {
                StagedInputs::Pixels(staged) => Source::Pixels(staged.device().all()),
                StagedInputs::Floats(staged) => Source::Floats(staged.device().all()),
            },
            targets: match targets {
                StagedTargets::Labels(staged) => DeviceTargets::Labels(staged.device().all()),
                StagedTargets::Values(staged) => DeviceTargets::Values(staged.device().all()),
            },
        }
    }

    /// Puts samples on a side, no more of them than it has rows. What is computed from now on finds them there.
    pub(super) fn load(&mut self, gpu: &Gpu, side: usize, order: &[u32]) -> Result<(), Error> {
        let Self { copies, samples, sides, .. } = self;
        let side = &mut sides[side];
        side.gather(samples, order)?;
        if let Some(read) = side.read.take() {
            copies.after(&read)?;
        }
        match &mut side.inputs {
            StagedInputs::Pixels(staged) => staged.copy(copies)?,
            StagedInputs::Floats(staged) => staged.copy(copies)?,
        }
        match &mut side.targets {
            StagedTargets::Labels(staged) => staged.copy(copies)?,
            StagedTargets::Values(staged) => staged.copy(copies)?,
        }
        copies.before_computing(gpu)
    }

    /// All steps that read a side have been submitted.
    pub(super) fn submitted(&mut self, gpu: &Gpu, side: usize) -> Result<(), Error> {
        self.sides[side].read = Some(gpu.point()?);
        Ok(())
    }
}

impl Side {
    fn new(gpu: &Gpu, samples: &Samples<'_>, rows: usize) -> Result<Self, Error> {
        let len = |width: usize| rows.saturating_mul(width);
        let inputs = match samples.inputs() {
            Inputs::Pixels(_) => {
                StagedInputs::Pixels(Staged::new(gpu, "a chunk of the data set", len(samples.width()))?)
            }
            Inputs::Floats(_) => {
                StagedInputs::Floats(Staged::new(gpu, "a chunk of the data set", len(samples.width()))?)
            }
        };
        let targets = match samples.targets() {
            Targets::Labels(_) => StagedTargets::Labels(Staged::new(gpu, "labels of a chunk", rows)?),
            Targets::Values(values) => {
                let width = values.len() / samples.len();
                StagedTargets::Values(Staged::new(gpu, "targets of a chunk", len(width))?)
            }
        };
        Ok(Self { inputs, targets, read: None })
    }

    /// Rows of the samples, in this order, into the host's side.
    fn gather(&mut self, samples: &Samples<'_>, order: &[u32]) -> Result<(), Error> {
        match (&mut self.inputs, samples.inputs()) {
            (StagedInputs::Pixels(to), Inputs::Pixels(from)) => {
                gather(to.host()?, from, samples.width(), order)
            }
            (StagedInputs::Floats(to), Inputs::Floats(from)) => {
                gather(to.host()?, from, samples.width(), order)
            }
            _ => unreachable!("sides have the form of their samples"),
        }
        match (&mut self.targets, samples.targets()) {
            (StagedTargets::Labels(to), Targets::Labels(from)) => gather(to.host()?, from, 1, order),
            (StagedTargets::Values(to), Targets::Values(from)) => {
                gather(to.host()?, from, from.len() / samples.len(), order);
            }
            _ => unreachable!("sides have the form of their samples"),
        }
        Ok(())
    }
}

fn gather<T: Copy>(to: &mut [T], from: &[T], width: usize, order: &[u32]) {
    for (to, &row) in to.chunks_exact_mut(width).zip(order) {
        to.copy_from_slice(&from[row as usize * width..][..width]);
    }
}
