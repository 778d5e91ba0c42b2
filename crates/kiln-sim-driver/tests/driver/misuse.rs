//! Calls at the wrong time, with null pointers, and with handles that are gone: each is an error, none a crash.

use std::ptr::{null, null_mut, without_provenance_mut};

use cudarc::driver::DevicePtrMut;
use cudarc::driver::sys::{self, CUresult};

use crate::child::Program;
use crate::program::{KERNELS, device, kernel};

const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

#[test]
fn before_initialisation_nothing_works() {
    let program = Program::new(|| {
        let (mut device, mut context, mut address, mut version) = (0, null_mut(), 0, 0);
        // SAFETY: results live through each call.
        unsafe {
            let none = CUresult::CUDA_ERROR_NOT_INITIALIZED;
            assert_eq!(sys::cuDeviceGet(&mut device, 0), none);
            assert_eq!(sys::cuCtxGetCurrent(&mut context), none);
            assert_eq!(sys::cuMemAlloc_v2(&mut address, 4), none);
            assert_eq!(sys::cuCtxSynchronize(), none);
            sys::cuDriverGetVersion(&mut version).result().unwrap();
            assert_eq!(sys::cuInit(1), INVALID);
            sys::cuInit(0).result().unwrap();
            sys::cuInit(0).result().unwrap();
            // Now there is a driver, but no context.
            assert_eq!(sys::cuMemAlloc_v2(&mut address, 4), CUresult::CUDA_ERROR_INVALID_CONTEXT);
        }
    });
    program.run_clean(&[]);
}

#[test]
fn null_pointers() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let count_to = kernel(&context, "count_to");
        let mut y = stream.alloc_zeros::<u32>(1).unwrap();
        let address = y.device_ptr_mut(&stream).0;
        let (function, stream) = (count_to.cu_function(), stream.cu_stream());
        let mut module = null_mut();
        let mut options =
            [sys::CUjit_option::CU_JIT_MAX_REGISTERS, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER];
        let image = std::ffi::CString::new(KERNELS).unwrap();
        // SAFETY: null is what the driver must refuse.
        let refused = unsafe {
            [
                sys::cuDeviceGet(null_mut(), 0),
                sys::cuDeviceGetName(null_mut(), 10, 0),
                sys::cuDevicePrimaryCtxRetain(null_mut(), 0),
                sys::cuMemAlloc_v2(null_mut(), 4),
                sys::cuMemAllocAsync(null_mut(), 4, stream),
                sys::cuMemHostAlloc(null_mut(), 4, 0),
                sys::cuStreamCreate(null_mut(), 0),
                sys::cuEventCreate(null_mut(), 0),
                sys::cuModuleLoadData(&mut module, null()),
                sys::cuModuleLoadDataEx(
                    &mut module,
                    image.as_ptr().cast(),
                    2,
                    options.as_mut_ptr(),
                    null_mut(),
                ),
                sys::cuModuleLoadDataEx(&mut module, image.as_ptr().cast(), 2, null_mut(), null_mut()),
                sys::cuModuleGetFunction(null_mut(), null_mut(), c"f".as_ptr()),
                sys::cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, null_mut(), null_mut()),
                sys::cuLaunchKernelEx(null(), function, null_mut(), null_mut()),
                sys::cuLaunchHostFunc(stream, None, null_mut()),
                sys::cuStreamEndCapture(stream, null_mut()),
                sys::cuGraphCreate(null_mut(), 0),
                sys::cuMemcpyHtoDAsync_v2(address, null(), 4, stream),
                sys::cuMemcpy2D_v2(null()),
            ]
        };
        for (at, refused) in refused.into_iter().enumerate() {
            assert_eq!(refused, INVALID, "{at}");
        }
    });
    program.run_clean(&[]);
}

