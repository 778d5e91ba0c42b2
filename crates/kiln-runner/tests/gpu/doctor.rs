//! `kiln doctor`.

use super::{Driver, Run, command, run};
use crate::tiny::tiny_data;

fn doctor(driver: Driver, settings: &[(&str, &str)]) -> Run {
    let data = tiny_data();
    let arguments = ["doctor", "--data-dir", data.path().to_str().unwrap()];
    run(command(driver, settings), &arguments, tempfile::tempdir().unwrap())
}

impl Run {
    /// The verdicts and details of the checks of a name.
    fn checks(&self, name: &str) -> Vec<(&str, &str)> {
        let line = |line: &'_ str| -> Option<(usize, usize)> {
            let rest = line.strip_prefix(name)?.strip_prefix(' ')?.trim_start();
            let verdict = rest.split(' ').next()?;
            Some((line.len() - rest.len(), verdict.len()))
        };
        let found = self.stdout.lines().filter_map(|text| {
            let (at, len) = line(text)?;
            Some((&text[at..at + len], text[at + len..].trim_start()))
        });
        found.collect()
    }

    fn last(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }
}

#[test]
fn a_device_that_works_is_ok_and_the_simulator_is_called_one() {
    let run = doctor(Driver::Simulator, &[("PATH", "/nowhere")]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert!(run.last().starts_with("Training runs on Kiln's simulator: "), "{}", run.stdout);
    assert_eq!(run.checks("cpu")[0].0, "ok");
    assert_eq!(
        run.checks("driver"),
        [("ok", "CUDA 12.8; the kernels need 12.4 (driver branch R550) or newer")]
    );
    let device = run.checks("device 0");
    assert!(
        device[0].0 == "ok" && device[0].1.starts_with("Kiln simulator (sm_90), sm_90, 132 multi"),
        "{device:?}"
    );
    assert!(device[0].1.ends_with("227 KiB of shared memory a block, clusters"), "{device:?}");
    assert!(device[1].0 == "warning" && device[1].1.contains("simulator, not a GPU"), "{device:?}");
    assert!(run.checks("memory 0")[0].1.ends_with("GiB free"));
    let kernels = run.checks("kernels 0");
    assert_eq!(kernels.iter().map(|kernel| kernel.0).collect::<Vec<_>>(), ["ok"; 3]);
    // Of the resident engine: clusters and grids, of pixels and floats, timed and not, two kernels each, and one that makes each of four inputs.
    let f32 = "f32: 48 for graph, 39 for wide layers on it, 20 for resident";
    assert!(kernels[0].1 == f32 && kernels[2].1.starts_with("bf16: "), "{kernels:?}");
    let test = run.checks("self-test 0");
    assert!(test[0].0 == "ok" && test[0].1.starts_with("54 steps, losses within "), "{test:?}");
    let resident = run.checks("resident 0");
    assert!(resident[0].0 == "ok" && resident[0].1.starts_with("54 steps, losses within "), "{resident:?}");
    assert!(run.checks("data")[0].1.starts_with("mnist: 40 and 10 samples in "), "{}", run.stdout);
    assert_eq!((run.checks("nsys")[0].0, run.checks("ncu")[0].0), ("warning", "warning"));
}

#[test]
fn json_says_the_same() {
    let data = tiny_data();
    let arguments = ["doctor", "--json", "--precision", "tf32", "--data-dir", data.path().to_str().unwrap()];
    let run = run(
        command(Driver::Simulator, &[("KILN_SIM_ARCH", "sm_80")]),
        &arguments,
        tempfile::tempdir().unwrap(),
    );
    let found: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, found["outcome"].as_str()), (Some(0), Some("simulator")));
    let checks = found["checks"].as_array().unwrap();
    let device = checks.iter().find(|check| check["name"] == "device 0").unwrap();
    assert_eq!(device["verdict"], "ok");
    assert!(device["detail"].as_str().unwrap().ends_with("no clusters"), "{device}");
    let kernels: Vec<_> = checks.iter().filter(|check| check["name"] == "kernels 0").collect();
    let [kernels] = kernels[..] else { panic!("expected one precision, found {kernels:?}") };
    assert!(kernels["detail"].as_str().unwrap().starts_with("tf32: "), "{kernels}");
}

