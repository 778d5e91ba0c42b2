//! A GPU: its context, the stream that everything runs on, and its kernels.

#![allow(unsafe_code)] // cudarc's event tracking is turned off, and an event is asked for its error

use std::cell::Cell;
use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{
    CudaContext, CudaEvent, CudaStream, DriverError, profiler_start, profiler_stop, result,
};

use super::copies::Format;
use super::kernels::{Kernels, Team, all_resident_modules, copies_modules, modules, warpgroup_modules};
use super::modules::Module;
use super::probe;
use crate::nvtx::range;
use crate::{Choices, Error, Precision};

/// A GPU and its kernels.
pub(crate) struct Gpu {
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) kernels: Arc<Kernels>,
    /// Streaming multiprocessors: how many blocks keep the device busy.
    pub(crate) multiprocessors: u32,
    /// Most shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// Whether warpgroups can multiply (`wgmma`): sm_90 alone has that.
    pub(crate) warpgroups: bool,
    /// Whether float32 is multiplied faster in planes of bfloat16, by tensor cores.
    pub(crate) fast_planes: bool,
    /// How blocks that train a run can work together, in the order in which they are tried.
    pub(crate) teams: &'static [Team],
    /// Whether a kernel that runs for seconds is stopped.
    pub(crate) watchdog: bool,
    /// What it is, for a person: `NVIDIA H200, sm_90, driver 12.8`.
    pub(crate) name: String,
    /// Which kernels are taken.
    pub(crate) choices: Choices,
    /// Whether each kernel is waited for, so that an error names the kernel that it is of.
    pub(crate) waits: bool,
    /// Whether what is launched is not to reach the device: [`Gpu::rehearse`].
    pub(super) rehearses: Cell<bool>,
}

/// A kernel that every engine launches.
const FIRST: &str = "batch_sums";

impl Gpu {
    /// Opens device number `ordinal`, with the kernels of one precision. One of them is loaded, so that a driver that cannot compile
    /// any is found out here.
    ///
    /// # Errors
    /// What [`probe`] finds wrong, or [`Error::Gpu`] for what the driver refuses.
    pub(crate) fn open(ordinal: usize, precision: Precision) -> Result<Self, Error> {
        let gpu = Self::with_modules(ordinal, &modules(precision))?;
        gpu.kernels.load(FIRST)?;
        Ok(gpu)
    }

    /// Has the kernels of more modules.
    pub(crate) fn add(&mut self, modules: &[Module]) {
        Arc::make_mut(&mut self.kernels).add(modules);
    }

    /// Has those that multiply the operands of wide layers.
    pub(crate) fn add_for_wide_layers(&mut self, format: Format) {
        self.add(&copies_modules(format));
        if self.warpgroups {
            self.add(warpgroup_modules(format));
        }
    }

    /// Loads the kernels that `launches` launches, and launches none of them: neither the first epoch's time nor a capture, which may
    /// load nothing, is to have that in it. `launches` must do nothing else on the device.
    ///
    /// # Errors
    /// Those of `launches`.
    pub(crate) fn rehearse(&self, launches: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let _range = range(format_args!("rehearsal"));
        let _end = Rehearsal::begin(&self.rehearses);
        launches()
    }

    /// Opens a device, with the kernels of these modules.
    pub(super) fn with_modules(ordinal: usize, modules: &[Module]) -> Result<Self, Error> {
        let found = probe(ordinal)?;
        let failed = |error| fault("opening the device", error);
        let context = CudaContext::new(ordinal).map_err(failed)?;
        // SAFETY: cudarc's events order the use of a buffer on several streams. Here nearly all is computed on the one stream that
        // is made next, and freed on it; what is copied (`pinned`) or computed (`beside`) on another is ordered by events of its own.
        unsafe { context.disable_event_tracking() };
        // Not the default stream: work on that cannot be captured.
        let stream = context.new_stream().map_err(failed)?;
        let kernels = Arc::new(Kernels::new(&context, modules));
        Ok(Self {
            stream,
            kernels,
            multiprocessors: found.multiprocessors,
            shared_bytes: found.shared_bytes,
            warpgroups: found.warpgroups(),
            fast_planes: found.fast_planes(),
            teams: found.teams(),
            watchdog: found.watchdog,
            name: found.to_string(),
            choices: Choices::default(),
            waits: false,
            rehearses: Cell::new(false),
        })
    }

