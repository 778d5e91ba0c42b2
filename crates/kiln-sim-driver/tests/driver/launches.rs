//! Launches of every kind, and occupancy.

use std::ffi::{c_int, c_void};

use cudarc::driver::sys::{self, CUfunction_attribute_enum as Attribute, CUlaunchAttributeID, CUresult};
use cudarc::driver::{CudaFunction, CudaSlice, CudaStream, DevicePtrMut, PushKernelArg};
use cudarc::nvrtc::Ptx;

use crate::child::Program;
use crate::program::{code, device, grid, kernel};

/// Launches `blocks` blocks with one attribute.
fn launch_with(
    stream: &CudaStream,
    function: &CudaFunction,
    y: &mut CudaSlice<u32>,
    [blocks, threads]: [u32; 2],
    (id, value): (CUlaunchAttributeID, sys::CUlaunchAttributeValue),
) -> CUresult {
    let (address, _record) = y.device_ptr_mut(stream);
    let mut attributes = [sys::CUlaunchAttribute { id, pad: [0; 4], value }];
    let config = sys::CUlaunchConfig {
        gridDimX: blocks,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: 0,
        hStream: stream.cu_stream(),
        attrs: attributes.as_mut_ptr(),
        numAttrs: 1,
    };
    let mut params = [(&raw const address).cast_mut().cast::<c_void>()];
    // SAFETY: configuration, attributes and the one parameter live to the end of the call.
    unsafe {
        sys::cuLaunchKernelEx(&config, function.cu_function(), params.as_mut_ptr(), std::ptr::null_mut())
    }
}

/// Launches `blocks` blocks of one thread in clusters of `cluster` blocks.
fn launch_in_clusters(
    stream: &CudaStream,
    function: &CudaFunction,
    y: &mut CudaSlice<u32>,
    blocks: u32,
    cluster: u32,
) -> CUresult {
    let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
    value.clusterDim.x = cluster;
    value.clusterDim.y = 1;
    value.clusterDim.z = 1;
    let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    launch_with(stream, function, y, [blocks, 1], (id, value))
}

#[test]
fn clusters_of_a_launch() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let module = context.load_module(Ptx::from_src(include_str!("clusters.ptx"))).unwrap();
        let where_am_i = module.load_function("where_am_i").unwrap();
        let mut y = stream.alloc_zeros::<u32>(16).unwrap();
        let mut launch = |blocks, cluster| launch_in_clusters(&stream, &where_am_i, &mut y, blocks, cluster);
        assert_eq!(launch(8, 4), CUresult::CUDA_SUCCESS);
        assert_eq!(launch(6, 4), CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
        assert_eq!(launch(16, 16), CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
        let larger = Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
        where_am_i.set_attribute(larger, 1).unwrap();
        let first = stream.clone_dtoh(&y).unwrap();
        assert_eq!(first[..8], [400, 401, 402, 403, 400, 401, 402, 403]);
        let mut launch = |blocks, cluster| launch_in_clusters(&stream, &where_am_i, &mut y, blocks, cluster);
        assert_eq!(launch(16, 16), CUresult::CUDA_SUCCESS);
        assert_eq!(stream.clone_dtoh(&y).unwrap()[15], 1615);
        assert_eq!(where_am_i.occupancy_max_potential_cluster_size(grid(16, 1), &stream).unwrap(), 16);
        assert_eq!(where_am_i.occupancy_max_active_clusters(grid(16, 1), &stream).unwrap(), 32 * 132);
    });
    program.run_clean(&[]);
}

#[test]
fn clusters_need_an_architecture_that_has_them() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let module = context.load_module(Ptx::from_src(include_str!("clusters.ptx")));
        assert_eq!(code(module), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
        let collide = kernel(&context, "collide");
        let mut y = stream.alloc_zeros::<u32>(1).unwrap();
        let launched = launch_in_clusters(&stream, &collide, &mut y, 2, 2);
        assert_eq!(launched, CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
    });
    program.run_clean(&[("KILN_SIM_ARCH", "sm_89")]);
}

