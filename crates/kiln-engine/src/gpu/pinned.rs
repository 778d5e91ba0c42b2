//! Host memory that the device copies from while both go on, and the copies.

#![allow(unsafe_code)] // pinned memory comes uninitialised

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, DeviceRepr, PinnedHostSlice, ValidAsZeroBits};

use super::{Buffer, Gpu, fault};
use crate::Error;

/// Pinned host memory and a buffer of the same size on the device.
///
/// cudarc's own event of a pinned slice is recorded only where it tracks events, which it does not here.
pub(crate) struct Staged<T> {
    host: PinnedHostSlice<T>,
    device: Buffer<T>,
    /// After the last copy from the host's side.
    copied: Option<CudaEvent>,
}

impl<T: DeviceRepr + ValidAsZeroBits + Default + Clone> Staged<T> {
    /// Room for `len` values of `what`, at least one.
    pub(crate) fn new(gpu: &Gpu, what: &'static str, len: usize) -> Result<Self, Error> {
        let device = Buffer::new(gpu, what, len)?;
        // SAFETY: every value is written before anything reads it, on the next lines.
        let host = unsafe { gpu.stream.context().alloc_pinned(device.len()) };
        let failed = |error| fault(&format!("allocating pinned host memory for {what}"), error);
        let mut host: PinnedHostSlice<T> = host.map_err(failed)?;
        host.as_mut_slice().map_err(failed)?.fill(T::default());
        Ok(Self { host, device, copied: None })
    }

    /// The host's side, once the last copy from it is done.
    pub(crate) fn host(&mut self) -> Result<&mut [T], Error> {
        let failed = |error| fault("waiting for a copy", error);
        if let Some(copied) = self.copied.take() {
            copied.synchronize().map_err(failed)?;
        }
        self.host.as_mut_slice().map_err(failed)
    }

    /// The device's side.
    pub(crate) fn device(&self) -> &Buffer<T> {
        &self.device
    }

    /// Copies all of the host's side to the device's.
    pub(crate) fn copy(&mut self, copies: &Copies) -> Result<(), Error> {
        self.device.upload_on(&copies.0, &self.host)?;
        self.copied = Some(record(&copies.0)?);
        Ok(())
    }
}

/// The stream that copies run on, beside the one that computes.
pub(crate) struct Copies(Arc<CudaStream>);

impl Copies {
    pub(crate) fn new(gpu: &Gpu) -> Result<Self, Error> {
        let stream = gpu.stream.context().new_stream();
        let copies = Self(stream.map_err(|error| fault("making a stream for copies", error))?);
        Ok(copies)
    }

    /// Lets the copies that follow wait for this point of the computation.
    pub(crate) fn after(&self, point: &CudaEvent) -> Result<(), Error> {
        self.0.wait(point).map_err(|error| fault("ordering copies", error))
    }

    /// Lets what is computed from now on wait for the copies so far.
    pub(crate) fn before_computing(&self, gpu: &Gpu) -> Result<(), Error> {
        gpu.after(&record(&self.0)?)
    }
}

impl Drop for Copies {
    /// Buffers are given back in the order of the stream that computes: no copy may still be on its way to one.
    fn drop(&mut self) {
        let context = self.0.context().clone();
        context.record_err(self.0.synchronize());
    }
}

fn record(stream: &CudaStream) -> Result<CudaEvent, Error> {
    stream.record_event(None).map_err(|error| fault("recording an event", error))
}
