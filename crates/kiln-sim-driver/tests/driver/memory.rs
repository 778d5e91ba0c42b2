//! Memory of every kind, and the rest of the calls that a program makes about itself.

use std::ffi::{CStr, c_void};

use cudarc::driver::sys::{self, CUmemAttach_flags, CUresult};
use cudarc::driver::{DevicePtrMut, Profiler, PushKernelArg};

use crate::child::Program;
use crate::program::{device, grid, kernel};

#[test]
fn pinned_memory_is_copied_in_its_turn() {
    let program = Program::new(|| {
        let (context, stream) = device();
        // SAFETY: written before it is read.
        let mut pinned = unsafe { context.alloc_pinned::<f32>(4) }.unwrap();
        pinned.as_mut_slice().unwrap().copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        let y = stream.clone_htod(&pinned).unwrap();
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [1.0, 2.0, 3.0, 4.0]);
    });
    program.run_clean(&[]);
}

#[test]
fn managed_memory_is_read_and_written_on_both_sides() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let double_it = kernel(&context, "double_it");
        // SAFETY: written before it is read.
        let mut shared = unsafe { context.alloc_unified::<f32>(4, true) }.unwrap();
        shared.as_mut_slice().unwrap().copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        let mut y = stream.alloc_zeros::<f32>(4).unwrap();
        let mut launch = stream.launch_builder(&double_it);
        // SAFETY: the kernel reads and writes four floats.
        unsafe { launch.arg(&mut y).arg(&shared).arg(&4_u32).launch(grid(1, 4)) }.unwrap();
        stream.memcpy_dtod(&y, &mut shared).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(shared.as_slice().unwrap(), [2.0, 4.0, 6.0, 8.0]);
        shared.attach(&stream, CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL).unwrap();
        shared.prefetch().unwrap();
    });
    program.run_clean(&[]);
}

#[test]
fn pinned_memory_can_leak_too() {
    let program = Program::new(|| {
        let (context, _stream) = device();
        // SAFETY: never read.
        std::mem::forget(unsafe { context.alloc_pinned::<u64>(5) }.unwrap());
    });
    let finding = program.run_to_finding("leak");
    assert!(finding["message"].as_str().unwrap().starts_with("40 bytes of pinned host memory"), "{finding}");
}

#[test]
fn memory_is_freed_once_and_from_its_start() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut address = 0;
        // SAFETY: addresses that are wrong are refused.
        unsafe {
            sys::cuMemAlloc_v2(&mut address, 64).result().unwrap();
            let invalid = CUresult::CUDA_ERROR_INVALID_VALUE;
            assert_eq!(sys::cuMemFree_v2(address + 4), invalid);
            assert_eq!(sys::cuMemFreeHost(std::ptr::without_provenance_mut(address as usize)), invalid);
            sys::cuMemFree_v2(address).result().unwrap();
            assert_eq!(sys::cuMemFree_v2(address), invalid);
            assert_eq!(sys::cuMemFreeAsync(address, stream.cu_stream()), invalid);
            sys::cuMemFree_v2(0).result().unwrap();
        }
    });
    let ended = program.run_clean(&[]);
    assert!(ended.stderr.contains("was freed before"), "{}", ended.stderr);
}

#[test]
fn pools_and_addresses_answer_for_what_they_hold() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut y = stream.alloc_zeros::<u8>(300).unwrap();
        let address = y.device_ptr_mut(&stream).0;
        let (mut base, mut bytes, mut used) = (0, 0, 0_u64);
        let mut pool = std::ptr::null_mut();
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
        // SAFETY: results live through each call.
        unsafe {
            sys::cuMemGetAddressRange_v2(&mut base, &mut bytes, address + 299).result().unwrap();
            assert_eq!((base, bytes), (address, 300));
            let outside = sys::cuMemGetAddressRange_v2(&mut base, &mut bytes, address + 300);
            assert_eq!(outside, CUresult::CUDA_ERROR_NOT_FOUND);
            sys::cuDeviceGetDefaultMemPool(&mut pool, 0).result().unwrap();
            sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut used).cast()).result().unwrap();
            assert_eq!(used, 300);
            assert_eq!(sys::cuMemPoolDestroy(pool), CUresult::CUDA_ERROR_INVALID_VALUE);
        }
    });
    program.run_clean(&[]);
}

#[test]
fn memory_of_the_program_can_be_registered() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut words = vec![0_u32; 1024];
        let address: *mut c_void = words.as_mut_ptr().cast();
        // SAFETY: `words` outlives its registration.
        unsafe {
            let askew = sys::cuMemHostRegister_v2(address.byte_add(2), 4000, 0);
            assert_eq!(askew, CUresult::CUDA_ERROR_NOT_SUPPORTED);
            sys::cuMemHostRegister_v2(address, 4096, 0).result().unwrap();
            let again = sys::cuMemHostRegister_v2(address, 4096, 0);
            assert_eq!(again, CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
            let mut mapped = 0;
            sys::cuMemHostGetDevicePointer_v2(&mut mapped, address, 0).result().unwrap();
            sys::cuMemsetD32Async(mapped, 3, 1024, stream.cu_stream()).result().unwrap();
            stream.synchronize().unwrap();
            sys::cuMemHostUnregister(address).result().unwrap();
            let gone = sys::cuMemHostUnregister(address);
            assert_eq!(gone, CUresult::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
        }
        assert!(words.iter().all(|&word| word == 3));
    });
    program.run_clean(&[]);
}

#[test]
fn errors_have_names_and_texts_and_the_profiler_can_be_told() {
    let program = Program::new(|| {
        let (_context, _stream) = device();
        drop(Profiler::new().unwrap());
        let text = |of: CUresult| {
            let (mut name, mut words) = (std::ptr::null(), std::ptr::null());
            // SAFETY: the driver answers with texts that stay for ever.
            unsafe {
                sys::cuGetErrorName(of, &mut name).result().unwrap();
                sys::cuGetErrorString(of, &mut words).result().unwrap();
                (CStr::from_ptr(name), CStr::from_ptr(words))
            }
        };
        assert_eq!(text(CUresult::CUDA_SUCCESS), (c"CUDA_SUCCESS", c"no error"));
        let expected = (c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered");
        assert_eq!(text(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), expected);
    });
    program.run_clean(&[]);
}
