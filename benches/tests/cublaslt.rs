//! The cuBLASLt peer trains as kiln's host engine does, on a cuBLASLt in C that refuses what the documentation does not allow.

use std::fs;
use std::path::Path;
use std::process::Output;

use kiln_data::{Dataset, Shuffle, Source};
use kiln_engine::{Job, Loss, Mlp, Samples, Schedule, Sgd, Targets, Trainer};
use kiln_tests::shim;
use serde_json::Value;
use tempfile::TempDir;

const HEIGHT: usize = 7;
const WIDTH: usize = 11;
/// No width is a multiple of what matrices are padded to.
const LAYERS: [usize; 4] = [HEIGHT * WIDTH, 37, 21, 10];
/// One large graph, five small ones and a tail of two.
const SAMPLES: usize = 150;
const BATCH: usize = 4;
const EPOCHS: u64 = 3;

/// MNIST's files with images of another size, each class with pixels of its own over noise.
fn data(samples: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mnist");
    fs::create_dir(&folder).unwrap();
    let mut state = 5u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    for (name, count) in [("train", samples), ("t10k", 21)] {
        let labels: Vec<u8> = (0..count).map(|_| noise() % 10).collect();
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, count as u8, 0, 0, 0, HEIGHT as u8, 0, 0, 0, WIDTH as u8];
        for &label in &labels {
            let lit = |pixel: usize| if pixel % 10 == usize::from(label) { 128 } else { 0 };
            images.extend((0..HEIGHT * WIDTH).map(|pixel| noise() / 2 + lit(pixel)));
        }
        fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        let labels = [vec![0, 0, 8, 1, 0, 0, 0, count as u8], labels].concat();
        fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
    dir
}

fn samples(split: &kiln_data::Split) -> Samples<'_> {
    Samples::pixels(&split.images.pixels, split.width(), Targets::Labels(&split.labels)).unwrap()
}

/// Losses of the epochs and test accuracy of kiln's host engine.
fn host(data: &Dataset) -> (Vec<f64>, f64) {
    let job = Job {
        model: Mlp::new(&LAYERS, 0).unwrap(),
        loss: Loss::CrossEntropy,
        optimizer: Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() }.into(),
        schedule: Schedule::default(),
        train: samples(&data.train),
    };
    let mut trainer = Trainer::host(job, 1).unwrap();
    let shuffle = Shuffle::new(data.train.len(), 0);
    let losses = (0..EPOCHS).map(|epoch| trainer.epoch(&shuffle.epoch(epoch), BATCH).unwrap().loss).collect();
    (losses, trainer.evaluate(&samples(&data.test)).unwrap().accuracy.unwrap())
}

fn peer(folder: &Path, data: &TempDir, batch: usize, flags: &[&str], settings: &[(&str, &str)]) -> Output {
    let layers = LAYERS.map(|width| width.to_string()).join(",");
    let program = Path::new(env!("CARGO_BIN_EXE_peer-cublaslt"));
    let mut command = shim::command(program, folder, settings);
    command.arg("--data-dir").arg(data.path());
    command.args(["--layers", &layers, "--batch", &batch.to_string(), "--epochs", &EPOCHS.to_string()]);
    command.args(flags).output().unwrap()
}

/// What a run of the peer printed.
fn trained(data: &TempDir, flags: &[&str], settings: &[(&str, &str)]) -> Value {
    trained_in(BATCH, data, flags, settings)
}

fn trained_in(batch: usize, data: &TempDir, flags: &[&str], settings: &[(&str, &str)]) -> Value {
    let output = peer(shim::cublaslt(), data, batch, flags, settings);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags:?} {settings:?}: {}\n{errors}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The largest difference of an epoch's loss from the host engine's, relative.
fn difference(found: &Value, losses: &[f64]) -> f64 {
    let found = found["epoch_losses"].as_array().unwrap();
    assert_eq!(found.len(), losses.len());
    let pairs = found.iter().map(|loss| loss.as_f64().unwrap_or(f64::NAN)).zip(losses);
    pairs.map(|(found, loss)| ((found - loss) / loss).abs()).fold(0.0, |most, difference| {
        match difference.is_nan() {
            true => f64::INFINITY,
            false => f64::max(most, difference),
        }
    })
}