#[test]
fn without_a_driver_or_a_device_the_host_trains() {
    let run = doctor(Driver::None, &[]);
    assert_eq!((run.code, run.last()), (Some(0), "No GPU: the host engine is used."), "{}", run.stdout);
    assert!(
        run.checks("driver")[0].0 == "warning"
            && run.checks("driver")[0].1.contains("libcuda.so was not found")
    );
    // 100 is CUDA_ERROR_NO_DEVICE.
    let run = doctor(Driver::Shim, &[("SHIM_INIT", "100")]);
    assert_eq!((run.code, run.last()), (Some(0), "No GPU: the host engine is used."), "{}", run.stdout);
    assert!(
        run.checks("devices")[0].0 == "warning" && run.checks("devices")[0].1.contains("finds no device")
    );
}

#[test]
fn what_is_broken_is_named_and_is_exit_code_1() {
    let broken = |driver, settings: &[(&str, &str)], check: &str, reason: &str| {
        let run = doctor(driver, settings);
        let found = run.checks(check);
        let failed = found.iter().find(|found| found.0 == "FAILED");
        assert!(failed.is_some_and(|found| found.1.contains(reason)), "{settings:?}: {}", run.stdout);
        assert_eq!(run.code, Some(1), "{settings:?}");
        assert!(
            run.last().starts_with("Something is broken") && run.stderr.contains(" checks failed"),
            "{}",
            run.stderr
        );
    };
    let update = "CUDA 12.2, but the kernels need 12.4: update NVIDIA's driver to branch R550 or newer";
    broken(Driver::Simulator, &[("KILN_SIM_DRIVER", "12020")], "driver", update);
    broken(
        Driver::Shim,
        &[("SHIM_CAPABILITY", "75")],
        "device 0",
        "compute capability 7.5, expected 8.0 or newer",
    );
    // 803 is CUDA_ERROR_SYSTEM_DRIVER_MISMATCH.
    broken(Driver::Shim, &[("SHIM_INIT", "803")], "devices", "does not start");
    broken(Driver::Simulator, &[("KILN_SIM_FAULT", "launch@9")], "self-test 0", "one of the steps 0..18");
    broken(Driver::Simulator, &[("KILN_SIM_FAULT", "oom>1")], "self-test 0", "GPU memory: ");
}

#[test]
fn data_that_is_missing_is_a_warning_and_data_that_lies_is_a_failure() {
    let data = tiny_data();
    let arguments = ["doctor", "--data-dir", data.path().to_str().unwrap()];
    let check = || run(command(Driver::None, &[]), &arguments, tempfile::tempdir().unwrap());
    std::fs::write(data.path().join("mnist/train-labels-idx1-ubyte"), b"<!doctype html>").unwrap();
    let found = check();
    assert!(found.code == Some(1) && found.checks("data")[0].0 == "FAILED", "{}", found.stdout);
    assert!(found.checks("data")[0].1.contains("magic"), "{}", found.stdout);
    std::fs::remove_dir_all(data.path().join("mnist")).unwrap();
    let found = check();
    assert!(found.code == Some(0) && found.checks("data")[0].0 == "warning", "{}", found.stdout);
    assert!(found.checks("data")[0].1.ends_with("`kiln train` fetches it"), "{}", found.stdout);
    let file = data.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let arguments = ["doctor", "--data-dir", file.to_str().unwrap()];
    let found = run(command(Driver::None, &[]), &arguments, tempfile::tempdir().unwrap());
    assert!(found.code == Some(1) && found.checks("data")[0].0 == "FAILED", "{}", found.stdout);
    assert!(
        found.checks("data")[0].1.ends_with("expected a folder, found something else"),
        "{}",
        found.stdout
    );
}
