//! Copies between devices, of rectangles, and of what is not there.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::sys::{self, CUmemorytype, CUresult};
use cudarc::driver::{CudaContext, DevicePtrMut};

use crate::child::Program;
use crate::program::{code, device};

#[test]
fn one_device_copies_to_another() {
    let program = Program::new(|| {
        assert_eq!(CudaContext::device_count().unwrap(), 2);
        let first = CudaContext::new(0).unwrap().new_stream().unwrap();
        let second = CudaContext::new(1).unwrap().new_stream().unwrap();
        let x = first.clone_htod(&[1_u32, 2, 3]).unwrap();
        let y = second.clone_dtod(&x).unwrap();
        assert_eq!(second.clone_dtoh(&y).unwrap(), [1, 2, 3]);
        assert_eq!(code(CudaContext::new(2)), CUresult::CUDA_ERROR_INVALID_DEVICE);
    });
    program.run_clean(&[("KILN_SIM_DEVICES", "2")]);
}

/// Two rows of three bytes, to the second byte of rows of eight.
fn rectangle(from: &[u8], to: u64) -> sys::CUDA_MEMCPY2D {
    sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: from.as_ptr().cast(),
        srcDevice: 0,
        srcArray: null_mut(),
        srcPitch: 4,
        dstXInBytes: 1,
        dstY: 0,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: null_mut(),
        dstDevice: to,
        dstArray: null_mut(),
        dstPitch: 8,
        WidthInBytes: 3,
        Height: 2,
    }
}

#[test]
fn a_rectangle_is_copied_row_by_row() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut y = stream.alloc_zeros::<u8>(16).unwrap();
        let address = y.device_ptr_mut(&stream).0;
        let from = *b"abc.def.";
        let copy = rectangle(&from, address);
        // SAFETY: the description lives through the call, and what it describes is there.
        unsafe { sys::cuMemcpy2DAsync_v2(&copy, stream.cu_stream()) }.result().unwrap();
        assert_eq!(stream.clone_dtoh(&y).unwrap(), *b"\0abc\0\0\0\0\0def\0\0\0\0");
    });
    program.run_clean(&[]);
}

#[test]
fn a_rectangle_as_large_as_the_numbers_go_is_refused() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut y = stream.alloc_zeros::<u8>(16).unwrap();
        let address = y.device_ptr_mut(&stream).0;
        let from = *b"abc.def.";
        let most = usize::MAX;
        for (width, height, pitch) in [(9, 2, 8), (1, most, most), (most, most, 8), (most, 2, most)] {
            let mut copy = rectangle(&from, address);
            (copy.WidthInBytes, copy.Height, copy.dstPitch) = (width, height, pitch);
            // SAFETY: the description lives through the call; its rows do not fit into their pitch.
            let refused = unsafe { sys::cuMemcpy2DAsync_v2(&copy, stream.cu_stream()) };
            assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_VALUE, "{width} {height} {pitch}");
        }
    });
    program.run_clean(&[]);
}

#[test]
fn a_copy_of_more_than_there_is_takes_no_buffer_of_that_size() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut y = stream.alloc_zeros::<u8>(16).unwrap();
        let address = y.device_ptr_mut(&stream).0;
        let mut to = 0_u8;
        let to: *mut c_void = (&raw mut to).cast();
        // SAFETY: nothing is copied, for there is no such memory.
        let refused = unsafe { sys::cuMemcpyDtoHAsync_v2(to, address, usize::MAX, stream.cu_stream()) };
        assert_eq!(refused, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    let finding = program.run_to_finding("out-of-bounds");
    assert!(finding["message"].as_str().unwrap().starts_with(&usize::MAX.to_string()), "{finding}");
}

/// Fills pinned memory again after a copy from it has been submitted.
fn refill(waits: bool) {
    let (context, stream) = device();
    // SAFETY: cudarc's events of pinned memory are to order nothing here; there is one stream.
    unsafe { context.disable_event_tracking() };
    let mut y = stream.alloc_zeros::<u32>(4).unwrap();
    // SAFETY: the memory is written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<u32>(4) }.unwrap();
    pinned.as_mut_slice().unwrap().fill(5);
    stream.memcpy_htod(&pinned, &mut y).unwrap();
    if waits {
        stream.record_event(None).unwrap().synchronize().unwrap();
    }
    pinned.as_mut_slice().unwrap().fill(6);
    assert_eq!(stream.synchronize().is_ok(), waits);
}

/// Pinned memory belongs to a copy until the program has waited for it.
#[test]
fn pinned_memory_changed_under_a_copy_is_found() {
    let finding = Program::new(|| refill(false)).run_to_finding("race");
    assert!(finding["message"].as_str().unwrap().contains("changed host memory"), "{finding}");
    assert_eq!(finding["location"]["space"], "host");
}

#[test]
fn pinned_memory_changed_after_a_wait_is_clean() {
    Program::new(|| refill(true)).run_clean(&[]);
}

/// What the device writes into the same memory later, in order, is no fault of the program.
#[test]
fn pinned_memory_that_the_device_writes_in_its_turn_is_clean() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let mut y = stream.alloc_zeros::<u32>(4).unwrap();
        // SAFETY: the memory is written before it is read.
        let mut pinned = unsafe { context.alloc_pinned::<u32>(4) }.unwrap();
        pinned.as_mut_slice().unwrap().fill(5);
        stream.memcpy_htod(&pinned, &mut y).unwrap();
        stream.memset_zeros(&mut y).unwrap();
        stream.memcpy_dtoh(&y, &mut pinned).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(pinned.as_slice().unwrap(), [0; 4]);
    });
    program.run_clean(&[]);
}
