//! A GPU: its context, the stream that everything runs on, and its kernels.

#![allow(unsafe_code)] // calls of the driver that cudarc has no safe form of

use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUresult};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use super::kernels::{Kernels, Module, modules};
use crate::{Error, Precision};

/// The driver that the embedded PTX needs: its ISA is 8.4, CUDA 12.4's.
const DRIVER_NEEDED: i32 = 12_040;
/// Compute capability that the embedded PTX needs.
const CAPABILITY_NEEDED: (i32, i32) = (8, 0);

/// A GPU with its kernels loaded.
pub(crate) struct Gpu {
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) kernels: Kernels,
    /// Streaming multiprocessors: how many blocks keep the device busy.
    pub(crate) multiprocessors: u32,
    /// What it is, for a person: `NVIDIA H200, sm_90, driver 12.8`.
    pub(crate) name: String,
}

impl Gpu {
    /// Opens device number `ordinal` and loads the kernels of one precision.
    ///
    /// # Errors
    /// [`Error::NoGpu`], [`Error::DriverTooOld`], [`Error::Capability`], or [`Error::Gpu`] for what the driver refuses.
    pub(crate) fn open(ordinal: usize, precision: Precision) -> Result<Self, Error> {
        Self::with_modules(ordinal, &modules(precision))
    }

    /// Opens a device and loads these modules.
    pub(super) fn with_modules(ordinal: usize, modules: &[Module]) -> Result<Self, Error> {
        let found = probe(ordinal)?;
        let failed = |error| fault("opening the device", error);
        let context = CudaContext::new(ordinal).map_err(failed)?;
        // SAFETY: cudarc's events order the use of a buffer on several streams; every buffer here is used on the one stream
        // that is made next, and is freed on it.
        unsafe { context.disable_event_tracking() };
        // Not the default stream: work on that cannot be captured.
        let stream = context.new_stream().map_err(failed)?;
        let kernels = Kernels::load(&context, modules)?;
        Ok(Self { stream, kernels, multiprocessors: found.multiprocessors, name: found.to_string() })
    }

    /// Waits until everything that was submitted is done.
    pub(crate) fn synchronize(&self, what: &str) -> Result<(), Error> {
        self.stream.synchronize().map_err(|error| fault(what, error))
    }
}

/// What is known of a device before it is opened.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuInfo {
    /// The device's own name.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// CUDA version that the driver supports, as 1000 major + 10 minor.
    pub driver: i32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
}

impl std::fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.capability;
        write!(f, "{}, sm_{major}{minor}, driver {}", self.name, version(self.driver))
    }
}

/// Looks for a driver and for device number `ordinal`, and whether they can run Kiln's kernels.
///
/// # Errors
/// [`Error::NoGpu`], [`Error::DriverTooOld`] or [`Error::Capability`].
pub fn probe(ordinal: usize) -> Result<GpuInfo, Error> {
    // SAFETY: loading libcuda runs its initialisers, which is what any CUDA program does.
    if !unsafe { sys::is_culib_present() } {
        return Err(no_gpu(
            "no CUDA driver: libcuda.so was not found; install NVIDIA's driver, or use the host engine",
        ));
    }
    result::init().map_err(|error| match error.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => no_gpu("the CUDA driver finds no device"),
        _ => no_gpu(&format!("the CUDA driver does not start: {}", text(error))),
    })?;
    let unknown = |error| fault("asking for the device's properties", error);
    let count = result::device::get_count().map_err(unknown)?;
    if i32::try_from(ordinal).map_or(true, |ordinal| ordinal >= count) {
        return Err(no_gpu(&format!("device {ordinal} asked for, expected a number below {count}")));
    }
    let device = result::device::get(ordinal as i32).map_err(unknown)?;
    let attribute = |attribute: Attribute| {
        // SAFETY: `device` comes from `get`, above.
        unsafe { result::device::get_attribute(device, attribute) }.map_err(unknown)
    };
    let info = GpuInfo {
        name: result::device::get_name(device).map_err(unknown)?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        driver: driver_version().map_err(unknown)?,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as u32,
    };
    if info.driver < DRIVER_NEEDED {
        let (found, needed) = (version(info.driver), version(DRIVER_NEEDED));
        return Err(Error::DriverTooOld { found, needed });
    }
    if info.capability < CAPABILITY_NEEDED {
        return Err(Error::Capability {
            device: info.name,
            found: info.capability,
            needed: CAPABILITY_NEEDED,
        });
    }
    Ok(info)
}

fn driver_version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the call writes one integer, to a place that lives.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

/// 12040 as `12.4`.
fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

fn no_gpu(reason: &str) -> Error {
    Error::NoGpu { reason: reason.to_owned() }
}

fn text(error: DriverError) -> String {
    let say = |part: Result<&std::ffi::CStr, DriverError>| {
        part.map_or_else(|_| format!("{:?}", error.0), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", say(error.error_string()), say(error.error_name()))
}

/// What the driver refused, and during what.
pub(crate) fn fault(what: &str, error: DriverError) -> Error {
    Error::Gpu { what: what.to_owned(), reason: text(error) }
}
