//! Every kernel against float64, on the simulator or on a real device.
//!
//! Dimensions are odd, mostly prime, and one past the edge of a tile. Small integers must match bit for bit, whatever the order
//! of a sum; other values within the bound that the arithmetic gives, see `Bound`.

mod copies;
mod head;
mod ladder;
mod losses;
mod mutants;
mod optimizer;
mod products;
mod resident;
mod weights;

use std::sync::{Arc, OnceLock};

use cudarc::driver::CudaContext;
use kiln_tests::on_device;
use kiln_tests::outputs::{Output, save};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::copies::Format;
use super::kernels::{Team, all_resident_modules, copies_modules, modules, warpgroup_modules};
use super::modules::{Module, entries};
use super::{Buffer, Dims, Gpu, Position, Region};
use crate::Precision;

/// Unit roundoff of float32.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// Sizes: one, primes, one past the edges of every tile, lines of two and of four values and of neither in one product, and more terms
/// than the warps of a small tile load at once. The device says which tile a size is made of: `gpus`.
const SIZES: [Dims; 15] = [
    Dims { b: 1, k: 1, n: 1 },
    Dims { b: 7, k: 131, n: 13 },
    Dims { b: 17, k: 129, n: 33 },
    Dims { b: 65, k: 67, n: 10 },
    Dims { b: 34, k: 262, n: 66 },
    Dims { b: 20, k: 264, n: 36 },
    Dims { b: 20, k: 38, n: 36 },
    Dims { b: 5, k: 1100, n: 12 },
    Dims { b: 20, k: 1100, n: 36 },
    Dims { b: 260, k: 20, n: 18 },
    Dims { b: 3, k: 8, n: 604 },
    Dims { b: 20, k: 36, n: 604 },
    Dims { b: 66, k: 259, n: 65 },
    Dims { b: 19, k: 35, n: 263 },
    Dims { b: 19, k: 35, n: 68 },
];

/// Multiprocessors for which products take the small tile, where it does not leave even those idle.
const SMALL_TILES: u32 = 6;

/// The device, with the kernels of a precision.
fn open(precision: Precision) -> Gpu {
    kept(Gpu::open(0, precision).unwrap())
}

/// The device, with these modules.
fn open_with(modules: &[Module]) -> Gpu {
    kept(Gpu::with_modules(0, modules).unwrap())
}

/// Keeps the context of the first: it takes a driver a third of a second to make one anew.
fn kept(gpu: Gpu) -> Gpu {
    static CONTEXT: OnceLock<Arc<CudaContext>> = OnceLock::new();
    CONTEXT.get_or_init(|| gpu.stream.context().clone());
    gpu
}

/// With the words of the driver's compiler, which name the line.
#[test]
fn ptx_that_is_refused_is_told_why() {
    on_device!();
    let text = ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry fine()\n{\n\tret;\n}\n\
        .visible .entry k()\n{\n\tadd.u32 %r1, %r2, %r3;\n\tret;\n}\n";
    let gpu = open_with(&[("broken", text)]);
    let crate::Error::Gpu { what, reason } = gpu.kernels.load("k").unwrap_err() else {
        panic!("expected an error of the GPU")
    };
    assert_eq!(what, "loading the kernel k of broken");
    assert!(reason.contains("(CUDA_ERROR_INVALID_PTX): ") && reason.contains("line 10"), "{reason}");
    gpu.kernels.load("fine").unwrap();
}

/// Before the driver, to which parameters are bytes, has a word of it.
#[test]
fn parameters_that_are_not_the_kernels_are_refused() {
    on_device!();
    for params in
        [".param .u64 step", ".param .u32 step, .param .u32 steps", ".param .u64 step, .param .f32 steps"]
    {
        let text = format!(
            ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry advance({params})\n{{\n\tret;\n}}\n"
        );
        let gpu = open_with(&[("odd", text.leak())]);
        let step = buffer(&gpu, &[5u32]);
        let crate::Error::Gpu { what, reason } = crate::gpu::advance(&gpu, step.all(), 16).unwrap_err()
        else {
            panic!("expected an error of the GPU")
        };
        assert!(what.starts_with("launching advance"), "{what}");
        assert!(reason.starts_with("parameters [Number(\"u64\"), Number(\"u32\")], expected ["), "{reason}");
        assert!(gpu.kernels.names_loaded().is_empty());
    }
}

/// Each kernel is cut out with what its module declares and the names of its files, on the lines that it has there, and nothing of the
/// module is left out.
#[test]
fn modules_are_cut_between_kernels() {
    for (name, ptx) in all_modules() {
        let files_of = |text: &str| text.lines().filter(|line| line.contains("\t.file\t")).count();
        let (whole, files) = (ptx.lines().collect::<Vec<_>>(), files_of(ptx));
        let mut used = vec![false; whole.len() - files];
        let kernels: Vec<_> = entries((name, ptx)).collect();
        assert_eq!(kernels.len(), ptx.matches(".entry").count(), "{name}");
        for kernel in kernels {
            let alone = kernel.ptx();
            assert_eq!((alone.matches(".entry").count(), files_of(&alone)), (1, files), "{}", kernel.name);
            assert!(!alone.contains("call"), "{} calls what it may not have been cut out with", kernel.name);
            let lines = alone.lines().take_while(|line| !line.contains("\t.file\t"));
            for (number, line) in lines.enumerate() {
                assert!(line.is_empty() || line == whole[number], "{}, line {}", kernel.name, number + 1);
                used[number] |= line == whole[number];
            }
        }
        assert!(!used.contains(&false), "{name}");
    }
}

