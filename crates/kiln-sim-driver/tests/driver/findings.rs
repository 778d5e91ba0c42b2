//! Each class of finding: the process ends with status 86, the caller gets CUDA's error, the report says where.

use cudarc::driver::PushKernelArg;
use cudarc::driver::sys::{self, CUresult};
use serde_json::json;

use crate::child::Program;
use crate::program::{code, device, grid, kernel, marked};

#[test]
fn a_clean_program_ends_with_its_own_status() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let double_it = kernel(&context, "double_it");
        let x: Vec<f32> = (0..1000_u16).map(f32::from).collect();
        let x_dev = stream.clone_htod(&x).unwrap();
        let mut y_dev = stream.alloc_zeros::<f32>(1000).unwrap();
        let mut launch = stream.launch_builder(&double_it);
        launch.arg(&mut y_dev).arg(&x_dev).arg(&1000_u32);
        // SAFETY: the kernel writes y[i] and reads x[i] for i < 1000.
        unsafe { launch.launch(grid(8, 128)) }.unwrap();
        let y = stream.clone_dtoh(&y_dev).unwrap();
        assert!(y.iter().zip(&x).all(|(y, x)| *y == 2.0 * x));
    });
    let ended = program.run_clean(&[]);
    assert!(!ended.stderr.contains("kiln-sim"), "{}", ended.stderr);
}

#[test]
fn an_overrun_is_named_to_the_thread() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let mut y = stream.alloc_zeros::<u32>(64).unwrap();
        let overrun = kernel(&context, "overrun");
        // SAFETY: thread 63 writes past the end, which the simulator is to find.
        unsafe { stream.launch_builder(&overrun).arg(&mut y).launch(grid(1, 64)) }.unwrap();
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        // The context stays broken.
        assert_eq!(code(stream.alloc_zeros::<u32>(1)), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    let finding = program.run_to_finding("out-of-bounds");
    let place = &finding["place"];
    assert_eq!(place["kernel"], "overrun");
    assert_eq!(place["ptx_line"], marked("out-of-bounds"));
    assert_eq!((&place["block"], &place["thread"]), (&json!([0, 0, 0]), &json!([63, 0, 0])));
    assert_eq!(finding["location"]["bytes"], 4);
    assert_eq!(finding["location"]["address"].as_u64().unwrap() % 256, 0);
    assert!(finding["location"]["what"].as_str().unwrap().contains("(256 bytes), offset 256"));
}

#[test]
fn what_comes_after_a_fault_in_its_context_is_not_done() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let mut y = stream.alloc_zeros::<u32>(4).unwrap();
        let overrun = kernel(&context, "overrun");
        let mut pinned = std::ptr::null_mut();
        // SAFETY: thread 3 writes past the end, which the simulator is to find; `pinned` has four bytes.
        unsafe {
            sys::cuMemHostAlloc(&mut pinned, 4, 0).result().unwrap();
            pinned.cast::<u32>().write(5);
            stream.launch_builder(&overrun).arg(&mut y).launch(grid(1, 4)).unwrap();
            sys::cuMemsetD32Async(pinned.addr() as u64, 6, 1, stream.cu_stream()).result().unwrap();
            assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
            assert_eq!(pinned.cast::<u32>().read(), 5);
        }
    });
    program.run_to_finding("out-of-bounds");
}

#[test]
fn a_misaligned_store() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let mut y = stream.alloc_zeros::<u32>(4).unwrap();
        let askew = kernel(&context, "askew");
        // SAFETY: the store is within y; that it is not aligned, the simulator is to find.
        unsafe { stream.launch_builder(&askew).arg(&mut y).launch(grid(1, 1)) }.unwrap();
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_MISALIGNED_ADDRESS);
    });
    assert_eq!(program.run_to_finding("misaligned")["place"]["ptx_line"], marked("misaligned"));
}

#[test]
fn a_race_between_blocks_names_both_accesses() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let mut y = stream.alloc_zeros::<u32>(1).unwrap();
        let collide = kernel(&context, "collide");
        // SAFETY: the stores are within y; that they are not ordered, the simulator is to find.
        unsafe { stream.launch_builder(&collide).arg(&mut y).launch(grid(2, 1)) }.unwrap();
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    let finding = program.run_to_finding("race");
    for place in [&finding["place"], &finding["other"]] {
        assert_eq!((&place["kernel"], &place["ptx_line"]), (&json!("collide"), &json!(marked("race"))));
    }
    assert_ne!(finding["place"]["block"], finding["other"]["block"]);
}

#[test]
fn memory_that_was_freed() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let y = stream.alloc_zeros::<u32>(4).unwrap();
        let address = cudarc::driver::DevicePtr::device_ptr(&y, &stream).0;
        drop(y);
        let askew = kernel(&context, "overrun");
        // SAFETY: that y is gone, the simulator is to find.
        unsafe { stream.launch_builder(&askew).arg(&address).launch(grid(1, 1)) }.unwrap();
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    let finding = program.run_to_finding("use-after-free");
    assert!(finding["location"]["what"].as_str().unwrap().contains("freed"), "{finding}");
}

#[test]
fn memory_that_nobody_wrote_is_read_back() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        // SAFETY: that nothing is written before it is read, the simulator is to find.
        let y = unsafe { stream.alloc::<u32>(4) }.unwrap();
        assert_eq!(code(stream.clone_dtoh(&y)), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    let finding = program.run_to_finding("uninitialised");
    assert!(finding["place"]["kernel"].as_str().unwrap().starts_with("copy from the device on stream"));
}

#[test]
fn memory_that_is_never_freed() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        std::mem::forget(stream.alloc_zeros::<u32>(25).unwrap());
    });
    let finding = program.run_to_finding("leak");
    assert!(finding["message"].as_str().unwrap().starts_with("100 bytes of device memory"), "{finding}");
    assert_eq!(finding["location"]["what"], "allocated by cuMemAllocAsync");
}

#[test]
fn barriers_that_wait_for_each_other() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let wait_for_ever = kernel(&context, "wait_for_ever");
        // SAFETY: no parameters; that it never ends, the simulator is to find.
        unsafe { stream.launch_builder(&wait_for_ever).launch(grid(1, 64)) }.unwrap();
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_LAUNCH_TIMEOUT);
    });
    let finding = program.run_to_finding("deadlock");
    assert_eq!(finding["place"]["kernel"], "wait_for_ever");
}

#[test]
fn a_trap() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let give_up = kernel(&context, "give_up");
        // SAFETY: no parameters.
        unsafe { stream.launch_builder(&give_up).launch(grid(1, 1)) }.unwrap();
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_LAUNCH_FAILED);
    });
    assert_eq!(program.run_to_finding("trap")["place"]["ptx_line"], marked("trap"));
}

#[test]
fn checks_can_be_left_out() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let mut y = stream.alloc_zeros::<u32>(1).unwrap();
        let collide = kernel(&context, "collide");
        // SAFETY: the stores are within y, and nobody looks at which came last.
        unsafe { stream.launch_builder(&collide).arg(&mut y).launch(grid(2, 1)) }.unwrap();
        stream.synchronize().unwrap();
    });
    program.run_clean(&[("KILN_SIM_CHECKS", "0")]);
}

#[test]
fn the_status_of_a_program_that_fails_is_not_hidden_by_what_it_left() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        std::mem::forget(stream.alloc_zeros::<u32>(1).unwrap());
        println!("the program came to its end");
        std::process::exit(3);
    });
    let ended = program.run(&[]);
    assert_eq!((ended.status, ended.findings.len()), (Some(3), 0), "{}", ended.stderr);
}
