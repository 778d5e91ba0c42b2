//! One stream doubles numbers, another reads them back. Without the event between them that is a race, on a GPU one that
//! shows now and then; the simulator finds it every time.
//!
//!     scripts/sim cargo run -p kiln-sim-driver --example two_streams
//!     scripts/sim cargo run -p kiln-sim-driver --example two_streams -- --event

#![allow(unsafe_code)] // a launch, and streams that are ordered by hand

use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

/// x[thread] *= 2
const PTX: &str = "
.version 8.4
.target sm_80
.address_size 64
.visible .entry double_it(.param .u64 x)
{
    .reg .b32 %r;
    .reg .f32 %f;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd0, [x];
    mov.u32 %r, %tid.x;
    mul.wide.u32 %rd1, %r, 4;
    add.u64 %rd2, %rd0, %rd1;
    ld.global.f32 %f, [%rd2];
    add.f32 %f, %f, %f;
    st.global.f32 [%rd2], %f;
    ret;
}";

fn main() -> Result<(), DriverError> {
    let with_event = std::env::args().any(|argument| argument == "--event");
    let context = CudaContext::new(0)?;
    println!("Device: {}", context.name()?);
    // SAFETY: from here on the program orders its streams itself, or so it should.
    unsafe { context.disable_event_tracking() };
    let (compute, copy) = (context.new_stream()?, context.new_stream()?);

    let double_it = context.load_module(Ptx::from_src(PTX))?.load_function("double_it")?;
    let mut x = compute.clone_htod(&[1_f32, 2.0, 3.0, 4.0])?;
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (4, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the kernel reads and writes one float a thread.
    unsafe { compute.launch_builder(&double_it).arg(&mut x).launch(config) }?;
    if with_event {
        copy.wait(&compute.record_event(None)?)?;
    }
    println!("{:?}", copy.clone_dtoh(&x)?);
    Ok(())
}
