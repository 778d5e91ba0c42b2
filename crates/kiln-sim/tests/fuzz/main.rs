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

/// Work grows with the length of a text and not with its square: these would take hours.
#[test]
fn long_texts_come_to_an_end() {
    let kernel = |body: &str| {
        format!(
            ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n.reg .b32 %r<9>;\n{body}\nret;\n}}\n"
        )
    };
    let many = |part: &str| part.repeat(300_000);
    let refused = [
        kernel(&format!("mov.u32 %r1, %r{};", many("7"))),
        kernel(&format!("mov.u32 %r1, {};", many("7"))),
        kernel(&format!("mov{} %r1, %r2;", many(".u32"))),
        kernel(&format!("add.u32 %r1{};", many(", %r2"))),
        kernel(&format!("bra {};", many("x"))),
        kernel(&many("{ mov.u32 %r1, %r2; ")),
        kernel(&many("} ")),
        kernel(&many("[(")),
        kernel(&format!("/*{}", many("/*"))),
        kernel(&format!(".pragma \"{}", many("a"))),
        kernel(&many(".reg .b32 x; ")),
        kernel(&many("$here: ")),
        many(".global .u32 x;"),
        many(".version "),
        many("\0"),
    ];
    for text in refused {
        assert_eq!(attempt(&text), Outcome::Refused, "{}..", &text[..text.len().min(120)]);
    }
    let labels: String = (0..100_000).map(|n| format!("$l{n}: bra $l{n};\n")).collect();
    for body in [labels, many("mov.u32 %r1, %r2;\n"), many(";"), many("// x\n"), many("{ }")] {
        let text = kernel(&format!("ret;\n{body}"));
        assert_eq!(attempt(&text), Outcome::Loaded { launched: 1 }, "{}..", &text[..200]);
    }
}
