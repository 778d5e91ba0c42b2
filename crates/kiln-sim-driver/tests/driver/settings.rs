//! `KILN_SIM_*`.

use std::collections::BTreeSet;

use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, PushKernelArg};

use crate::child::Program;
use crate::program::{attribute, code, device, grid, kernel};

#[test]
fn every_architecture_has_its_own_limits() {
    let program = Program::new(|| {
        let context = CudaContext::new(0).unwrap();
        let value = |name| attribute(&context, name);
        let (major, minor) = context.compute_capability().unwrap();
        println!(
            "limits {major}.{minor} {} {} {} {}",
            value(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            value(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR),
            value(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR),
            value(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH),
        );
        println!("name {}", context.name().unwrap());
    });
    // CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
    for (arch, limits) in [
        ("sm_80", "8.0 166912 167936 2048 0"),
        ("sm_86", "8.6 101376 102400 1536 0"),
        ("sm_89", "8.9 101376 102400 1536 0"),
        ("sm_90", "9.0 232448 233472 2048 1"),
        ("sm_100", "10.0 232448 233472 2048 1"),
        ("sm_120", "12.0 101376 102400 1536 1"),
    ] {
        let ended = program.run_clean(&[("KILN_SIM_ARCH", arch)]);
        assert!(ended.stdout.contains(&format!("limits {limits}\n")), "{arch}: {}", ended.stdout);
        assert!(ended.stdout.contains(&format!("name Kiln simulator ({arch})\n")), "{}", ended.stdout);
    }
}

#[test]
fn wrong_settings_are_refused_and_named() {
    let program = Program::new(|| {
        assert_eq!(code(CudaContext::new(0)), CUresult::CUDA_ERROR_INVALID_VALUE);
    });
    for (name, value) in [
        ("KILN_SIM_ARCH", "sm_75"),
        ("KILN_SIM_DEVICES", "0"),
        ("KILN_SIM_MEMORY", "much"),
        ("KILN_SIM_SEED", "-1"),
        ("KILN_SIM_THREADS", "none"),
        ("KILN_SIM_FUEL", "0"),
        ("KILN_SIM_CHECKS", "2"),
        ("KILN_SIM_FAULT", "fire@1"),
        ("KILN_SIM_REPORT", "/no such folder/report"),
    ] {
        let ended = program.run(&[(name, value)]);
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        let message = format!("kiln-sim: cuInit: {name}={value}: expected ");
        assert!(ended.stderr.contains(&message), "{}", ended.stderr);
    }
}

#[test]
fn a_seed_gives_one_order_and_another_seed_another() {
    let program = Program::new(|| {
        let (context, stream) = device();
        let queue_up = kernel(&context, "queue_up");
        let mut order = stream.alloc_zeros::<u32>(16).unwrap();
        let mut count = stream.alloc_zeros::<u32>(1).unwrap();
        let mut launch = stream.launch_builder(&queue_up);
        // SAFETY: 16 blocks of one thread write one word each.
        unsafe { launch.arg(&mut order).arg(&mut count).launch(grid(16, 1)) }.unwrap();
        println!("order {:?}", stream.clone_dtoh(&order).unwrap());
    });
    let order = |settings: &[(&str, &str)]| {
        let ended = program.run_clean(settings);
        ended.stdout.lines().find(|line| line.starts_with("order ")).unwrap().to_owned()
    };
    assert_eq!(order(&[]), order(&[]));
    let seeds = ["0", "1", "2", "3", "4", "5"];
    let orders: Vec<String> = seeds.iter().map(|seed| order(&[("KILN_SIM_SEED", seed)])).collect();
    assert_eq!(orders[3], order(&[("KILN_SIM_SEED", "3")]));
    assert!(orders.iter().collect::<BTreeSet<_>>().len() > 1, "{orders:?}");
}

#[test]
fn memory_and_fuel_can_be_short() {
    let program = Program::new(|| {
        let (context, stream) = device();
        assert_eq!(context.total_mem().unwrap(), 1 << 20);
        assert_eq!(code(stream.alloc_zeros::<u8>((1 << 20) + 1)), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let whole = stream.alloc_zeros::<u8>(1 << 20).unwrap();
        assert_eq!(context.mem_get_info().unwrap(), (0, 1 << 20));
        drop(whole);
        let mut y = stream.alloc_zeros::<u32>(1).unwrap();
        let count_to = kernel(&context, "count_to");
        let mut launch = stream.launch_builder(&count_to);
        // SAFETY: the kernel writes y[0].
        unsafe { launch.arg(&mut y).arg(&100_000_u32).launch(grid(1, 1)) }.unwrap();
        assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_LAUNCH_TIMEOUT);
    });
    let ended = program.run(&[("KILN_SIM_MEMORY", "1m"), ("KILN_SIM_FUEL", "1000")]);
    assert_eq!((ended.status, ended.findings.len()), (Some(86), 1), "{}", ended.stderr);
    assert_eq!(ended.findings[0]["kind"], "out-of-fuel");
}

#[test]
fn a_report_file_is_added_to() {
    let program = Program::new(|| {
        let (_context, stream) = device();
        std::mem::forget(stream.alloc_zeros::<u32>(1).unwrap());
    });
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.jsonl");
    for run in 1..=2 {
        program.run(&[("KILN_SIM_REPORT", report.to_str().unwrap())]);
        assert_eq!(std::fs::read_to_string(&report).unwrap().lines().count(), run);
    }
}
