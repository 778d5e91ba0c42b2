//! Kernels with a fault each: the checkers find it, or the results do not match.

use kiln_tests::{on_device, sim, test_name};

use super::*;
use crate::gpu::copies::Format;
use crate::gpu::kernels::{copies_modules, modules, warpgroup_modules};
use crate::gpu::modules::Module;

/// Text of one kernel that is replaced: which kernel, what, and how often it stands there at least.
struct Mutant {
    name: &'static str,
    module: &'static str,
    kernel: &'static str,
    mutate: fn(&str) -> String,
    /// What tells of it: the simulator's exit status, or that of a failed test.
    status: &'static [i32],
}

impl Mutant {
    /// The precision whose module it is.
    fn precision(&self) -> Precision {
        Precision::ALL
            .into_iter()
            .find(|precision| self.module.ends_with(&format!("_{precision}")))
            .unwrap_or_default()
    }
}

/// After a finding.
pub(super) const FOUND: i32 = 86;
/// Of a test that fails.
pub(super) const FAILED: i32 = 101;

const MUTANTS: [Mutant; 47] = [
    Mutant {
        name: "products of warpgroups read copies that no proxy fence covers",
        module: "linear_warpgroups_bf16",
        kernel: "linear_copies_outputs_bf16_warpgroups_128",
        mutate: |text| without_all(text, "fence.proxy.async"),
        status: &[FOUND],
    },
    Mutant {
        name: "warpgroups do not wait for the copies of other warps",
        module: "linear_warpgroups_bf16",
        kernel: "linear_copies_outputs_bf16_warpgroups_128",
        mutate: |text| without(text, "bar.sync", 0),
        status: &[FOUND],
    },
    Mutant {
        name: "a stage is overwritten while warpgroups may multiply it",
        module: "linear_warpgroups_bf16",
        kernel: "linear_copies_outputs_bf16_warpgroups_128",
        mutate: |text| replaced(text, "wgmma.wait_group.sync.aligned 1", "wgmma.wait_group.sync.aligned 2"),
        status: &[FOUND],
    },
    Mutant {
        name: "sums are read before their products have been waited for",
        module: "linear_warpgroups_bf16",
        kernel: "input_gradient_copies_bf16_warpgroups_128",
        mutate: |text| replaced(text, "wgmma.wait_group.sync.aligned 0", "wgmma.wait_group.sync.aligned 1"),
        status: &[FOUND],
    },
    Mutant {
        name: "a matrix is taken for one that is not swizzled",
        module: "linear_warpgroups_bf16",
        kernel: "input_gradient_copies_bf16_warpgroups_128",
        mutate: |text| replaced(text, "4611686293305294848", "274877906944"),
        status: &[FAILED],
    },
    Mutant {
        name: "products follow what sets their sums without a fence",
        module: "weight_gradient_warpgroups_bf16",
        kernel: "weight_gradient_copies_store_bf16_warpgroups_128",
        mutate: |text| without_all(text, "wgmma.fence"),
        status: &[FOUND],
    },
    Mutant {
        name: "a pair of planes is left out that counts",
        module: "linear_copies_bf16x3",
        kernel: "linear_copies_hidden_bf16x3_32",
        // (1, 0) becomes (1, 1).
        mutate: |text| replaced(text, "268370", "284754"),
        status: &[FAILED],
    },
    Mutant {
        name: "the third plane of an operand is not multiplied",
        module: "linear_copies_bf16x3",
        kernel: "input_gradient_copies_bf16x3_32",
        // (0, 2) becomes (1, 2), which weighs less; also where the first pair has gone.
        mutate: |text| replaced(&replaced(text, "268370", "268626"), "16773", "16789"),
        status: &[FAILED],
    },
    Mutant {
        name: "the planes of new weights do not add up to them",
        module: "weight_gradient_copies_bf16x3",
        kernel: "weight_gradient_copies_descent_bf16x3_32",
        mutate: |text| replaced(text, "sub.rn.f32", "add.rn.f32"),
        status: &[FAILED],
    },
    Mutant {
        name: "planes are multiplied that pixels do not have",
        module: "linear_warpgroups_bf16x3",
        kernel: "linear_copies_hidden_bf16x3_warpgroups_128",
        mutate: |text| replaced(&replaced(text, ", 72, 268370,", ", 268370, 268370,"), ", 3, 6,", ", 6, 6,"),
        status: &[FAILED],
    },
    Mutant {
        name: "a fragment of TF32 is transposed as if its values were of 16 bits",
        module: "linear_copies_tf32",
        kernel: "linear_copies_hidden_tf32_32",
        mutate: |text| replaced(text, "m8n8.x4.shared", "m8n8.x4.trans.shared"),
        status: &[FAILED],
    },
    Mutant {
        name: "the gap of a copy in TF32 is read",
        module: "linear_copies_tf32",
        kernel: "input_gradient_copies_tf32_32",
        mutate: |text| replaced(text, "min.u32 \t", "max.u32 \t"),
        status: &[FOUND, FAILED],
    },
    Mutant {
        name: "a stage of TF32 is used one too early",
        module: "weight_gradient_copies_tf32",
        kernel: "weight_gradient_copies_store_tf32_32",
        mutate: |text| replaced(text, "cp.async.wait_group 2", "cp.async.wait_group 3"),
        status: &[FOUND],
    },
    Mutant {
        name: "a head's lanes keep the half that they give away",
        module: "head_f32",
        kernel: "head_softmax_cross_entropy",
        mutate: |text| replaced(text, "shfl.sync.bfly.b32", "shfl.sync.idx.b32"),
        status: &[FAILED],
    },
    Mutant {
        name: "a head's gradient passes where ReLU has cut",
        module: "head_f32",
        kernel: "head_mse_values",
        mutate: |text| replaced(text, "setp.gt.f32", "setp.ge.f32"),
        status: &[FAILED],
    },
    Mutant {
        name: "a head's lanes do not wait for the gradient at the outputs",
        module: "head_f32",
        kernel: "head_softmax_cross_entropy",
        mutate: |text| without_each(text, "bar.warp.sync", &[1, 3]),
        status: &[FOUND],
    },
    Mutant {
        name: "a layer begins one block late",
        module: "weight_gradients_f32",
        kernel: "weight_gradients_pixels_momentum_small",
        mutate: |text| text.replacen("setp.lt.u32", "setp.le.u32", 1),
        status: &[FOUND, FAILED],
    },
    Mutant {
        name: "the gradient passes where ReLU has cut",
        module: "linear_f32",
        kernel: "input_gradient_tiny",
        mutate: |text| replaced(text, "setp.gt.f32", "setp.ge.f32"),
        status: &[FAILED],
    },
    Mutant {
        name: "a fragment of bfloat16 is not transposed",
        module: "weight_gradients_bf16",
        kernel: "weight_gradients_pixels_store_large",
        mutate: |text| replaced(text, "m8n8.x4.trans.shared", "m8n8.x4.shared"),
        status: &[FAILED],
    },
    Mutant {
        name: "operands of TF32 are read before they are staged",
        module: "linear_tf32",
        kernel: "input_gradient_large",
        mutate: |text| without(text, "bar.sync", 0),
        status: &[FOUND],
    },
    Mutant {
        name: "no barrier between staging and use",
        module: "linear_f32",
        kernel: "linear_hidden_relu_large",
        mutate: |text| without(text, "bar.sync", 0),
        status: &[FOUND],
    },
    Mutant {
        name: "warps do not wait for the others' sums",
        module: "linear_f32",
        kernel: "linear_hidden_relu_tiny",
        mutate: |text| without_all(text, "bar.sync"),
        status: &[FOUND],
    },
    Mutant {
        name: "the second of three terms is not taken from what is left",
        module: "linear_f32",
        kernel: "linear_hidden_relu_tiny",
        mutate: |text| replaced(text, "sub.rn.f32", "add.rn.f32"),
        status: &[FAILED],
    },
    Mutant {
        name: "the third term of the weights is not multiplied",
        module: "linear_f32",
        kernel: "linear_hidden_relu_tiny",
        mutate: |text| without(text, "mma.sync", 2),
        status: &[FAILED],
    },
    Mutant {
        name: "the third term of the weights is not multiplied, in lines of four values",
        module: "linear_f32",
        kernel: "linear_hidden_relu_tiny",
        mutate: |text| without(text, "mma.sync", 8),
        status: &[FAILED],
    },
    Mutant {
        name: "warps do not wait for the others' sums, of two columns",
        module: "linear_f32",
        kernel: "input_gradient_small",
        mutate: |text| without_all(text, "bar.sync"),
        status: &[FOUND],
    },
    Mutant {
        name: "lanes do not add their shares of a bias's gradient",
        module: "weight_gradients_bf16",
        kernel: "weight_gradients_floats_store_small",
        mutate: |text| replaced(text, "shfl.sync.bfly.b32", "shfl.sync.idx.b32"),
        status: &[FAILED],
    },
    Mutant {
        name: "a pixel is taken for its neighbour",
        module: "weight_gradients_tf32",
        kernel: "weight_gradients_pixels_store_small",
        mutate: |text| replaced(text, ", 30289;", ", 30290;"),
        status: &[FAILED],
    },
    Mutant {
        name: "terms past the last are loaded",
        module: "linear_bf16",
        kernel: "linear_floats_relu_small",
        mutate: |text| replaced(text, "setp.ge.u32", "setp.gt.u32"),
        status: &[FOUND, FAILED],
    },
    Mutant {
        name: "no barrier before the sums are gathered",
        module: "linear_f32",
        kernel: "linear_hidden_relu_large",
        mutate: |text| without(text, "bar.sync", 1),
        status: &[FOUND],
    },
    Mutant {
        name: "no barrier before the gathered sums are read",
        module: "weight_gradients_f32",
        kernel: "weight_gradients_pixels_store_large",
        mutate: |text| without_each(text, "bar.sync", &[2, 6]),
        status: &[FOUND],
    },
    Mutant {
        name: "no barrier before the shares of the biases' gradient are read",
        module: "weight_gradients_f32",
        kernel: "weight_gradients_pixels_store_large",
        mutate: |text| without_each(text, "bar.sync", &[3, 7]),
        status: &[FOUND],
    },
    Mutant {
        name: "warps do not wait for the others' sums of gradients",
        module: "weight_gradients_f32",
        kernel: "weight_gradients_pixels_store_small",
        mutate: |text| without_all(text, "bar.sync"),
        status: &[FOUND],
    },
    Mutant {
        name: "ReLU keeps what it should cut",
        module: "linear_f32",
        kernel: "linear_hidden_relu_tiny",
        mutate: |text| replaced(text, "setp.lt.f32", "setp.gt.f32"),
        status: &[FAILED],
    },
    Mutant {
        name: "a result is written one place off",
        module: "linear_f32",
        kernel: "linear_hidden_relu_tiny",
        mutate: |text| shifted_store(text, 4),
        status: &[FOUND, FAILED],
    },
    Mutant {
        name: "results are written past the end",
        module: "weight_gradients_f32",
        kernel: "weight_gradients_pixels_store_small",
        mutate: |text| shifted_store(text, 1 << 16),
        status: &[FOUND],
    },
    Mutant {
        name: "half of the lanes do not add theirs",
        module: "softmax_loss",
        kernel: "softmax_cross_entropy",
        mutate: |text| replaced(text, "shfl.sync.bfly.b32", "shfl.sync.idx.b32"),
        status: &[FAILED],
    },
    Mutant {
        name: "the root of AdamW's second moment is not taken",
        module: "optimizer",
        kernel: "adamw",
        mutate: |text| replaced(text, "sqrt.rn.f32", "abs.f32"),
        status: &[FAILED],
    },
    Mutant {
        name: "AdamW goes on past the last parameter",
        module: "optimizer",
        kernel: "adamw",
        mutate: |text| replaced(text, "setp.ge.u64", "setp.gt.u64"),
        status: &[FOUND],
    },
    Mutant {
        name: "SGD goes on past the last parameter",
        module: "optimizer",
        kernel: "sgd_momentum",
        mutate: |text| replaced(text, "setp.ge.u64", "setp.gt.u64"),
        status: &[FOUND],
    },
    Mutant {
        name: "the gradient of a part takes the place of those before",
        module: "weight_gradients_f32",
        kernel: "weight_gradients_floats_add_small",
        mutate: |text| replaced(text, "add.rn.f32 \t", "max.f32 \t"),
        status: &[FAILED],
    },
    Mutant {
        name: "a stage is used one too early",
        module: "linear_copies_bf16",
        kernel: "linear_copies_hidden_bf16_32",
        mutate: |text| replaced(text, "cp.async.wait_group 2", "cp.async.wait_group 3"),
        status: &[FOUND],
    },
    Mutant {
        name: "a stage is overwritten while it is read",
        module: "weight_gradient_copies_bf16",
        kernel: "weight_gradient_copies_momentum_bf16_32",
        mutate: |text| without(text, "bar.sync", 0),
        status: &[FOUND],
    },
    Mutant {
        name: "the gap of a copy is read",
        module: "linear_copies_bf16",
        kernel: "input_gradient_copies_bf16_32",
        mutate: |text| replaced(text, "min.u32 \t", "max.u32 \t"),
        status: &[FOUND, FAILED],
    },
    Mutant {
        name: "the sums of the parts are not all added",
        module: "weight_gradient_copies_bf16",
        kernel: "weight_gradient_copies_store_bf16_32",
        mutate: |text| without(text, "bar.sync", 4),
        status: &[FOUND],
    },
    Mutant {
        name: "the gradient passes where ReLU has cut, on copies",
        module: "linear_copies_bf16",
        kernel: "input_gradient_copies_bf16_32",
        mutate: |text| replaced(text, "setp.gt.f32", "setp.ge.f32"),
        status: &[FAILED],
    },
    Mutant {
        name: "the copy of the weights stays behind",
        module: "weight_gradient_copies_bf16",
        kernel: "weight_gradient_copies_momentum_bf16_32",
        mutate: |text| without_all(text, "st.global.u16"),
        status: &[FAILED],
    },
];

