//! What orders two operations, and that nothing else does.

use std::ffi::c_void;
use std::sync::{Arc, mpsc};

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut};

use crate::child::Program;
use crate::program::{code, device};

/// Fills memory on one stream and reads it back on another, with `order` called between.
fn fill_and_read(order: fn(&CudaStream, &CudaStream)) -> CUresult {
    let (context, first) = device();
    // SAFETY: the events that cudarc would record by itself are what this test is about.
    unsafe { context.disable_event_tracking() };
    let second = context.new_stream().unwrap();
    let mut y = first.alloc_zeros::<u32>(64).unwrap();
    first.synchronize().unwrap();
    first.memset_zeros(&mut y).unwrap();
    order(&first, &second);
    let read = code(second.clone_dtoh(&y));
    first.synchronize().ok();
    read
}

#[test]
fn streams_without_order_race() {
    let program = Program::new(|| assert_eq!(fill_and_read(|_, _| {}), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
    let finding = program.run_to_finding("race");
    assert_eq!(finding["place"]["kernel"], "copy from the device on stream 2");
    assert_eq!(finding["other"]["kernel"], "fill on stream 1");
    assert!(finding["location"]["what"].as_str().unwrap().contains("(256 bytes), offset 0"), "{finding}");
}

#[test]
fn an_event_that_was_recorded_too_early_does_not_order() {
    let program = Program::new(|| {
        let early = fill_and_read(|first, second| first.wait(&second.record_event(None).unwrap()).unwrap());
        assert_eq!(early, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    program.run_to_finding("race");
}

#[test]
fn an_event_or_the_host_orders() {
    let program = Program::new(|| {
        let event = |first: &CudaStream, second: &CudaStream| {
            second.wait(&first.record_event(None).unwrap()).unwrap();
        };
        assert_eq!(fill_and_read(event), CUresult::CUDA_SUCCESS);
        assert_eq!(fill_and_read(|first, _| first.synchronize().unwrap()), CUresult::CUDA_SUCCESS);
        let host = |first: &CudaStream, _: &CudaStream| {
            first.record_event(None).unwrap().synchronize().unwrap();
        };
        assert_eq!(fill_and_read(host), CUresult::CUDA_SUCCESS);
        let all = |first: &CudaStream, _: &CudaStream| first.context().synchronize().unwrap();
        assert_eq!(fill_and_read(all), CUresult::CUDA_SUCCESS);
    });
    program.run_clean(&[]);
}

/// Copies to the device on one stream, and has another use the memory without an event between them.
fn copy_and(use_it: fn(&CudaStream, u64) -> CUresult) {
    let (context, first) = device();
    // SAFETY: as above.
    unsafe { context.disable_event_tracking() };
    let second = context.new_stream().unwrap();
    let mut y = first.clone_htod(&[1_u32, 2]).unwrap();
    let address = y.device_ptr_mut(&first).0;
    let broken = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
    assert!(use_it(&second, address) == broken || code(second.synchronize()) == broken);
}

#[test]
fn a_copy_from_the_host_has_not_arrived_when_it_returns() {
    let program = Program::new(|| {
        copy_and(|stream, address| {
            let mut read = [0_u32; 2];
            // SAFETY: `read` has the eight bytes.
            unsafe { sys::cuMemcpyDtoHAsync_v2(read.as_mut_ptr().cast(), address, 8, stream.cu_stream()) }
        });
    });
    assert_eq!(program.run_to_finding("race")["other"]["kernel"], "copy to the device on stream 1");
}

#[test]
fn freeing_without_order_is_a_race() {
    let program = Program::new(|| {
        // SAFETY: that the copy may still be under way, the simulator is to find.
        copy_and(|stream, address| unsafe { sys::cuMemFreeAsync(address, stream.cu_stream()) });
    });
    assert_eq!(program.run_to_finding("race")["place"]["kernel"], "free on stream 2");
}

/// Allocates on one stream and fills on another, after an event or not; whether that broke the context.
fn allocate_and_fill(ordered: bool) -> bool {
    let (context, first) = device();
    let second = context.new_stream().unwrap();
    let mut address = 0;
    // SAFETY: the address is that of the allocation, which is freed at the end.
    unsafe {
        sys::cuMemAllocAsync(&mut address, 64, first.cu_stream()).result().unwrap();
        if ordered {
            second.wait(&first.record_event(None).unwrap()).unwrap();
        }
        let broken = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
        if sys::cuMemsetD32Async(address, 7, 16, second.cu_stream()) == broken
            || code(second.synchronize()) == broken
        {
            return true;
        }
        sys::cuMemFreeAsync(address, second.cu_stream()).result().unwrap();
    }
    false
}

#[test]
fn memory_is_not_there_before_its_allocations_turn() {
    let program = Program::new(|| assert!(allocate_and_fill(false)));
    let finding = program.run_to_finding("race");
    assert_eq!(finding["place"]["kernel"], "fill on stream 2");
    assert_eq!(finding["other"]["kernel"], "allocation on stream 1");
}

#[test]
fn memory_is_there_after_its_allocations_turn() {
    let program = Program::new(|| assert!(!allocate_and_fill(true)));
    program.run_clean(&[]);
}

/// Fills memory of a pool and has the host free it, which waits for nothing.
fn fill_and_free(wait: bool) -> CUresult {
    let (_context, stream) = device();
    let mut address = 0;
    // SAFETY: the address is that of the allocation; that it may be in use when it is freed, the simulator is to find.
    unsafe {
        sys::cuMemAllocAsync(&mut address, 64, stream.cu_stream()).result().unwrap();
        sys::cuMemsetD32Async(address, 7, 16, stream.cu_stream()).result().unwrap();
        if wait {
            stream.synchronize().unwrap();
        }
        sys::cuMemFree_v2(address)
    }
}

#[test]
fn memory_of_a_pool_that_is_freed_in_use_is_a_race() {
    let program = Program::new(|| assert_eq!(fill_and_free(false), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
    let finding = program.run_to_finding("race");
    assert_eq!(finding["place"]["kernel"], "cuMemFree");
    assert_eq!(finding["other"]["kernel"], "fill on stream 1");
}

#[test]
fn memory_of_a_pool_is_freed_when_the_host_has_waited() {
    let program = Program::new(|| assert_eq!(fill_and_free(true), CUresult::CUDA_SUCCESS));
    program.run_clean(&[]);
}

/// A word of zero that no event of cudarc's orders, and its address.
fn untracked_word() -> (Arc<CudaStream>, CudaSlice<u32>, u64) {
    let (context, stream) = device();
    // SAFETY: as above.
    unsafe { context.disable_event_tracking() };
    let mut y = stream.alloc_zeros::<u32>(1).unwrap();
    let address = y.device_ptr_mut(&stream).0;
    stream.synchronize().unwrap();
    (stream, y, address)
}

/// To the default stream a wait for an event is an operation, which orders all streams that block.
#[test]
fn a_wait_of_the_default_stream_orders_those_that_block() {
    let program = Program::new(|| {
        let (stream, _y, address) = untracked_word();
        let event = stream.record_event(None).unwrap();
        let (mut blocking, mut read) = ([std::ptr::null_mut(); 2], 0_u32);
        // SAFETY: the handles are valid until they are destroyed, and the address lies in y.
        unsafe {
            blocking.iter_mut().for_each(|stream| sys::cuStreamCreate(stream, 0).result().unwrap());
            sys::cuMemsetD32Async(address, 7, 1, blocking[0]).result().unwrap();
            sys::cuStreamWaitEvent(std::ptr::null_mut(), event.cu_event(), 0).result().unwrap();
            sys::cuMemcpyDtoHAsync_v2((&raw mut read).cast(), address, 4, blocking[1]).result().unwrap();
            sys::cuStreamSynchronize(blocking[1]).result().unwrap();
            blocking.into_iter().for_each(|stream| sys::cuStreamDestroy_v2(stream).result().unwrap());
        }
        assert_eq!(read, 7);
    });
    program.run_clean(&[]);
}

#[test]
fn the_default_stream_waits_for_those_that_block_and_no_others() {
    let program = Program::new(|| {
        let (stream, _y, address) = untracked_word();
        let mut blocking = std::ptr::null_mut();
        // SAFETY: the handle is valid until it is destroyed below, and the address lies in y.
        unsafe {
            sys::cuStreamCreate(&mut blocking, 0).result().unwrap();
            sys::cuMemsetD32Async(address, 7, 1, blocking).result().unwrap();
            let mut read = 0_u32;
            sys::cuMemcpyDtoH_v2((&raw mut read).cast(), address, 4).result().unwrap();
            assert_eq!(read, 7);
            sys::cuStreamDestroy_v2(blocking).result().unwrap();
            // cudarc's streams do not block.
            sys::cuMemsetD32Async(address, 8, 1, stream.cu_stream()).result().unwrap();
            let read = sys::cuMemcpyDtoH_v2((&raw mut read).cast(), address, 4);
            assert_eq!(read, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        }
    });
    program.run_to_finding("race");
}

#[test]
fn the_default_stream_waits_for_streams_that_are_gone() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut y = stream.alloc_zeros::<u32>(1).unwrap();
        let address = y.device_ptr_mut(&stream).0;
        stream.synchronize().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        extern "C" fn until_told(wait: *mut c_void) {
            // SAFETY: the receiver below, which outlives the stream's work.
            unsafe { &*wait.cast::<mpsc::Receiver<()>>() }.recv().unwrap();
        }
        let mut blocking = std::ptr::null_mut();
        let mut read = 0_u32;
        // SAFETY: the handle is valid until it is destroyed, the address lies in y, and `wait` outlives the function.
        unsafe {
            sys::cuStreamCreate(&mut blocking, 0).result().unwrap();
            let argument = (&raw const wait).cast_mut().cast();
            sys::cuLaunchHostFunc(blocking, Some(until_told), argument).result().unwrap();
            sys::cuMemsetD32Async(address, 7, 1, blocking).result().unwrap();
            sys::cuStreamDestroy_v2(blocking).result().unwrap();
            go.send(()).unwrap();
            sys::cuMemcpyDtoH_v2((&raw mut read).cast(), address, 4).result().unwrap();
        }
        assert_eq!(read, 7);
    });
    program.run_clean(&[]);
}
