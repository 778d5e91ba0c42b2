//! The device: its stream, the small kernels of `cublaslt.cu`, and memory.

#![allow(unsafe_code)] // launches

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig,
    PushKernelArg, ValidAsZeroBits,
};
use cudarc::nvrtc::Ptx;

const PTX: &str = include_str!("../ptx/cublaslt.ptx");
const KERNELS: [&str; 6] = ["gather", "loss", "relu_backward", "column_sums", "update", "count_hits"];

/// A kernel's argument.
#[derive(Clone, Copy)]
pub(crate) enum Argument {
    /// An address on the device, or 0 for one that the kernel does not use.
    Address(u64),
    Count(u32),
    Number(f32),
}

pub(crate) struct Device {
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) name: String,
    kernels: HashMap<&'static str, CudaFunction>,
}

impl Device {
    /// Opens device 0 and loads the kernels for operands of the type that PTX names with `suffix`.
    pub(crate) fn open(suffix: &str) -> Result<Self> {
        // SAFETY: the library that is loaded is the driver, whose initialisation is sound.
        let driver = unsafe { cudarc::driver::sys::is_culib_present() };
        ensure!(driver, "no CUDA driver: libcuda.so was not found; install NVIDIA's driver");
        let context = CudaContext::new(0).context("opening the GPU")?;
        // SAFETY: cudarc's events order the use of a buffer on several streams; here there is one stream.
        unsafe { context.disable_event_tracking() };
        // Not the default stream: work on that cannot be captured.
        let stream = context.new_stream()?;
        let module = context.load_module(Ptx::from_src(PTX)).context("loading cublaslt.ptx")?;
        let load = |&name: &&'static str| {
            let full = if name == "count_hits" { name.to_owned() } else { format!("{name}_{suffix}") };
            Ok((name, module.load_function(&full)?))
        };
        let kernels = KERNELS.iter().map(load).collect::<Result<_>>()?;
        Ok(Self { name: context.name()?, stream, kernels })
    }

    /// Memory for `len` values, zero.
    pub(crate) fn zeros<T: DeviceRepr + ValidAsZeroBits>(&self, len: usize) -> Result<CudaSlice<T>> {
        self.stream.alloc_zeros(len).with_context(|| format!("{len} values on the device"))
    }

    /// Where memory lies.
    pub(crate) fn address<T>(&self, memory: &CudaSlice<T>) -> u64 {
        memory.device_ptr(&self.stream).0
    }

    /// Launches a kernel.
    pub(crate) fn launch(
        &self,
        name: &str,
        blocks: u32,
        threads: (u32, u32),
        arguments: &[Argument],
    ) -> Result<()> {
        let mut launch = self.stream.launch_builder(&self.kernels[name]);
        for argument in arguments {
            match argument {
                Argument::Address(address) => launch.arg(address),
                Argument::Count(count) => launch.arg(count),
                Argument::Number(number) => launch.arg(number),
            };
        }
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (threads.0, threads.1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: `Net` gives the arguments that `cublaslt.cu` declares, with addresses of memory that it keeps and that is as
        // long as the kernel's contract says for the sizes that go with it.
        unsafe { launch.launch(config) }.with_context(|| format!("launching {name}"))?;
        Ok(())
    }

    /// Milliseconds that the device works on what `submit` gives it.
    pub(crate) fn timed(&self, submit: impl FnOnce() -> Result<()>) -> Result<f32> {
        let now = || self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        let start = now()?;
        submit()?;
        Ok(start.elapsed_ms(&now()?)?)
    }

    /// Captures what `submit` gives the device.
    pub(crate) fn capture(&self, submit: impl FnOnce() -> Result<()>) -> Result<CudaGraph> {
        self.stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let submitted = submit();
        // Ended whatever came of it: a stream that is left in a capture refuses all further work.
        let graph = self.stream.end_capture(Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        submitted?;
        graph.context("capturing steps")?.context("the graph is empty")
    }
}
