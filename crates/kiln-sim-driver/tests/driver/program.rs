//! What the programs of these tests have in common.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, LaunchConfig};
use cudarc::nvrtc::Ptx;

pub(crate) const KERNELS: &str = include_str!("kernels.ptx");

/// The first device, and a stream of its own.
pub(crate) fn device() -> (Arc<CudaContext>, Arc<CudaStream>) {
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    (context, stream)
}

/// A kernel of `kernels.ptx`.
pub(crate) fn kernel(context: &Arc<CudaContext>, name: &str) -> CudaFunction {
    context.load_module(Ptx::from_src(KERNELS)).unwrap().load_function(name).unwrap()
}

/// So many blocks of so many threads.
pub(crate) fn grid(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

/// The line of `kernels.ptx` that is marked with a kind of finding.
pub(crate) fn marked(kind: &str) -> u64 {
    let mark = format!("//~ {kind}");
    1 + KERNELS.lines().position(|line| line.ends_with(&mark)).expect("a marked line") as u64
}

/// The code of an error.
pub(crate) fn code<T>(result: Result<T, DriverError>) -> CUresult {
    match result {
        Ok(_) => CUresult::CUDA_SUCCESS,
        Err(DriverError(code)) => code,
    }
}

/// The value of an attribute of the first device.
pub(crate) fn attribute(context: &CudaContext, attribute: sys::CUdevice_attribute) -> i32 {
    context.attribute(attribute).unwrap()
}
