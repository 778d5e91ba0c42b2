//! Schedules against learning rates recorded from PyTorch's schedulers: `tests/golden/schedules.py` names the cases.

use kiln_engine::{Curve, OneCycle, Schedule};

const RECORDED: &str = include_str!("../../../tests/golden/schedules.tsv");

/// Relative: PyTorch multiplies its way from step to step where it can, which costs it some 2e-15 over the recorded steps.
const BOUND: f64 = 1e-12;

/// Name, learning rate of the optimizer, and schedule of each case.
fn cases() -> [(&'static str, f64, Schedule); 12] {
    let after = |warmup_steps, curve| Schedule { warmup_steps, curve };
    let step = |every_steps, gamma| Curve::Step { every_steps, gamma };
    let cosine = |half_period_steps, min_lr| Curve::Cosine { half_period_steps, min_lr };
    let cycle = Curve::OneCycle;
    let early = OneCycle { pct_start: 0.0, ..OneCycle::new(0.5, 200) };
    let late = OneCycle { pct_start: 1.0, ..OneCycle::new(0.5, 200) };
    let warm =
        OneCycle { pct_start: 0.45, div_factor: 10.0, final_div_factor: 100.0, ..OneCycle::new(0.2, 257) };
    [
        ("constant", 0.1, after(0, Curve::Constant)),
        ("constant-warmup", 0.1, after(10, Curve::Constant)),
        ("step", 0.1, after(0, step(30, 0.5))),
        ("step-every", 0.1, after(0, step(1, 0.99))),
        ("step-warmup", 0.1, after(1, step(37, 0.3))),
        ("cosine", 0.1, after(0, cosine(100, 0.0))),
        ("cosine-min", 0.1, after(0, cosine(211, 0.001))),
        ("cosine-warmup", 0.03, after(25, cosine(290, 0.0001))),
        ("one-cycle", 0.1, after(0, cycle(OneCycle::new(0.5, 300)))),
        ("one-cycle-early", 0.1, after(0, cycle(early))),
        ("one-cycle-late", 0.1, after(0, cycle(late))),
        ("one-cycle-warmup", 0.1, after(20, cycle(warm))),
    ]
}

/// A recorded column; `None` where PyTorch has no further step.
fn recorded(name: &str) -> Vec<Option<f64>> {
    let mut lines = RECORDED.lines();
    let column = lines.next().and_then(|names| names.split('\t').position(|found| found == name));
    let column = column.unwrap_or_else(|| panic!("{name} is not recorded"));
    let cell = |line: &str| line.split('\t').nth(column).expect("as many cells as names").parse().ok();
    lines.map(cell).collect()
}

/// Largest relative difference from the recording of the schedule moved by `shift` steps, and where; NaN is the largest.
fn worst(name: &str, lr: f64, schedule: &Schedule, shift: u64) -> (f64, usize) {
    let mut worst = (0.0, 0);
    for (step, recorded) in recorded(name).into_iter().enumerate() {
        let Some(recorded) = recorded else { continue };
        let got = schedule.lr(lr, step as u64 + shift);
        let gap = if got == recorded { 0.0 } else { (got - recorded).abs() / recorded };
        if gap.is_nan() || gap > worst.0 {
            worst = (gap, step);
        }
    }
    worst
}

#[test]
fn every_schedule_is_pytorchs() {
    let names: Vec<&str> = RECORDED.lines().next().unwrap().split('\t').collect();
    assert_eq!(names, cases().map(|case| case.0), "every recorded case is compared");
    for (name, lr, schedule) in cases() {
        assert_eq!(recorded(name).len(), 321, "{name}");
        assert!(recorded(name)[..200].iter().all(Option::is_some), "{name}");
        schedule.check().unwrap();
        let (gap, step) = worst(name, lr, &schedule, 0);
        println!("{name}: {gap:.1e} of {BOUND:e}, at step {step}");
        assert!(gap <= BOUND, "{name}: step {step} is off by {gap:e}");
    }
}

#[test]
fn a_schedule_that_is_one_step_ahead_is_found() {
    for (name, lr, schedule) in cases().into_iter().filter(|case| case.0 != "constant") {
        let (gap, _) = worst(name, lr, &schedule, 1);
        assert!(gap > 1e-4, "{name}: {gap:e}");
    }
}

/// PyTorch raises after the last step of a cycle; a run that goes on keeps its last learning rate.
#[test]
fn a_cycle_that_is_over_keeps_its_last_learning_rate() {
    for (name, lr, schedule) in cases().into_iter().filter(|case| case.0.starts_with("one-cycle")) {
        let recorded = recorded(name);
        let end = recorded.iter().position(Option::is_none).expect("the recording ends");
        let last = recorded[end - 1].unwrap();
        for step in [end, end + 1, 10 * end] {
            let gap = (schedule.lr(lr, step as u64) - last).abs() / last;
            assert!(gap <= BOUND, "{name}: step {step} is off by {gap:e}");
        }
    }
}