    /// The same device with a stream of its own, whose work goes on beside this one's, and goes first: blocks of this one that wait for
    /// room take none that a launch there needs. Who uses a buffer on both orders that by [`Gpu::after`].
    pub(crate) fn beside(&self) -> Result<Self, Error> {
        const FIRST: i32 = i32::MIN; // the driver takes the highest priority that it has
        let stream = self.stream.context().new_stream_with_priority(FIRST);
        let stream = stream.map_err(|error| fault("making a stream", error))?;
        let (kernels, name) = (self.kernels.clone(), self.name.clone());
        Ok(Self { stream, kernels, name, rehearses: Cell::new(false), ..*self })
    }

    /// This point of the work.
    pub(crate) fn point(&self) -> Result<CudaEvent, Error> {
        self.stream.record_event(None).map_err(|error| fault("recording an event", error))
    }

    /// Lets all that is submitted from now on wait for a point of another stream's work.
    pub(crate) fn after(&self, point: &CudaEvent) -> Result<(), Error> {
        self.stream.wait(point).map_err(|error| fault("ordering streams", error))
    }

    /// Starts the collection of a profiler that waits for it, if one is attached, when all that was submitted is done.
    pub(crate) fn start_profiler(&self) -> Result<(), Error> {
        self.settle().and_then(|()| profiler_start()).map_err(|error| fault("starting the profiler", error))
    }

    /// Stops the profiler's collection, when all that was submitted is done; also where that has failed.
    pub(crate) fn stop_profiler(&self) -> Result<(), Error> {
        let settled = self.settle();
        profiler_stop().and(settled).map_err(|error| fault("stopping the profiler", error))
    }

    /// Waits for every stream of the device: copies run on one of their own.
    fn settle(&self) -> Result<(), DriverError> {
        self.stream.context().synchronize()
    }
}

/// A rehearsal, until it is dropped, whatever ends it.
struct Rehearsal<'g>(&'g Cell<bool>);

impl<'g> Rehearsal<'g> {
    fn begin(rehearses: &'g Cell<bool>) -> Self {
        rehearses.set(true);
        Self(rehearses)
    }
}

impl Drop for Rehearsal<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// How many kernels a device has loaded, by what runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedKernels {
    /// The graph engine.
    pub graph: usize,
    /// The graph engine, for models with wide layers.
    pub wide_layers: usize,
    /// The resident engine, with and without timers.
    pub resident: usize,
}

/// Loads every kernel of one precision that a device can run. The first time a driver compiles them, which may take a minute.
///
/// # Errors
/// What [`probe`] finds wrong, [`Error::DeviceMemory`], [`Error::Threads`], or [`Error::Gpu`] for what the driver refuses, which names
/// the kernel.
pub fn load_kernels(ordinal: usize, precision: Precision) -> Result<LoadedKernels, Error> {
    let mut gpu = Gpu::open(ordinal, precision)?;
    let graph = gpu.kernels.load_all()?;
    gpu.add_for_wide_layers(Format::of(precision));
    let both = gpu.kernels.load_all()?;
    for &team in gpu.teams {
        all_resident_modules(team, precision).for_each(|modules| gpu.add(&modules));
    }
    Ok(LoadedKernels { graph, wide_layers: both - graph, resident: gpu.kernels.load_all()? - both })
}

/// Whether an event has come to pass; an error where the device has failed, which cudarc's own query takes for not yet.
pub(crate) fn passed(event: &CudaEvent) -> Result<bool, DriverError> {
    // SAFETY: the event lives.
    match unsafe { result::event::query(event.cu_event()) } {
        Ok(()) => Ok(true),
        Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The driver's own words.
pub(super) fn text(error: DriverError) -> String {
    let say = |part: Result<&std::ffi::CStr, DriverError>| {
        part.map_or_else(|_| format!("{:?}", error.0), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", say(error.error_string()), say(error.error_name()))
}

/// What the driver refused, and during what.
pub(crate) fn fault(what: &str, error: DriverError) -> Error {
    Error::Gpu { what: what.to_owned(), reason: text(error) }
}