#[test]
fn handles_that_are_made_up_or_gone() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let (mut event, mut other) = (null_mut(), null_mut());
        let made_up = without_provenance_mut::<std::ffi::c_void>(0x1234_5678);
        let invalid = CUresult::CUDA_ERROR_INVALID_HANDLE;
        // SAFETY: handles that are wrong are refused.
        unsafe {
            sys::cuEventCreate(&mut event, 0).result().unwrap();
            sys::cuEventRecord(event, stream.cu_stream()).result().unwrap();
            sys::cuEventDestroy_v2(event).result().unwrap();
            assert_eq!(sys::cuEventDestroy_v2(event), invalid);
            assert_eq!(sys::cuEventRecord(event, stream.cu_stream()), invalid);
            assert_eq!(sys::cuEventQuery(made_up.cast()), invalid);
            assert_eq!(sys::cuStreamWaitEvent(stream.cu_stream(), event, 0), invalid);

            sys::cuStreamCreate(&mut other, 0).result().unwrap();
            sys::cuStreamDestroy_v2(other).result().unwrap();
            assert_eq!(sys::cuStreamDestroy_v2(other), invalid);
            assert_eq!(sys::cuStreamSynchronize(other), invalid);
            assert_eq!(sys::cuStreamDestroy_v2(null_mut()), invalid);

            assert_eq!(sys::cuModuleUnload(made_up.cast()), invalid);
            assert_eq!(sys::cuGraphDestroy(made_up.cast()), INVALID);
            assert_eq!(sys::cuGraphLaunch(made_up.cast(), stream.cu_stream()), INVALID);
            assert_eq!(sys::cuCtxSetCurrent(made_up.cast()), CUresult::CUDA_ERROR_INVALID_CONTEXT);
        }
    });
    program.run_clean(&[]);
}

#[test]
fn a_context_that_is_gone() {
    let program = Program::new(|| {
        let (mut context, mut stream, mut address) = (null_mut(), null_mut(), 0);
        // SAFETY: results live through each call; handles that are wrong are refused.
        unsafe {
            sys::cuInit(0).result().unwrap();
            sys::cuCtxCreate_v2(&mut context, 0, 0).result().unwrap();
            sys::cuStreamCreate(&mut stream, 0).result().unwrap();
            // To another thread it stays current.
            let handle = context as usize;
            let other = std::thread::spawn(move || {
                sys::cuCtxSetCurrent(without_provenance_mut(handle)).result().unwrap();
                sys::cuCtxDestroy_v2(without_provenance_mut(handle)).result().unwrap();
                sys::cuCtxSynchronize()
            });
            assert_eq!(other.join().unwrap(), CUresult::CUDA_ERROR_INVALID_CONTEXT, "taken off the stack");
            let gone = CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED;
            assert_eq!(sys::cuCtxSynchronize(), gone);
            assert_eq!(sys::cuMemAlloc_v2(&mut address, 4), gone);
            assert_eq!(sys::cuStreamSynchronize(stream), gone);
            assert_eq!(sys::cuCtxDestroy_v2(context), CUresult::CUDA_ERROR_INVALID_CONTEXT);
        }
    });
    program.run_clean(&[]);
}

#[test]
fn text_that_is_not_ptx() {
    let program = Program::new(|| {
        let (_context, _stream) = device();
        let mut module = null_mut();
        let mut load = |image: &std::ffi::CStr| {
            // SAFETY: the image lives through the call.
            unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) }
        };
        assert_eq!(load(c"make me a kernel"), CUresult::CUDA_ERROR_INVALID_PTX);
        assert_eq!(load(c""), CUresult::CUDA_ERROR_INVALID_PTX);
        assert_eq!(load(c"\x7fELF"), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
        // SAFETY: as above.
        let found = unsafe { sys::cuModuleLoad(&mut module, c"/no/such/file.ptx".as_ptr()) };
        assert_eq!(found, CUresult::CUDA_ERROR_FILE_NOT_FOUND);
    });
    program.run_clean(&[]);
}
