//! Mutated PTX is loaded or refused, never more: 20,000 inputs, or as many as `KILN_FUZZ_INPUTS` says.
//!
//! The example `fuzz` does the same by the million, and `fuzz/` with coverage.

mod attempt;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};

use attempt::{Outcome, attempt};
use mutate::Corpus;

#[test]
fn mutated_texts_are_loaded_or_refused() {
    let inputs = match std::env::var("KILN_FUZZ_INPUTS") {
        Ok(count) => count.parse().unwrap(),
        Err(_) => 20_000,
    };
    let corpus = Corpus::read();
    let (mut loaded, mut refused) = (0, 0);
    for number in 0..inputs {
        let text = corpus.input(1, number);
        match catch_unwind(AssertUnwindSafe(|| attempt(&text))) {
            Ok(Outcome::Refused) => refused += 1,
            Ok(Outcome::Loaded { .. }) => loaded += 1,
            Err(_) => panic!("input {number} panics:\n{text}"),
        }
    }
    assert_eq!(loaded + refused, inputs);
    // A fuzzer whose inputs all end at their first line, or all load, tests nothing.
    assert!(loaded * 20 > inputs && refused * 5 > inputs, "{loaded} loaded, {refused} refused");
}
