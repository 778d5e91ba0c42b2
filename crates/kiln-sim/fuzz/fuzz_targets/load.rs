//! Arbitrary bytes as PTX: loaded or refused, and what loads is launched for a short while.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzz/attempt.rs"]
mod attempt;

fuzz_target!(|bytes: &[u8]| {
    attempt::attempt(&String::from_utf8_lossy(bytes));
});
