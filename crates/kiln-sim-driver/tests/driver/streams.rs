//! Streams, events and functions of the program: whose turn it is when, and how simulated time passes.

use std::ffi::c_void;
use std::sync::mpsc;

use cudarc::driver::sys::{self, CUevent_flags, CUresult};
use cudarc::driver::{CudaStream, PushKernelArg, result};

use crate::child::Program;
use crate::program::{code, device, grid, kernel};

const TIMED: Option<CUevent_flags> = Some(CUevent_flags::CU_EVENT_DEFAULT);

/// Has a stream call `function` in its turn.
fn call_in_turn(stream: &CudaStream, function: impl FnOnce() + Send + 'static) {
    unsafe extern "C" fn call(function: *mut c_void) {
        // SAFETY: the pointer comes from `into_raw` below, and the driver calls this once.
        let function = unsafe { Box::from_raw(function.cast::<Box<dyn FnOnce() + Send>>()) };
        function();
    }
    let function: Box<Box<dyn FnOnce() + Send>> = Box::new(Box::new(function));
    let argument = Box::into_raw(function).cast();
    // SAFETY: the function may run on any thread at any later time, for it owns what it uses.
    unsafe { result::stream::launch_host_function(stream.cu_stream(), call, argument) }.unwrap();
}

/// The time that one or two launches take, in ms: on one stream, or the second on a stream of its own.
fn time_of(launches: usize, streams: usize) -> f32 {
    let (context, first) = device();
    let second = context.new_stream().unwrap();
    let count_to = kernel(&context, "count_to");
    let mut y = [first.alloc_zeros::<u32>(1).unwrap(), second.alloc_zeros::<u32>(1).unwrap()];
    context.synchronize().unwrap();
    let start = first.record_event(TIMED).unwrap();
    second.wait(&start).unwrap();
    for (at, y) in y.iter_mut().enumerate().take(launches) {
        let stream = if at % streams == 0 { &first } else { &second };
        // SAFETY: the kernel writes y[0].
        unsafe { stream.launch_builder(&count_to).arg(y).arg(&100_000_u32).launch(grid(1, 1)) }.unwrap();
    }
    first.join(&second).unwrap();
    let end = first.record_event(TIMED).unwrap();
    context.synchronize().unwrap();
    start.elapsed_ms(&end).unwrap()
}

#[test]
fn kernels_of_two_streams_overlap_and_of_one_do_not() {
    let program = Program::new(|| {
        let (one, after_another, beside) = (time_of(1, 1), time_of(2, 1), time_of(2, 2));
        assert!(one > 0.1, "{one}");
        assert!(after_another > 1.9 * one && after_another < 2.1 * one, "{one} {after_another}");
        assert!(beside >= one && beside < 1.1 * one, "{one} {beside}");
    });
    program.run_clean(&[]);
}

#[test]
fn what_another_thread_waits_for_does_not_take_time_here() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let start = stream.record_event(TIMED).unwrap();
        std::thread::spawn(|| time_of(2, 1)).join().unwrap();
        let end = stream.record_event(TIMED).unwrap();
        stream.synchronize().unwrap();
        let ms = start.elapsed_ms(&end).unwrap();
        assert!((0.0..0.1).contains(&ms), "{ms}");
    });
    program.run_clean(&[]);
}

#[test]
fn what_the_host_waits_for_takes_time_on_every_stream() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let start = stream.record_event(TIMED).unwrap();
        let waited = time_of(1, 1);
        let end = stream.record_event(TIMED).unwrap();
        stream.synchronize().unwrap();
        let ms = start.elapsed_ms(&end).unwrap();
        assert!(waited > 0.1 && ms > waited, "{ms} {waited}");
    });
    program.run_clean(&[]);
}

#[test]
fn an_event_that_takes_no_time_has_none() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let untimed = stream.record_event(None).unwrap();
        let timed = stream.record_event(TIMED).unwrap();
        assert_eq!(code(untimed.elapsed_ms(&timed)), CUresult::CUDA_ERROR_INVALID_HANDLE);
    });
    program.run_clean(&[]);
}

#[test]
fn a_function_of_the_program_runs_in_its_turn_beside_the_caller() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let mut y = stream.clone_htod(&[1_u32]).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (ran, seen) = mpsc::channel::<()>();
        let function = move || {
            wait.recv().unwrap();
            ran.send(()).unwrap();
        };
        call_in_turn(&stream, function);
        stream.memset_zeros(&mut y).unwrap();
        let after = stream.record_event(None).unwrap();
        assert!(!after.is_complete(), "the fill comes after the function");
        go.send(()).unwrap();
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [0]);
        assert_eq!(seen.try_recv(), Ok(()));
        assert!(after.is_complete());
    });
    program.run_clean(&[]);
}

#[test]
fn a_function_of_the_program_may_not_call_the_driver() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        let (tell, told) = mpsc::channel();
        // SAFETY: no pointers.
        call_in_turn(&stream, move || tell.send(unsafe { sys::cuCtxSynchronize() }).unwrap());
        stream.synchronize().unwrap();
        assert_eq!(told.recv(), Ok(CUresult::CUDA_ERROR_NOT_PERMITTED));
    });
    program.run_clean(&[]);
}

#[test]
fn threads_share_a_device() {
    let program = Program::new(|| {
        let work = |thread: u32| {
            let (context, stream) = device();
            let count_to = kernel(&context, "count_to");
            for step in 1..50 {
                let mut y = stream.alloc_zeros::<u32>(1).unwrap();
                call_in_turn(&stream, std::thread::yield_now);
                let n = 100 * thread + step;
                // SAFETY: the kernel writes y[0].
                unsafe { stream.launch_builder(&count_to).arg(&mut y).arg(&n).launch(grid(1, 1)) }.unwrap();
                assert_eq!(stream.clone_dtoh(&y).unwrap(), [n]);
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|thread| drop(scope.spawn(move || work(thread)))));
    });
    program.run_clean(&[]);
}

#[test]
fn a_stream_that_is_gone_still_does_its_work() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let (go, wait) = mpsc::channel::<()>();
        let mut y = stream.clone_htod(&[1_u32]).unwrap();
        let other = context.new_stream().unwrap();
        call_in_turn(&other, move || wait.recv().unwrap());
        other.memset_zeros(&mut y).unwrap();
        drop(other); // must not wait: nobody has said go
        go.send(()).unwrap();
        context.synchronize().unwrap();
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [0]);
    });
    program.run_clean(&[]);
}
