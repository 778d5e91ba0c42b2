//! Buffers in device memory, and regions of them that kernels are given.

#![allow(unsafe_code)] // a copy that cudarc would order behind the computation

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{CUdeviceptr, CUresult};
use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtr, DeviceRepr, DriverError, HostSlice, PinnedHostSlice,
    ValidAsZeroBits, result,
};

use super::{Gpu, fault};
use crate::Error;

/// The error where a device has too little memory for so many bytes.
pub(super) fn no_room(context: &CudaContext, what: &'static str, bytes: u128) -> Error {
    let (free, total) = context.mem_get_info().unwrap_or((0, 0));
    Error::DeviceMemory { what, bytes, free, total }
}

/// A buffer of zeros at first, on one device.
pub(crate) struct Buffer<T> {
    slice: CudaSlice<T>,
    address: CUdeviceptr,
    what: &'static str,
}

impl<T: DeviceRepr + ValidAsZeroBits> Buffer<T> {
    /// A buffer for `what`.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] says what was asked for, what was free, and what would need less.
    pub(crate) fn new(gpu: &Gpu, what: &'static str, len: usize) -> Result<Self, Error> {
        let bytes = (len as u128) * size_of::<T>() as u128;
        let refused = || no_room(gpu.stream.context(), what, bytes);
        if bytes > isize::MAX as u128 {
            return Err(refused());
        }
        let full = |error: &DriverError| error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        // An empty buffer has no address: one value stands in.
        let allocate = || gpu.stream.alloc_zeros(len.max(1));
        let slice = match allocate() {
            // What has been freed goes back to the device when the stream has come so far.
            Err(error) if full(&error) => gpu.stream.synchronize().and_then(|()| allocate()),
            slice => slice,
        };
        let slice = slice.map_err(|error| match full(&error) {
            true => refused(),
            false => fault(&format!("allocating {what}"), error),
        })?;
        let address = slice.device_ptr(&gpu.stream).0;
        Ok(Self { slice, address, what })
    }

    /// A buffer with a copy of `values`.
    pub(crate) fn with(gpu: &Gpu, what: &'static str, values: &[T]) -> Result<Self, Error> {
        let mut buffer = Self::new(gpu, what, values.len())?;
        buffer.upload(gpu, values)?;
        Ok(buffer)
    }

    /// Copies `values` to the start, and waits for that: where host and device share memory, CUDA need not have read them yet.
    pub(crate) fn upload(&mut self, gpu: &Gpu, values: &[T]) -> Result<(), Error> {
        assert!(values.len() <= self.len(), "{}: more values than the buffer holds", self.what);
        if values.is_empty() {
            return Ok(());
        }
        gpu.stream
            .memcpy_htod(values, &mut self.slice)
            .and_then(|()| gpu.stream.synchronize())
            .map_err(|error| self.failed("copying to", error))
    }

    /// Copies all of pinned host memory to the start, in the order of another stream.
    pub(super) fn upload_on(
        &mut self,
        stream: &Arc<CudaStream>,
        values: &PinnedHostSlice<T>,
    ) -> Result<(), Error> {
        assert!(values.len() <= self.len(), "{}: more values than the buffer holds", self.what);
        stream.memcpy_htod(values, &mut self.slice).map_err(|error| self.failed("copying to", error))
    }

    /// Copies the start of another buffer's part to the start, on the device.
    pub(crate) fn copy_from(&mut self, gpu: &Gpu, from: &Self, part: Range<usize>) -> Result<(), Error> {
        assert!(part.len() <= self.len() && part.end <= from.len(), "{}: part {part:?}", self.what);
        let mut to = self.slice.slice_mut(..part.len());
        let copied = gpu.stream.memcpy_dtod(&from.slice.slice(part), &mut to);
        copied.map_err(|error| self.failed("copying to", error))
    }

    /// Writes one value to the start while the stream that it belongs to goes on computing.
    pub(crate) fn overtake(&self, beside: &Gpu, value: T) -> Result<(), Error> {
        let (stream, values) = (&beside.stream, [value]);
        // SAFETY: the address is that of at least one value; the copy is waited for while `values` lives. Kernels read this
        // value as volatile.
        unsafe { result::memcpy_htod_async(self.address, &values, stream.cu_stream()) }
            .and_then(|()| stream.synchronize())
            .map_err(|error| self.failed("copying to", error))
    }

    /// Fills it with zeros.
    pub(crate) fn clear(&mut self, gpu: &Gpu) -> Result<(), Error> {
        gpu.stream.memset_zeros(&mut self.slice).map_err(|error| self.failed("clearing", error))
    }

    /// Copies the start of it into `values`, and waits for that and for all before it.
    pub(crate) fn download(&self, gpu: &Gpu, values: &mut [T]) -> Result<(), Error>
    where
        [T]: HostSlice<T>,
    {
        assert!(values.len() <= self.len(), "{}: fewer values than asked for", self.what);
        if values.is_empty() {
            return Ok(());
        }
        gpu.stream
            .memcpy_dtoh(&self.slice.slice(..values.len()), values)
            .and_then(|()| gpu.stream.synchronize())
            .map_err(|error| self.failed("copying from", error))
    }

    fn failed(&self, doing: &str, error: cudarc::driver::DriverError) -> Error {
        fault(&format!("{doing} {}", self.what), error)
    }

    /// Values.
    pub(crate) fn len(&self) -> usize {
        self.slice.len()
    }

    /// All of it.
    pub(crate) fn all(&self) -> Region<'_, T> {
        self.part(0..self.len())
    }

    /// A part of it.
    ///
    /// # Panics
    /// Where the range does not lie in it: that is an error of the engine.
    pub(crate) fn part(&self, range: Range<usize>) -> Region<'_, T> {
        assert!(range.start <= range.end && range.end <= self.len(), "{}: part {range:?}", self.what);
        let address = self.address + (range.start * size_of::<T>()) as u64;
        Region { address, len: range.len(), buffer: PhantomData }
    }
}

/// A part of a buffer, for kernels to read and write. The host never looks into it, so that a shared borrow is enough: what
/// happens to it is ordered by the stream.
pub(crate) struct Region<'b, T> {
    address: CUdeviceptr,
    len: usize,
    buffer: PhantomData<&'b [T]>,
}

impl<T> Clone for Region<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Region<'_, T> {}

impl<T> Region<'_, T> {
    /// Values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Without the first `count` values.
    ///
    /// # Panics
    /// Where it has fewer: that is an error of the engine.
    pub(crate) fn from(self, count: usize) -> Self {
        assert!(count <= self.len, "{count} of {} values left out", self.len);
        Self { address: self.address + (count * size_of::<T>()) as u64, len: self.len - count, ..self }
    }

    /// No buffer at all, for a parameter that a kernel does not look at.
    pub(super) const fn none() -> Self {
        Self { address: 0, len: 0, buffer: PhantomData }
    }

    /// The address, as a kernel's parameter.
    pub(super) fn address(&self) -> &CUdeviceptr {
        &self.address
    }
}