/// Whether the device forms clusters. What needs them has nothing to test on a GPU that does not.
fn has_clusters() -> bool {
    let found = crate::inspect(0).unwrap();
    if !found.clusters {
        println!("{found}: no clusters");
    }
    found.clusters
}

/// Every module that is embedded, some of them more than once.
pub(super) fn all_modules() -> impl Iterator<Item = Module> {
    let resident = Precision::ALL.into_iter().flat_map(|precision| {
        let teams = [Team::Cluster, Team::Grid].into_iter();
        teams.flat_map(move |team| all_resident_modules(team, precision).flatten())
    });
    let copies = Precision::ALL.into_iter().map(Format::of).flat_map(|format| {
        copies_modules(format).into_iter().chain(warpgroup_modules(format).iter().copied())
    });
    Precision::ALL.into_iter().flat_map(modules).chain(resident).chain(copies)
}

/// A multiplication and an addition without a rounding of their own are one or two operations, as an assembler likes: the bits
/// would depend on it.
#[test]
fn nothing_is_left_for_an_assembler_to_fuse() {
    for (name, text) in all_modules() {
        for (number, line) in text.lines().enumerate() {
            let operation = line.split_whitespace().next().unwrap_or_default();
            let open = ["add", "sub", "mul"].into_iter().any(|what| {
                operation.strip_prefix(what).is_some_and(|rest| [".f32", ".ftz.f32", ".f64"].contains(&rest))
            });
            assert!(!open, "{name}, line {}: {line}", number + 1);
        }
    }
}

/// A device of its own for each combination of precision and tile.
fn gpus() -> impl Iterator<Item = (Precision, Gpu)> {
    Precision::ALL.into_iter().flat_map(|precision| {
        // With one multiprocessor to fill every product takes the large tile, with six the small one where it has as many blocks, the tiny
        // one where it has not, and now and then the large one, and with more than any has blocks the tiny one.
        [u32::MAX, SMALL_TILES, 1].into_iter().map(move |multiprocessors| {
            let mut gpu = open(precision);
            gpu.multiprocessors = multiprocessors;
            (precision, gpu)
        })
    })
}

/// Values of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Values {
    /// -4..=4: products and sums are exact in every precision.
    Integers,
    /// Uniform in -1..1.
    Floats,
}

fn draw(seed: u64, values: Values, count: usize) -> Vec<f32> {
    let mut random = SmallRng::seed_from_u64(seed);
    let one = || match values {
        Values::Integers => random.random_range(-4..=4) as f32,
        Values::Floats => random.random_range(-1.0..1.0),
    };
    std::iter::repeat_with(one).take(count).collect()
}

fn pixels(seed: u64, count: usize) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(seed);
    std::iter::repeat_with(|| random.random_range(0..=255)).take(count).collect()
}

/// A buffer that holds NaN until it is written.
fn poisoned(gpu: &Gpu, len: usize) -> Buffer<f32> {
    Buffer::with(gpu, "a result", &vec![f32::NAN; len]).unwrap()
}

fn buffer<T: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits>(
    gpu: &Gpu,
    values: &[T],
) -> Buffer<T> {
    Buffer::with(gpu, "an operand", values).unwrap()
}

/// Values that may begin anywhere in a buffer, and what was written there.
struct Placed {
    buffer: Buffer<f32>,
    place: usize,
}

impl Placed {
    fn new(gpu: &Gpu, values: &[f32], place: usize) -> Self {
        Self { buffer: buffer(gpu, &[&vec![f32::NAN; place], values].concat()), place }
    }

    fn all(&self) -> Region<'_, f32> {
        self.buffer.all().from(self.place)
    }

    fn read(&self, gpu: &Gpu) -> Vec<f32> {
        read(gpu, &self.buffer, self.buffer.len()).split_off(self.place)
    }
}

/// The start of a buffer that a kernel wrote.
fn read<T>(gpu: &Gpu, buffer: &Buffer<T>, len: usize) -> Vec<T>
where
    T: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits + Default + Output,
{
    let mut values = vec![T::default(); len];
    buffer.download(gpu, &mut values).unwrap();
    save(&values);
    values
}

/// A batch in the middle of an epoch: the second slot after one step, with more rows from batch to batch than it has.
struct Epoch {
    rows: Vec<u32>,
    order: Buffer<u32>,
    step: Buffer<u32>,
    stride: u32,
}

impl Epoch {
    const SLOT: u32 = 1;
    const STEP: u32 = 1;