/// The text without any instruction of a kind.
fn without_all(text: &str, instruction: &str) -> String {
    assert!(text.contains(instruction), "the kernel has no {instruction}");
    let mut parts = text.split(instruction);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |kept, part| kept + part.split_once(';').expect("an instruction ends").1)
}

/// The text without the instruction that is the n-th of its kind.
pub(super) fn without(text: &str, instruction: &str, n: usize) -> String {
    let (at, _) = text.match_indices(instruction).nth(n).expect("the kernel has as many");
    let end = at + text[at..].find(';').expect("an instruction ends") + 1;
    format!("{}{}", &text[..at], &text[end..])
}

/// The text without those instructions of a kind that have these numbers.
fn without_each(text: &str, instruction: &str, numbers: &[usize]) -> String {
    numbers.iter().rev().fold(text.to_owned(), |text, &n| without(&text, instruction, n))
}

/// The text whose n-th wait at an mbarrier finds its phase complete at once.
pub(super) fn no_wait(text: &str, n: usize) -> String {
    let wait = "mbarrier.t"; // try_wait, or test_wait
    let (at, _) = text.match_indices(wait).nth(n).expect("the kernel has as many waits");
    let rest = without(&text[at..], wait, 0);
    format!("{}setp.eq.u32 p, 0, 0;{rest}", &text[..at])
}

