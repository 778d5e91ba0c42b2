//! Loads mutated PTX by the million: each input must load or be refused, without a panic, and in its time.
//!
//! ```text
//! cargo run --release -p kiln-sim --example fuzz -- [INPUTS] [SEED] [FIRST]
//! ```
//!
//! With one input, its text is printed. What loads is launched for a few instructions too. The inputs are a function of the seed. A panic or a hang is reported
//! with its input, which is written to the current folder, and fails the run.

#[path = "../tests/fuzz/attempt.rs"]
mod attempt;
#[path = "../tests/fuzz/mutate.rs"]
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use attempt::{Outcome, attempt};
use mutate::Corpus;

/// An input that takes longer is called a hang.
const SLOW: Duration = Duration::from_secs(5);

/// What the workers have counted.
#[derive(Default)]
struct Counts {
    next: AtomicU64,
    refused: AtomicU64,
    loaded: AtomicU64,
    launched: AtomicU64,
    bad: AtomicU64,
    slowest: AtomicU64,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let (inputs, seed) = (arguments.next().unwrap_or(1_000_000), arguments.next().unwrap_or(0));
    let first = arguments.next().unwrap_or(0);
    let corpus = Corpus::read();
    let counts = Counts { next: AtomicU64::new(first), ..Counts::default() };
    if inputs == 1 {
        println!("{}", corpus.input(seed, first));
    }
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| {
            scope.spawn(|| work(&corpus, &counts, first + inputs, seed));
        });
    });
    let get = |count: &AtomicU64| count.load(Relaxed);
    println!(
        "{inputs} inputs from seed {seed} in {:.0} s on {threads} threads: {} refused, {} loaded, {} kernels launched; \
         slowest {:.1} ms, input {}; {} panics or hangs",
        begun.elapsed().as_secs_f64(),
        get(&counts.refused),
        get(&counts.loaded),
        get(&counts.launched),
        (get(&counts.slowest) >> 32) as f64 / 1000.0,
        get(&counts.slowest) & 0xffff_ffff,
        get(&counts.bad),
    );
    if get(&counts.bad) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(corpus: &Corpus, counts: &Counts, end: u64, seed: u64) {
    loop {
        let number = counts.next.fetch_add(1, Relaxed);
        if number >= end {
            return;
        }
        let text = corpus.input(seed, number);
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| attempt(&text)));
        let took = begun.elapsed();
        // The time above, the number below: the greater of two is the slower.
        counts.slowest.fetch_max((took.as_micros() as u64) << 32 | number & 0xffff_ffff, Relaxed);
        match outcome {
            Ok(Outcome::Refused) => counts.refused.fetch_add(1, Relaxed),
            Ok(Outcome::Loaded { launched }) => {
                counts.launched.fetch_add(launched, Relaxed);
                counts.loaded.fetch_add(1, Relaxed)
            }
            Err(_) => report(&text, number, "panic", counts),
        };
        if took > SLOW {
            report(&text, number, "hang", counts);
        }
    }
}

fn report(text: &str, number: u64, what: &str, counts: &Counts) -> u64 {
    let name = format!("fuzz-{what}-{number}.ptx");
    eprintln!("{what} at input {number}: {name}");
    std::fs::write(name, text).expect("the input can be written");
    counts.bad.fetch_add(1, Relaxed)
}
