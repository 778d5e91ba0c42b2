//! Where the samples of a job are, and what kernels read of them.

use super::Placement;
use super::streamed::Streamed;
use crate::gpu::{Buffer, Gpu, Region, Source, Wanted};
use crate::{Error, Inputs, Loss, Samples, Targets};

/// What kernels read: samples on the device, in the form that they have on the host.
#[derive(Clone, Copy)]
pub(super) struct Feed<'b> {
    /// What the first layer reads.
    pub(super) source: Source<'b>,
    pub(super) targets: DeviceTargets<'b>,
}

/// Targets on the device.
#[derive(Clone, Copy)]
pub(super) enum DeviceTargets<'b> {
    Labels(Region<'b, u8>),
    Values(Region<'b, f32>),
}

impl<'b> Feed<'b> {
    /// What a loss takes the outputs against.
    pub(super) fn wanted(&self, loss: Loss) -> Wanted<'b> {
        match (self.targets, loss) {
            (DeviceTargets::Labels(labels), Loss::CrossEntropy) => Wanted::CrossEntropy(labels),
            (DeviceTargets::Labels(labels), Loss::MeanSquaredError) => Wanted::OneHot(labels),
            (DeviceTargets::Values(values), _) => Wanted::Values(values),
        }
    }
}

/// The training samples.
pub(super) enum Data<'d> {
    /// All on the device.
    Resident(Resident),
    /// On the host, and chunk by chunk on the device once it is known how large a batch is.
    Streamed(Samples<'d>, Option<Box<Streamed<'d>>>),
}

impl<'d> Data<'d> {
    pub(super) fn new(gpu: &Gpu, samples: Samples<'d>, placement: Placement) -> Result<Self, Error> {
        let bytes = samples.len() as u128 * samples.row_bytes() as u128;
        let free = gpu.stream.context().mem_get_info().map_or(0, |(free, _)| free);
        let streamed = match placement {
            Placement::Auto => bytes > free as u128 / 4 * 3, // the rest is for activations
            Placement::Resident => false,
            Placement::Streamed => true,
        };
        Ok(if streamed {
            Data::Streamed(samples, None)
        } else {
            Data::Resident(Resident::new(gpu, &samples)?)
        })
    }

    /// Makes room for batches of `stride` rows; whether anything has moved. `steps` are captured together; a chunk has `most` rows.
    pub(super) fn reserve(
        &mut self,
        gpu: &Gpu,
        stride: usize,
        steps: usize,
        most: Option<usize>,
    ) -> Result<bool, Error> {
        let Data::Streamed(samples, streamed) = self else { return Ok(false) };
        if streamed.as_ref().is_some_and(|streamed| streamed.chunk(stride) > 0) {
            return Ok(false);
        }
        *streamed = None; // its memory is free before more is asked for
        let rows = Streamed::rows_for(gpu, samples, stride, steps, most);
        *streamed = Some(Box::new(Streamed::new(gpu, *samples, rows)?));
        Ok(true)
    }

    /// What steps read that were submitted for a side; there is one alone where all samples are on the device.
    pub(super) fn feed(&self, side: usize) -> Feed<'_> {
        match self {
            Data::Resident(resident) => resident.feed(),
            Data::Streamed(_, Some(streamed)) => streamed.feed(side),
            Data::Streamed(_, None) => unreachable!("room is made before steps are submitted"),
        }
    }

    /// For a person.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Data::Resident(_) => "data on the device",
            Data::Streamed(..) => "data streamed from the host",
        }
    }
}

/// What the memory of samples is for, where all are on the device.
const OF_INPUTS: &str = "the data set";
const OF_LABELS: &str = "labels";
const OF_VALUES: &str = "targets";

/// Whether memory for this is for samples, which could be streamed.
pub(crate) fn is_of_samples(what: &str) -> bool {
    [OF_INPUTS, OF_LABELS, OF_VALUES].contains(&what)
}

/// Samples that lie on the device.
pub(super) struct Resident {
    inputs: ResidentInputs,
    targets: ResidentTargets,
}

enum ResidentInputs {
    Pixels(Buffer<u8>),
    Floats(Buffer<f32>),
}

enum ResidentTargets {
    Labels(Buffer<u8>),
    Values(Buffer<f32>),
}

impl Resident {
    /// Copies samples to the device.
    pub(super) fn new(gpu: &Gpu, samples: &Samples<'_>) -> Result<Self, Error> {
        let inputs = match samples.inputs() {
            Inputs::Pixels(pixels) => ResidentInputs::Pixels(Buffer::with(gpu, OF_INPUTS, pixels)?),
            Inputs::Floats(floats) => ResidentInputs::Floats(Buffer::with(gpu, OF_INPUTS, floats)?),
        };
        let targets = match samples.targets() {
            Targets::Labels(labels) => ResidentTargets::Labels(Buffer::with(gpu, OF_LABELS, labels)?),
            Targets::Values(values) => ResidentTargets::Values(Buffer::with(gpu, OF_VALUES, values)?),
        };
        Ok(Self { inputs, targets })
    }

    /// Puts other samples in the place of those that are there; false where they have another form or are more.
    pub(super) fn load(&mut self, gpu: &Gpu, samples: &Samples<'_>) -> Result<bool, Error> {
        fn replace<T: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits>(
            gpu: &Gpu,
            buffer: &mut Buffer<T>,
            values: &[T],
        ) -> Result<bool, Error> {
            if values.len() > buffer.len() {
                return Ok(false);
            }
            buffer.upload(gpu, values).map(|()| true)
        }
        let inputs = match (&mut self.inputs, samples.inputs()) {
            (ResidentInputs::Pixels(buffer), Inputs::Pixels(pixels)) => replace(gpu, buffer, pixels)?,
            (ResidentInputs::Floats(buffer), Inputs::Floats(floats)) => replace(gpu, buffer, floats)?,
            _ => false,
        };
        let targets = match (&mut self.targets, samples.targets()) {
            (ResidentTargets::Labels(buffer), Targets::Labels(labels)) => replace(gpu, buffer, labels)?,
            (ResidentTargets::Values(buffer), Targets::Values(values)) => replace(gpu, buffer, values)?,
            _ => false,
        };
        Ok(inputs && targets)
    }

    pub(super) fn feed(&self) -> Feed<'_> {
        Feed {
            source: match &self.inputs {
                ResidentInputs::Pixels(pixels) => Source::Pixels(pixels.all()),
                ResidentInputs::Floats(floats) => Source::Floats(floats.all()),
            },
            targets: match &self.targets {
                ResidentTargets::Labels(labels) => DeviceTargets::Labels(labels.all()),
                ResidentTargets::Values(values) => DeviceTargets::Values(values.all()),
            },
        }
    }
}