/// Where the text of a kernel stands in a module's.
pub(super) fn kernel_in(ptx: &str, kernel: &str) -> std::ops::Range<usize> {
    let entry = ptx.find(&format!(".entry {kernel}(")).expect("the kernel is there");
    entry..ptx[entry..].find(".visible .entry").map_or(ptx.len(), |next| entry + next)
}

/// A module, one of its kernels mutated.
pub(super) fn with_kernel((name, ptx): Module, kernel: &str, mutate: impl Fn(&str) -> String) -> Module {
    let place = kernel_in(ptx, kernel);
    let text = format!("{}{}{}", &ptx[..place.start], mutate(&ptx[place.clone()]), &ptx[place.end..]);
    (name, text.leak())
}

pub(super) fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the kernel has no {from}");
    text.replace(from, to)
}

/// Every store to global memory `bytes` further on.
fn shifted_store(text: &str, bytes: u32) -> String {
    let mut parts = text.split("st.global.f32 \t[");
    let mut mutated = parts.next().expect("a text has a start").to_owned();
    for part in parts {
        let (address, rest) = part.split_once(']').expect("an address ends");
        let (base, offset) = address.split_once('+').unwrap_or((address, "0"));
        let offset: u32 = offset.parse().expect("an offset is a number");
        mutated += &format!("st.global.f32 \t[{base}+{}]{rest}", offset + bytes);
    }
    assert_ne!(mutated, text, "the kernel stores nothing");
    mutated
}