#[test]
fn blocks_of_a_cooperative_launch_meet() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let meet = kernel(&context, "meet");
        let mut y = stream.alloc_zeros::<u32>(40).unwrap();
        let mut count = stream.alloc_zeros::<u32>(1).unwrap();
        let mut launch = stream.launch_builder(&meet);
        launch.arg(&mut y).arg(&mut count);
        // SAFETY: each of 40 blocks writes its own word.
        unsafe { launch.launch_cooperative(grid(40, 1)) }.unwrap();
        // SAFETY: not launched, for 1024 threads fit twice on each of 132 multiprocessors.
        let too_many = unsafe { launch.launch_cooperative(grid(265, 1024)) };
        assert_eq!(code(too_many), CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [40; 40]);

        let give_up = kernel(&context, "give_up");
        let value = sys::CUlaunchAttributeValue { cooperative: 1 };
        let asked = (CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, value);
        let too_many = launch_with(&stream, &give_up, &mut y, [265, 1024], asked);
        assert_eq!(too_many, CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    });
    // Blocks that never meet must not spin for ever.
    program.run_clean(&[("KILN_SIM_FUEL", "1000000")]);
}

#[test]
fn parameters_can_come_in_one_buffer() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let count_to = kernel(&context, "count_to");
        let mut y = stream.alloc_zeros::<u32>(1).unwrap();
        let address = y.device_ptr_mut(&stream).0;
        let mut buffer = [address, 9]; // the pointer, and `n` in the lower half of the second word
        let launch = |size: usize, buffer: &mut [u64; 2]| {
            let mut size = size;
            let mut extra: [*mut c_void; 5] = [
                std::ptr::without_provenance_mut(1), // CU_LAUNCH_PARAM_BUFFER_POINTER
                buffer.as_mut_ptr().cast(),
                std::ptr::without_provenance_mut(2), // CU_LAUNCH_PARAM_BUFFER_SIZE
                (&raw mut size).cast(),
                std::ptr::null_mut(),
            ];
            let (function, stream) = (count_to.cu_function(), stream.cu_stream());
            let none = std::ptr::null_mut();
            // SAFETY: the buffer and its size live to the end of the call.
            unsafe { sys::cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, none, extra.as_mut_ptr()) }
        };
        assert_eq!(launch(12, &mut buffer), CUresult::CUDA_SUCCESS);
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [9]);
        assert_eq!(launch(8, &mut buffer), CUresult::CUDA_ERROR_INVALID_VALUE);
    });
    program.run_clean(&[]);
}

#[test]
fn a_launch_that_does_not_fit_is_refused_and_says_why() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let give_up = kernel(&context, "give_up");
        let launch = |config| {
            // SAFETY: none of these is launched.
            code(unsafe { stream.launch_builder(&give_up).launch(config) })
        };
        let mut config = grid(1, 1);
        config.shared_mem_bytes = (48 << 10) + 4;
        for config in [grid(0, 1), grid(1, 0), grid(1, 1025), grid(1 << 31, 1), config] {
            assert_eq!(launch(config), CUresult::CUDA_ERROR_INVALID_VALUE, "{config:?}");
        }
        stream.synchronize().unwrap(); // a refusal does not break the context
    });
    let ended = program.run_clean(&[]);
    assert_eq!(ended.stderr.matches("kiln-sim: give_up: launch refused: ").count(), 5, "{}", ended.stderr);
}

#[test]
fn occupancy() {
    extern "C" fn shared_of(threads: c_int) -> usize {
        16 * threads as usize
    }
    let program = Program::new(|| {
        let (context, _stream) = device();
        let double_it = kernel(&context, "double_it");
        let blocks = |threads, shared| {
            double_it.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None).unwrap()
        };
        assert_eq!((blocks(1024, 0), blocks(32, 0), blocks(32, 100 << 10)), (2, 32, 2));
        let (grid, block) = double_it.occupancy_max_potential_block_size(shared_of, 0, 0, None).unwrap();
        assert_eq!((grid, block), (2 * 132, 1024));
        let bytes = double_it.occupancy_available_dynamic_smem_per_block(3, 1024);
        assert_eq!(code(bytes), CUresult::CUDA_ERROR_INVALID_VALUE); // three do not fit
        let bytes = double_it.occupancy_available_dynamic_smem_per_block(2, 1024).unwrap();
        assert_eq!(bytes, (114 << 10) - 1024);
    });
    program.run_clean(&[]);
}
