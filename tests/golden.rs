//! Every golden trajectory, on the host engine and on the reference.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::LazyLock;

use kiln_data::Dataset;
use kiln_parity::{Golden, Recording, Report, compare};
use kiln_runner::replay;
use kiln_runner::replay::reference::Precision;

static MNIST: LazyLock<Dataset> = LazyLock::new(kiln_tests::mnist);

const NAMES: [&str; 5] =
    ["seed-784-128-10", "tail-batch", "mse-13-32-1", "deep-784-64-48-32-10", "odd-37-19-5"];

fn reports(run: impl Fn(&Golden) -> Recording) -> Vec<Report> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let report = |name: &str| {
        let golden = Golden::read(&folder.join(format!("{name}.safetensors"))).unwrap();
        assert_eq!(golden.name, name);
        compare(&golden, &run(&golden)).unwrap()
    };
    NAMES.map(report).into()
}

fn host(golden: &Golden, threads: usize) -> Recording {
    replay::host(golden, Some(&MNIST), NonZeroUsize::new(threads)).unwrap()
}

fn assert_all_pass(reports: &[Report]) {
    for report in reports {
        println!("{report}");
    }
    assert!(reports.iter().all(Report::passes), "see the reports above");
}

#[test]
fn host_follows_every_trajectory() {
    assert_all_pass(&reports(|golden| host(golden, 1)));
}

#[test]
fn host_follows_bit_for_bit_on_two_threads() {
    reports(|golden| {
        let run = host(golden, 2);
        assert_eq!(run, host(golden, 1), "{}", golden.name);
        run
    });
}

#[test]
fn the_reference_follows_in_float32() {
    assert_all_pass(&reports(|g| replay::reference::replay(g, Some(&MNIST), Precision::F32).unwrap()));
}

/// In float64 both are the truth, but for the order of their sums: some 1e-15 a step, which hundreds of steps
/// amplify. 1e-9 leaves them room, and is ten thousand times tighter than the bound for float32.
#[test]
fn the_reference_follows_in_float64_to_nine_digits() {
    let reports = reports(|g| replay::reference::replay(g, Some(&MNIST), Precision::F64).unwrap());
    assert_all_pass(&reports);
    for report in &reports {
        for gap in [&report.loss, &report.gradient, &report.parameter] {
            assert!(gap.difference <= 1e-9, "{report}");
        }
    }
}

/// What a trajectory must catch: a learning rate off by a thousandth, a momentum forgotten, a step out of order.
#[test]
fn runs_that_are_slightly_wrong_fail() {
    type Mutation = fn(&mut Golden);
    let mutations: [(&str, Mutation); 4] = [
        ("learning rate", |g| g.optimizer.lr *= 1.001),
        ("momentum", |g| g.optimizer.momentum = 0.49),
        ("order", |g| g.order.swap(0, 20 * 17)),
        ("initial bias", |g| g.init[1].data[0] += 1e-3),
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/odd-37-19-5.safetensors");
    let golden = Golden::read(&path).unwrap();
    for (what, mutate) in mutations {
        let mut wrong = golden.clone();
        mutate(&mut wrong);
        let report = compare(&golden, &replay::host(&wrong, None, None).unwrap()).unwrap();
        assert!(!report.passes(), "{what}: {report}");
    }
}