/// All modules of a precision.
fn unharmed(precision: Precision) -> Vec<Module> {
    let format = Format::of(precision);
    let warpgroups = if has_warpgroups() { warpgroup_modules(format) } else { &[] };
    let copies = copies_modules(format).into_iter().chain(warpgroups.iter().copied());
    modules(precision).into_iter().chain(copies).collect()
}

/// Whether the device multiplies by warpgroups.
fn has_warpgroups() -> bool {
    crate::inspect(0).unwrap().warpgroups()
}

/// The modules, one kernel of one of them mutated.
fn mutated(mutant: &Mutant) -> Vec<Module> {
    let mutate = |module: Module| match module.0 == mutant.module {
        true => with_kernel(module, mutant.kernel, mutant.mutate),
        false => module,
    };
    unharmed(mutant.precision()).into_iter().map(mutate).collect()
}

/// Names a mutant by its number.
pub(super) const WHICH: &str = "KILN_TEST_MUTANT";

/// Names the precision whose kernels are to run as they are.
const UNHARMED: &str = "KILN_TEST_UNHARMED";

#[test]
fn every_mutant_is_caught() {
    if sim::on_device() {
        return run_one();
    }
    for precision in ["f32", "tf32", "bf16"] {
        let unharmed = sim::run_again(test_name!(), &[(UNHARMED, precision)]);
        assert!(unharmed.status.success(), "{precision}: {}", String::from_utf8_lossy(&unharmed.stdout));
    }
    for (number, mutant) in MUTANTS.iter().enumerate() {
        let output = sim::run_again(test_name!(), &[(WHICH, &number.to_string())]);
        let code = output.status.code();
        let text = String::from_utf8_lossy(&output.stderr);
        // A test may fail for other reasons than a wrong result.
        let told = code == Some(FOUND) || text.contains("off by");
        let caught = told && code.is_some_and(|code| mutant.status.contains(&code));
        assert!(caught, "{}: expected {:?}, found {code:?}\n{text}", mutant.name, mutant.status);
        assert!(
            code != Some(FOUND) || text.contains(mutant.kernel),
            "{} is not named: {text}",
            mutant.kernel
        );
    }
}