fn load(data: &TempDir) -> Dataset {
    kiln_data::load(Source::Mnist, data.path()).unwrap()
}

/// Sums of at most 77 terms in float32, in another order than the host's: about 1e-6.
const BOUND: f64 = 1e-5;

#[test]
fn every_choice_of_epilogues_trains_as_the_host_does() {
    let data = data(SAMPLES);
    let (losses, accuracy) = host(&load(&data));
    assert!(losses[2] < 0.97 * losses[0], "the job is not learnt: {losses:?}");
    for epilogues in ["mask-sums", "mask", "sums", "none"] {
        let found = trained(&data, &["--epilogues", epilogues], &[]);
        let difference = difference(&found, &losses);
        assert!(difference <= BOUND, "{epilogues}: {difference:e}: {found}, the host {losses:?}");
        assert_eq!(found["test_accuracy"].as_f64(), Some(accuracy), "{epilogues}");
        assert_eq!(found["epilogues"], epilogues);
    }
}

#[test]
fn lower_precisions_stay_near_the_host() {
    let data = data(SAMPLES);
    let (losses, _) = host(&load(&data));
    // Operands have 11 and 8 bits: 2^-11 and 2^-8 of them, and some of it averages out.
    for (precision, bound) in [("tf32", 5e-4), ("bf16", 4e-3)] {
        for epilogues in ["mask-sums", "none"] {
            let found = trained(&data, &["--precision", precision, "--epilogues", epilogues], &[]);
            let difference = difference(&found, &losses);
            assert!(difference <= bound && difference > 0.0, "{precision}, {epilogues}: {difference:e}");
            assert_eq!(found["precision"], precision);
        }
    }
}

#[test]
fn what_the_library_lacks_is_done_without() {
    let data = data(SAMPLES);
    let (losses, _) = host(&load(&data));
    let found = trained(&data, &[], &[("SHIM_UNSUPPORTED", "152,512")]); // DRELU_BGRAD and BGRADB
    assert!(difference(&found, &losses) <= BOUND);
    assert_eq!(found["epilogues"], "none");
    assert_eq!((&found["versions"]["cublasLt"], &found["name"]), (&"12.4.5".into(), &"cublaslt".into()));
    let tried = &found["epilogues_us"];
    assert!(tried["none"].as_f64().is_some_and(|time| time > 0.0));
    let reason = tried["mask"].as_str().unwrap();
    assert!(reason.contains("DRELU_BGRAD") && reason.contains("NOT_SUPPORTED"), "{reason}");
}

/// No bias gradient is summed by a product of a single row.
#[test]
fn a_tail_of_one_sample_counts() {
    let data = data(BATCH * 5 + 1);
    let (losses, _) = host(&load(&data));
    let found = trained(&data, &[], &[]);
    assert!(difference(&found, &losses) <= BOUND, "{found}, the host {losses:?}");
    assert!(found["epilogues_us"]["mask-sums"].is_string(), "{found}");
}

#[test]
fn a_batch_larger_than_the_data_is_one_step() {
    let data = data(BATCH * 5 + 1);
    let found = trained_in(64, &data, &[], &[]);
    assert!(found["epoch_losses"][2].as_f64() < found["epoch_losses"][0].as_f64());
}

#[test]
fn faults_of_products_are_seen() {
    let data = data(SAMPLES);
    let (losses, _) = host(&load(&data));
    for fault in ["mask", "bias", "sums", "beta", "transpose"] {
        let found = trained(&data, &["--epilogues", "mask-sums"], &[("SHIM_WRONG", fault)]);
        let difference = difference(&found, &losses);
        assert!(difference > 100.0 * BOUND, "{fault}: {difference:e}");
    }
}

#[test]
fn a_missing_library_says_what_to_install() {
    let data = data(SAMPLES);
    let refused = |folder: &Path, words: &[&str]| {
        let output = peer(folder, &data, BATCH, &[], &[]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        let told = errors.lines().last().unwrap(); // what scripts/bench shows
        assert!(words.iter().all(|word| told.contains(word)), "{errors}");
    };
    refused(&shim::no_cublaslt(), &["libcublasLt.so", "install"]);
    refused(&shim::no_driver(), &["libcuda.so", "install"]);
}
