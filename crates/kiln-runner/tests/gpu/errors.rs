//! Errors that a user of the graph engine meets: each says what was wrong, and what helps.

use super::{Driver, Run, train};

fn fails(driver: Driver, settings: &[(&str, &str)], flags: &[&str], expected: &[&str]) -> Run {
    let run = train(driver, settings, &[&["--engine", "graph"], flags].concat());
    assert_eq!(run.code, Some(1), "{settings:?} {flags:?}: {}", run.stderr);
    for text in expected {
        assert!(run.stderr.contains(text), "{settings:?} {flags:?}: expected {text:?} in {}", run.stderr);
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run
}

const DOCTOR: &str = "help: `kiln doctor` checks the driver and the devices; --engine host trains on the CPU";

#[test]
fn no_driver_no_device_no_such_device() {
    fails(Driver::None, &[], &[], &["no CUDA driver: libcuda.so was not found", DOCTOR]);
    fails(Driver::Shim, &[("SHIM_INIT", "100")], &[], &["the CUDA driver finds no device", DOCTOR]);
    fails(
        Driver::Simulator,
        &[],
        &["--device", "1"],
        &["device 1 asked for, expected a number below 1", DOCTOR],
    );
    // 803 is CUDA_ERROR_SYSTEM_DRIVER_MISMATCH.
    let broken = ["the CUDA driver does not start: ", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", DOCTOR];
    fails(Driver::Shim, &[("SHIM_INIT", "803")], &[], &broken);
}

#[test]
fn a_driver_or_a_device_that_is_too_old() {
    let old = ["the driver supports CUDA 12.2, expected 12.4 or newer (driver R550)", DOCTOR];
    fails(Driver::Simulator, &[("KILN_SIM_DRIVER", "12020")], &[], &old);
    let old = ["Kiln simulator (sm_90) has compute capability 7.5, expected 8.0 or newer", DOCTOR];
    fails(Driver::Shim, &[("SHIM_CAPABILITY", "75")], &[], &old);
}

#[test]
fn without_a_usable_gpu_auto_trains_on_the_host_and_says_why() {
    let cases = [
        (Driver::None, ("SHIM_INIT", ""), "libcuda.so was not found"),
        (Driver::Simulator, ("KILN_SIM_DRIVER", "12020"), "the driver supports CUDA 12.2"),
        (Driver::Shim, ("SHIM_CAPABILITY", "75"), "compute capability 7.5"),
    ];
    for (driver, setting, reason) in cases {
        let run = train(driver, &[setting], &[]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let line = run.stdout.lines().next().unwrap();
        assert!(line.starts_with("Engine: host, ") && line.contains(reason), "{line}");
    }
    let run = train(Driver::None, &[], &["--micro-batch", "8", "--team", "grid", "--device", "1"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    let run = train(Driver::None, &[], &["--micro-batch", "8", "--device", "1"]);
    let line = run.stdout.lines().next().unwrap();
    assert!(line.ends_with("; --micro-batch and --device have no effect on it)"), "{line}");
}

#[test]
fn too_little_memory() {
    let flags = "help: `kiln train` needs less with --micro-batch, which computes a batch in parts, a smaller --batch or narrower --layers";
    // 16 x 40000 + 40000 + 40000 x 10 values of 4 bytes, and ten, for which twelve have room.
    let what = ["GPU memory: parameters: 4320048 bytes asked for, ", " of 4194304 free", flags];
    fails(Driver::Simulator, &[("KILN_SIM_MEMORY", "4m")], &["--layers", "16,40000,10"], &what);
    // 40 rows of 32768 values; parameters and velocities are 3.5 MB each.
    let what = ["GPU memory: activations: 5242880 bytes asked for, ", flags];
    let settings = [("KILN_SIM_FAULT", "oom>7m")];
    fails(Driver::Simulator, &settings, &["--layers", "16,32768,10", "--batch", "40"], &what);
    fails(
        Driver::Simulator,
        &[("KILN_SIM_FAULT", "oom>1")],
        &[],
        &["GPU memory: ", "bytes asked for, ", flags],
    );
    // What was freed may only come back when the device has been waited for: one refusal is none.
    let run = train(Driver::Simulator, &[("KILN_SIM_FAULT", "oom@1")], &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

/// The advice helps: gradients of the parts take less than the activations of the whole.
#[test]
fn parts_of_a_batch_need_less_memory() {
    let settings = [("KILN_SIM_FAULT", "oom>13m")];
    let flags = ["--layers", "16,32768,10", "--batch", "40"];
    fails(Driver::Simulator, &settings, &flags, &["GPU memory: activations: ", "--micro-batch"]);
    let run = train(Driver::Simulator, &settings, &[&flags[..], &["--micro-batch", "4"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let line = run.stdout.lines().next().unwrap();
    assert!(line.starts_with("Engine: graph, ") && line.contains(", batches in parts of 4 ("), "{line}");
}

/// A kernel of the 25th step fails. Each step is three launches: a layer, the head, and the gradients of weights; after every
/// submission there is one more. Before the second epoch stand 20 steps, 16 of them together, so 5 submissions, one
/// sum, and an evaluation: three launches and a sum.
#[test]
fn a_kernel_that_fails_is_named_where_kernels_are_waited_for() {
    let first_epoch = 20 * 3 + 5 + 1 + 4;
    // Of step 24, which is the ninth of sixteen submitted together, the head.
    let at = format!("launch@{}", first_epoch + 4 * 3 + 2);
    let settings = [("KILN_SIM_FAULT", at.as_str())];
    let named = ["epoch 2: GPU: step 24: running head_softmax_cross_entropy with B 2, K 8, N 10: "];
    let run = fails(Driver::Simulator, &settings, &["--submission", "synchronous"], &named);
    assert!(!run.stderr.contains("help: "), "{}", run.stderr);
    let help =
        "help: run it again with --submission synchronous to learn which step failed, and in which kernel";
    fails(
        Driver::Simulator,
        &settings,
        &["--submission", "direct"],
        &["epoch 2: GPU: one of the steps 20..", help],
    );
    let settings = [("KILN_SIM_FAULT", "launch@50")];
    fails(Driver::Simulator, &settings, &[], &["epoch 1: GPU: one of the steps 0..20: ", help]);
    // What was there after the first epoch stays.
    let settings = [("KILN_SIM_FAULT", at.as_str())];
    let run = fails(Driver::Simulator, &settings, &["--submission", "direct"], &[]);
    assert_eq!(std::fs::read_dir(run.out.path()).unwrap().count(), 3);
}