/// Every mutated kernel against its reference, with the mutant that the environment names, or none.
fn run_one() {
    let mutant = std::env::var(WHICH).ok().and_then(|number| MUTANTS.get(number.parse::<usize>().ok()?));
    let named = std::env::var(UNHARMED).ok().map(|name| name.parse().unwrap());
    let precision = named.or(mutant.map(Mutant::precision)).unwrap_or_default();
    let modules = mutant.map_or_else(|| unharmed(precision), mutated);
    let mut gpu = open_with(&modules);
    // Tiny tiles, small ones, and large ones; lines of which four values are loaded at once, and others.
    for multiprocessors in [u32::MAX, SMALL_TILES, 1] {
        gpu.multiprocessors = multiprocessors;
        super::products::outputs(&gpu, precision, Dims { b: 17, k: 259, n: 33 }, Values::Floats);
        super::products::outputs(&gpu, precision, Dims { b: 18, k: 76, n: 33 }, Values::Floats);
        // Of few terms, so that third terms count.
        super::products::outputs(&gpu, precision, Dims { b: 37, k: 2, n: 4 }, Values::Floats);
        super::products::outputs(&gpu, precision, Dims { b: 17, k: 4, n: 4 }, Values::Floats);
        super::products::gradients(&gpu, precision, Dims { b: 19, k: 35, n: 263 }, Values::Floats);
        super::products::gradients(&gpu, precision, Dims { b: 19, k: 36, n: 68 }, Values::Floats);
        super::weights::case_of_hidden(&gpu, precision, Dims { b: 66, k: 33, n: 35 });
        super::weights::case_of_hidden(&gpu, precision, Dims { b: 34, k: 36, n: 34 });
    }
    gpu.multiprocessors = u32::MAX;
    super::weights::case_of_layers(&gpu);
    super::losses::case_of_labels(&gpu, 9, 33, 1.0);
    super::head::cases(&gpu, precision, Dims { b: 9, k: 67, n: 17 }, Values::Floats);
    super::head::cases(&gpu, precision, Dims { b: 5, k: 132, n: 10 }, Values::Floats);
    super::head::cases(&gpu, precision, Dims { b: 5, k: 128, n: 10 }, Values::Floats);
    super::optimizer::case_of_adamw(&gpu, 257);
    super::optimizer::case_of_sgd(&gpu, 257);
    let format = Format::of(precision);
    super::copies::cases(&gpu, format, Dims { b: 66, k: 131, n: 35 }, Values::Floats);
    // Of few terms, so that the third planes count.
    super::copies::cases(&gpu, format, Dims { b: 37, k: 2, n: 1 }, Values::Floats);
    let of_warpgroups = mutant.is_none_or(|mutant| mutant.module.contains("warpgroups"));
    let gpu = of_warpgroups.then(|| super::copies::with_warpgroups(gpu, 128)).flatten();
    if let Some(gpu) = gpu {
        // More terms than all stages together have.
        super::copies::cases(&gpu, format, Dims { b: 66, k: 197, n: 35 }, Values::Floats);
    }
}

#[test]
fn mutations_change_the_text() {
    on_device!();
    let is_there = |mutant: &&Mutant| has_warpgroups() || !mutant.module.contains("warpgroups");
    for mutant in MUTANTS.iter().filter(is_there) {
        assert_ne!(mutated(mutant), unharmed(mutant.precision()), "{}", mutant.name);
    }
}
