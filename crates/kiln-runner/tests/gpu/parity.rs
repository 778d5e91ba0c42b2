//! `kiln parity` on the engines for GPUs.

use std::path::Path;

use tempfile::tempdir;

use super::{Driver, Run, command, run};
#[cfg(feature = "reference")]
use crate::tiny::tiny_data;

fn parity(arguments: &[&str]) -> Run {
    run(command(Driver::Simulator, &[]), &[&["parity"], arguments].concat(), tempdir().unwrap())
}

/// A trajectory that an engine is not made for does not keep it from the others.
#[test]
fn trajectories_that_do_not_fit_are_told_and_the_others_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let [adamw, odd] =
        ["adamw-23-17-3", "odd-37-19-5"].map(|name| folder.join(format!("{name}.safetensors")));
    let found = parity(&["--engine", "resident", adamw.to_str().unwrap(), odd.to_str().unwrap()]);
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    assert!(
        found.stdout.starts_with("Engine: resident, Kiln simulator (sm_90), sm_90, "),
        "{}",
        found.stdout
    );
    assert!(found.stdout.contains("odd-37-19-5: ok"), "{}", found.stdout);
    let (why, count) = (
        "adamw-23-17-3.safetensors: resident engine: optimizer: expected SGD",
        "1 of 2 trajectories could not be replayed and compared",
    );
    assert!(found.stderr.contains(why) && found.stderr.contains(count), "{}", found.stderr);
}

/// In lower precision each step is compared with candle that rounds the same operands, by a bound of its own.
#[cfg(feature = "reference")]
#[test]
fn trajectories_in_lower_precision_are_followed_step_by_step() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/mse-13-32-1.safetensors");
    for (engine, precision, gradient) in [("graph", "tf32", "1.9e-4"), ("resident", "bf16", "9.9e-4")] {
        let found = parity(&["--engine", engine, "--precision", precision, golden.to_str().unwrap()]);
        assert_eq!(found.code, Some(0), "{engine}: {}{}", found.stdout, found.stderr);
        let lines: Vec<&str> = found.stdout.lines().collect();
        assert_eq!(lines[1], "mse-13-32-1: ok");
        let bounds = [("loss", "1.0e-4"), ("gradient", gradient), ("parameter", "1.0e-4")];
        for (line, (what, bound)) in lines[2..].iter().zip(bounds) {
            assert!(
                line.starts_with(&format!("  {what} ")) && line.contains(&format!(" of {bound} (")),
                "{line}"
            );
        }
        assert!(lines.len() == 5 && lines[4].contains(" at step "), "{}", found.stdout);
    }
}

/// Gradients of random models beside candle's.
#[cfg(feature = "reference")]
#[test]
fn gradients_of_random_models_are_candles() {
    for (engine, tensors) in [("host", 60), ("graph", 60), ("resident", 40)] {
        let found = parity(&["--random", "--seed", "3", "--engine", engine]);
        assert_eq!(found.code, Some(0), "{engine}: {}{}", found.stdout, found.stderr);
        assert!(found.stdout.starts_with(&format!("Engine: {engine}")), "{}", found.stdout);
        let rows = found.stdout.lines().filter(|line| line.ends_with("  ok")).count();
        assert_eq!(rows, tensors, "{engine}: {}", found.stdout);
    }
    // Deep models in tf32, where borders part most values, and ones in bf16 of which many samples have a unit near the kink of ReLU.
    let lower = [
        ("graph", "tf32", "7"),
        ("graph", "bf16", "3"),
        ("resident", "tf32", "3"),
        ("resident", "bf16", "3"),
    ];
    for (engine, precision, seed) in lower {
        let found = parity(&["--random", "--engine", engine, "--precision", precision, "--seed", seed]);
        assert_eq!(found.code, Some(0), "{engine}: {}{}", found.stdout, found.stderr);
        let rows = found.stdout.lines().filter(|line| line.ends_with("  ok")).count();
        assert_eq!(rows, if engine == "graph" { 60 } else { 40 }, "{engine}: {}", found.stdout);
    }
}

#[cfg(feature = "reference")]
#[test]
fn what_the_reference_cannot_do_is_told() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tail-batch.safetensors");
    let golden = golden.to_str().unwrap();
    // Before anything is replayed.
    let found = parity(&["--random", "--engine", "reference-f32", golden]);
    assert_eq!((found.code, found.stdout.as_str()), (Some(2), ""));
    assert!(found.stderr.contains("expected --engine host, graph or resident"), "{}", found.stderr);
    let found = parity(&["--seed", "7", golden]);
    assert_eq!(found.code, Some(2));
    assert!(found.stderr.contains("--random"), "{}", found.stderr);
    // 40 samples where the recording is of 60000.
    let data = tiny_data();
    for engine in ["reference-f64", "host"] {
        let found = parity(&["--engine", engine, "--data-dir", data.path().to_str().unwrap(), golden]);
        assert_eq!(found.code, Some(1), "{engine}: {}", found.stderr);
        assert!(found.stderr.contains("expected 60000 samples of MNIST, found 40"), "{}", found.stderr);
    }
}
