//! Stream capture and graphs.

use cudarc::driver::sys::{
    self, CUgraphExecUpdateResult as Update, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode as Mode,
    CUstreamCaptureStatus as Capture,
};
use cudarc::driver::{CudaFunction, CudaGraph, CudaSlice, CudaStream, PushKernelArg};
use std::sync::Arc;

use crate::child::Program;
use crate::program::{KERNELS, code, device, grid, kernel};

/// A graph: `x = value`, then `y = 2 x`.
fn capture(
    stream: &Arc<CudaStream>,
    double_it: &CudaFunction,
    y: &mut CudaSlice<f32>,
    x: &mut CudaSlice<f32>,
) -> CudaGraph {
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    assert_eq!(stream.capture_status().unwrap(), Capture::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    stream.memset_zeros(x).unwrap();
    let mut launch = stream.launch_builder(double_it);
    launch.arg(y).arg(x).arg(&4_u32);
    // SAFETY: the kernel reads and writes four floats.
    unsafe { launch.launch(grid(1, 4)) }.unwrap();
    stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap()
}

#[test]
fn a_captured_stream_becomes_a_graph_that_runs_many_times() {
    let program = Program::new(|| {
        let (context, stream) = device();
        // SAFETY: one stream does all.
        unsafe { context.disable_event_tracking() };
        let double_it = kernel(&context, "double_it");
        let mut x = stream.clone_htod(&[1_f32, 2.0, 3.0, 4.0]).unwrap();
        let mut y = stream.clone_htod(&[9_f32; 4]).unwrap();
        let graph = capture(&stream, &double_it, &mut y, &mut x);
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [9.0; 4], "captured, not done");
        graph.upload().unwrap();
        for _ in 0..50 {
            stream.memcpy_htod(&[7_f32; 4], &mut y).unwrap();
            graph.launch().unwrap();
            assert_eq!(stream.clone_dtoh(&y).unwrap(), [0.0; 4]);
        }
    });
    program.run_clean(&[]);
}

/// What may wait, or takes code away, is not for the time of a capture, even of an event from before it.
#[test]
fn a_capture_forbids_queries_and_unloading() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let before = stream.record_event(None).unwrap();
        let (image, mut module) = (std::ffi::CString::new(KERNELS).unwrap(), std::ptr::null_mut());
        // SAFETY: the image is text that ends in zero.
        unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) }.result().unwrap();
        let refused = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        let forbidden: [&dyn Fn() -> CUresult; 2] = [
            // SAFETY: the event lives.
            &|| unsafe { sys::cuEventQuery(before.cu_event()) },
            // SAFETY: the module lives, as it is not unloaded before the end.
            &|| unsafe { sys::cuModuleUnload(module) },
        ];
        for forbidden in forbidden {
            stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
            assert_eq!(forbidden(), refused);
            let ended = code(stream.end_capture(CUgraphInstantiate_flags(0)).map(drop));
            assert_eq!(ended, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            assert_eq!(forbidden(), CUresult::CUDA_SUCCESS);
        }
        // That the event itself was recorded in the capture is told first.
        stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        let within = stream.record_event(None).unwrap();
        // SAFETY: the event lives.
        let queried = unsafe { sys::cuEventQuery(within.cu_event()) };
        assert_eq!(queried, CUresult::CUDA_ERROR_CAPTURED_EVENT);
        let _ = stream.end_capture(CUgraphInstantiate_flags(0));
    });
    program.run_clean(&[]);
}

/// It has the kernels' addresses, not their code.
#[test]
fn a_graph_does_not_outlive_its_kernels() {
    let program = Program::new(|| {
        let (context, stream) = device();
        // SAFETY: one stream does all.
        unsafe { context.disable_event_tracking() };
        let double_it = kernel(&context, "double_it");
        let [mut x, mut y] = [0, 0].map(|_| stream.clone_htod(&[1_f32; 4]).unwrap());
        let graph = capture(&stream, &double_it, &mut y, &mut x);
        graph.launch().unwrap();
        stream.synchronize().unwrap();
        drop(double_it);
        assert_eq!(code(graph.launch()), CUresult::CUDA_ERROR_INVALID_HANDLE);
    });
    let ended = program.run(&[]);
    assert!(ended.stderr.contains("the module of kernel double_it has been unloaded"), "{}", ended.stderr);
}