    fn new(gpu: &Gpu, seed: u64, rows: u32, samples: u32) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let rows: Vec<u32> = (0..rows).map(|_| random.random_range(0..samples)).collect();
        let stride = rows.len() as u32 + 3;
        // What comes before is no sample: reading it would be found.
        let mut order = vec![u32::MAX; ((Self::SLOT + Self::STEP) * stride) as usize];
        order.extend(&rows);
        let (order, step) = (buffer(gpu, &order), buffer(gpu, &[Self::STEP]));
        Self { rows, order, step, stride }
    }

    fn position(&self) -> Position<'_> {
        Position { order: self.order.all(), step: self.step.all(), slot: Self::SLOT, batch: self.stride }
    }

    /// Where the batch's first row stands in the epoch.
    fn first(&self) -> usize {
        ((Self::SLOT + Self::STEP) * self.stride) as usize
    }
}

/// What a sum of products may be off by: `((1 + r)² (1 + gamma_K) - 1) sum |x| |w|`, with r the roundoff of the operands in a
/// precision and `gamma_K = K u / (1 - K u)` (Higham, section 3.1), for any order of summation. Tensor cores cut off where that
/// is for rounding: with blocks of 8, nine terms by up to u and their sum by up to 2 u, so that u counts twice.
#[derive(Clone, Copy)]
struct Bound {
    operand: f64,
    roundoff: f64,
    /// Of a product, what is not computed.
    left_out: f64,
    /// How much more than its terms a sum cuts off.
    more: f64,
}

impl Bound {
    /// Operands that bfloat16 holds, on tensor cores.
    const COPIES: Bound = Bound { operand: 0.0, roundoff: 2.0 * U, left_out: 0.0, more: 1.0 };
    /// Operands in three planes of bfloat16, on tensor cores. The second plane is 2^-8 of a value at most, the third 2^-17. Three of nine
    /// pairs are left out: second by third, twice, and third by third. Of the six that are made the last alone has large sums: those of
    /// the others grow to 2^-7 + 2^-15 of all, and with first planes that are 2^-8 larger than their values that is less than a 25th more.
    const PLANES: Bound = Bound { left_out: 1.01 * U, more: 1.04, ..Bound::COPIES };

    /// Operands that are sums of three bfloat16 terms, or of two, in small tiles: as planes, but first terms have a sum of their own, and the
    /// pairs of others are all in the other one, which grows to 2^-7 + 2^-15 of all.
    const TERMS: Bound = Bound { more: 1.05, ..Bound::PLANES };
    /// Of sums and products of float32's own units.
    const FLOAT32: Bound = Bound { roundoff: U, ..Bound::COPIES };

    /// Of a product in a precision, of the tiles that a device takes, as `gpus` makes them.
    fn of(gpu: &Gpu, precision: Precision) -> Self {
        let bound = match precision {
            Precision::F32 if gpu.multiprocessors == 1 => Bound::FLOAT32,
            Precision::F32 => Bound::TERMS,
            Precision::Tf32 => Bound { left_out: 0.0, ..Bound::TERMS },
            Precision::Bf16 => Bound::COPIES,
        };
        bound.rounded(precision)
    }

    /// With operands that a precision has rounded.
    fn rounded(self, precision: Precision) -> Self {
        let operand = match precision {
            Precision::F32 => 0.0,
            Precision::Tf32 => (-11f64).exp2(),
            Precision::Bf16 => (-8f64).exp2(),
        };
        Self { operand, ..self }
    }

    /// For a sum of `terms` terms, with `extra` roundings after it.
    fn factor(self, terms: usize, extra: usize) -> f64 {
        let ku = (self.more * terms as f64 + extra as f64) * self.roundoff;
        ((1.0 + self.operand).powi(2) + self.left_out) * (1.0 + ku / (1.0 - ku)) - 1.0
    }
}

/// Demands `|got - expected| <= bound` everywhere; NaN passes nowhere.
fn assert_close(what: &str, got: &[f32], expected: impl Fn(usize) -> (f64, f64)) {
    let mut worst = (0.0, 0);
    for (at, &got) in got.iter().enumerate() {
        let (expected, bound) = expected(at);
        let difference = (f64::from(got) - expected).abs();
        let within = difference <= bound;
        assert!(within, "{what}: [{at}] {got}, expected {expected} within {bound:e}, off by {difference:e}");
        if bound > 0.0 && difference / bound > worst.0 {
            worst = (difference / bound, at);
        }
    }
    println!("{what}: {:.1}% of the bound used, at [{}]", 100.0 * worst.0, worst.1);
}

#[test]
fn the_comparison_rejects_what_it_must() {
    let rejects = |got: f32, expected: f64, bound: f64| {
        std::panic::catch_unwind(|| assert_close("test", &[got], |_| (expected, bound))).is_err()
    };
    assert!(!rejects(1.0, 1.0, 0.0) && !rejects(1.0, 1.05, 0.1));
    assert!(rejects(1.0, 1.2, 0.1));
    assert!(rejects(f32::NAN, 1.0, 1e9) && rejects(f32::INFINITY, 1.0, 1e9) && rejects(1.0, f64::NAN, 1e9));
    assert!(rejects(1.0, 1.0, f64::NAN));
}
