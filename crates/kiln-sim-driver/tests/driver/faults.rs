//! `KILN_SIM_FAULT`: faults on order. None of them is a finding.

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, PushKernelArg};

use crate::child::Program;
use crate::program::{code, device, grid, kernel};

#[test]
fn the_nth_allocation_fails_and_the_next_does_not() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let first = stream.alloc_zeros::<u32>(1).unwrap();
        assert_eq!(code(stream.alloc_zeros::<u32>(1)), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let third = stream.alloc_zeros::<u32>(1).unwrap();
        drop((first, third));
    });
    program.run_clean(&[("KILN_SIM_FAULT", "oom@2")]);
}

#[test]
fn more_than_so_many_bytes_fail() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let half = stream.alloc_zeros::<u8>(512).unwrap();
        let other = stream.alloc_zeros::<u8>(512).unwrap();
        assert_eq!(code(stream.alloc_zeros::<u8>(1)), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        drop(other);
        drop((half, stream.alloc_zeros::<u8>(512).unwrap()));
    });
    program.run_clean(&[("KILN_SIM_FAULT", "oom>1k")]);
}

#[test]
fn the_nth_launch_breaks_its_context() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let count_to = kernel(&context, "count_to");
        let mut y = stream.alloc_zeros::<u32>(1).unwrap();
        let mut launch = || {
            // SAFETY: the kernel writes y[0].
            unsafe { stream.launch_builder(&count_to).arg(&mut y).arg(&3_u32).launch(grid(1, 1)) }.unwrap();
            code(stream.synchronize())
        };
        assert_eq!(launch(), CUresult::CUDA_SUCCESS);
        assert_eq!(launch(), CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert_eq!(code(stream.alloc_zeros::<u32>(1)), CUresult::CUDA_ERROR_LAUNCH_FAILED);
    });
    program.run_clean(&[("KILN_SIM_FAULT", "launch@2")]);
}

#[test]
fn a_lost_device_is_lost_to_all_contexts_and_the_other_is_not() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut y = stream.alloc_zeros::<u32>(1).unwrap(); // operation 1
        stream.synchronize().unwrap();
        stream.memset_zeros(&mut y).unwrap(); // operation 2
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE);
        assert_eq!(code(CudaContext::new_non_primary(0, 0)), CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE);
        let other = CudaContext::new(1).unwrap().new_stream().unwrap();
        let z = other.clone_htod(&[5_u32]).unwrap();
        assert_eq!(other.clone_dtoh(&z).unwrap(), [5]);
    });
    program.run_clean(&[("KILN_SIM_FAULT", "lost@2"), ("KILN_SIM_DEVICES", "2")]);
}