#[test]
fn a_graph_takes_the_parameters_of_another_of_its_form() {
    let program = Program::new(|| {
        let (context, stream) = device();
        // SAFETY: one stream does all.
        unsafe { context.disable_event_tracking() };
        let double_it = kernel(&context, "double_it");
        let mut x = stream.clone_htod(&[1_f32; 4]).unwrap();
        let [mut y, mut z] = [0, 0].map(|_| stream.clone_htod(&[9_f32; 4]).unwrap());
        let graph = capture(&stream, &double_it, &mut y, &mut x);
        let other = capture(&stream, &double_it, &mut z, &mut x);
        let update = |with: sys::CUgraph| {
            let none = std::ptr::null_mut();
            let result = Update::CU_GRAPH_EXEC_UPDATE_SUCCESS;
            let mut info = sys::CUgraphExecUpdateResultInfo { result, errorNode: none, errorFromNode: none };
            // SAFETY: both graphs live.
            let code = unsafe { sys::cuGraphExecUpdate_v2(graph.cu_graph_exec(), with, &mut info) };
            (code, info.result)
        };
        let updated = (CUresult::CUDA_SUCCESS, Update::CU_GRAPH_EXEC_UPDATE_SUCCESS);
        assert_eq!(update(other.cu_graph()), updated);
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [9.0; 4]);
        assert_eq!(stream.clone_dtoh(&z).unwrap(), [0.0; 4]);

        stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        stream.memset_zeros(&mut x).unwrap();
        let shorter = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
        let refused = CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
        let why = Update::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        assert_eq!(update(shorter.cu_graph()), (refused, why));
    });
    program.run_clean(&[]);
}

#[test]
fn a_capture_spreads_to_the_streams_that_wait_for_it() {
    let program = Program::new(|| {
        let (context, stream) = device();
        // SAFETY: the streams are ordered here.
        unsafe { context.disable_event_tracking() };
        let [mut x, mut y] = [0, 0].map(|_| stream.clone_htod(&[9_u32; 4]).unwrap());
        let other = context.new_stream().unwrap();
        context.synchronize().unwrap();
        let mut capture = |joined: bool| {
            stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
            other.join(&stream).unwrap();
            stream.memset_zeros(&mut x).unwrap();
            other.memset_zeros(&mut y).unwrap();
            if joined {
                stream.join(&other).unwrap();
            }
            stream.end_capture(CUgraphInstantiate_flags(0))
        };
        assert_eq!(code(capture(false).map(drop)), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        let graph = capture(true).unwrap().unwrap();
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [9; 4]);
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&x).unwrap(), [0; 4]);
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [0; 4]);
    });
    program.run_clean(&[]);
}

/// A graph of four fills: the second and third come after the first, and the last after the second; after the third, which
/// fills the same bytes, only if there is an edge. What a launch comes to.
fn four_fills(edge: bool) -> CUresult {
    let (_context, stream) = device();
    let mut y = stream.alloc_zeros::<u32>(16).unwrap();
    let dst = cudarc::driver::DevicePtrMut::device_ptr_mut(&mut y, &stream).0;
    let (mut graph, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut());
    let mut nodes = [std::ptr::null_mut(); 4];
    // SAFETY: results and parameters live through each call, and the handles come from the calls before.
    let launched = unsafe {
        sys::cuGraphCreate(&mut graph, 0).result().unwrap();
        let last: &[usize] = if edge { &[1, 2] } else { &[1] };
        for (at, (half, after)) in [(0, &[][..]), (0, &[0]), (32, &[0]), (32, last)].into_iter().enumerate() {
            let params = sys::CUDA_MEMSET_NODE_PARAMS {
                dst: dst + half,
                pitch: 0,
                value: at as u32,
                elementSize: 4,
                width: 8,
                height: 1,
            };
            let before: Vec<sys::CUgraphNode> = after.iter().map(|&at| nodes[at]).collect();
            let (node, none) = (&mut nodes[at], std::ptr::null_mut());
            let added = sys::cuGraphAddMemsetNode(node, graph, before.as_ptr(), before.len(), &params, none);
            added.result().unwrap();
        }
        sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0).result().unwrap();
        sys::cuGraphLaunch(exec, stream.cu_stream()).result().unwrap();
        let launched = code(stream.synchronize());
        sys::cuGraphExecDestroy(exec).result().unwrap();
        sys::cuGraphDestroy(graph).result().unwrap();
        launched
    };
    if launched == CUresult::CUDA_SUCCESS {
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [[1; 8], [3; 8]].concat());
    }
    launched
}

#[test]
fn nodes_with_an_edge_are_ordered() {
    Program::new(|| assert_eq!(four_fills(true), CUresult::CUDA_SUCCESS)).run_clean(&[]);
}

#[test]
fn nodes_without_an_edge_race() {
    let program = Program::new(|| assert_eq!(four_fills(false), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
    let finding = program.run_to_finding("race");
    assert_eq!(finding["place"]["kernel"], "fill in a graph");
    assert!(finding["location"]["what"].as_str().unwrap().ends_with("offset 32"), "{finding}");
}

#[test]
fn what_a_graph_cannot_hold_ends_its_capture() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let end = || code(stream.end_capture(CUgraphInstantiate_flags(0)).map(drop));
        stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(end(), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        assert_eq!(end(), CUresult::CUDA_ERROR_ILLEGAL_STATE);
    });
    program.run_clean(&[]);
}

#[test]
fn a_capture_ends_with_its_stream() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let other = context.new_stream().unwrap();
        other.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
        drop(other);
        // A capture under way would forbid this.
        let mut address = 0;
        // SAFETY: the address is freed again at once.
        unsafe {
            sys::cuMemAlloc_v2(&mut address, 4).result().unwrap();
            sys::cuMemFree_v2(address).result().unwrap();
        }
        stream.synchronize().unwrap();
    });
    program.run_clean(&[]);
}
