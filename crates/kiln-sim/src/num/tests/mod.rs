//! Each rule against a definition written another way: search among all values of a format, error-free sums, bit loops
//! as the ISA prints them.

use std::cmp::Ordering;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Round;

mod approx;
mod bits;
mod convert;
mod convert_int;
mod directed;
mod float;
mod half;
mod int;
mod mma;
mod mma_other;

const ROUNDS: [Round; 5] = [Round::Nearest, Round::Zero, Round::Up, Round::Down, Round::NearestAway];
/// The roundings that arithmetic has.
const IEEE: [Round; 4] = [Round::Nearest, Round::Zero, Round::Up, Round::Down];

fn random(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// A uniform bit pattern: every exponent, NaN and infinities too.
fn any_f32(rng: &mut StdRng) -> f32 {
    f32::from_bits(rng.next_u32())
}

fn any_f64(rng: &mut StdRng) -> f64 {
    f64::from_bits(rng.next_u64())
}

/// Values at which rules change.
fn special_f32() -> Vec<f32> {
    let positive = [
        0,
        1,
        2,
        0x007f_ffff,
        0x0080_0000,
        0x0080_0001,
        0x3380_0000,
        0x3f00_0000,
        0x3f7f_ffff,
        0x3f80_0000,
        0x3f80_0001,
        0x3fc0_0000,
        0x4b00_0001,
        0x7e80_0000,
        0x7f7f_fffe,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7f80_0001,
        0x7fc0_0000,
    ];
    positive.into_iter().flat_map(|bits: u32| [bits, bits | 0x8000_0000]).map(f32::from_bits).collect()
}

fn special_f64() -> Vec<f64> {
    let edges =
        [f64::MIN_POSITIVE, f64::MIN_POSITIVE.next_down(), f64::from_bits(1), f64::MAX, 1.0f64.next_up()];
    special_f32().into_iter().map(f64::from).chain(edges).chain(edges.map(|edge| -edge)).collect()
}

/// Whether a value between two neighbours is rounded to the upper one.
///
/// `middle` says how it lies to their middle, `upper_even` whether the upper one's last bit is zero.
fn takes_upper(round: Round, negative: bool, middle: Ordering, upper_even: bool) -> bool {
    match round {
        Round::Up => true,
        Round::Down => false,
        Round::Zero => negative,
        Round::Nearest => middle == Ordering::Greater || middle == Ordering::Equal && upper_even,
        Round::NearestAway => middle == Ordering::Greater || middle == Ordering::Equal && !negative,
    }
}

/// All values of a 16-bit format in ascending order, infinities as the values that follow the largest, beside their
/// patterns, and scaled to integers by `unit`.
struct Table {
    values: Vec<(i128, u16)>,
}

impl Table {
    /// Patterns `0..=last` and their negatives, of which `last` decodes to the value that takes infinity's place.
    fn new(last: u16, decode: impl Fn(u16) -> i128) -> Table {
        let positive = (0..=last).map(|bits| (decode(bits), bits));
        let negative = (0..=last).rev().map(|bits| (-decode(bits), bits | 0x8000));
        Table { values: negative.chain(positive).collect() }
    }

    /// The pattern that `value / 2^denominator` rounds to; `negative` is the sign where that is zero.
    fn round(&self, value: i128, denominator: u32, round: Round, negative: bool) -> u16 {
        let limit = *self.values.last().expect("values");
        let scaled = |entry: &(i128, u16)| entry.0 << denominator;
        if value.unsigned_abs() >= scaled(&limit).unsigned_abs() {
            // Beyond infinity's place, nearest is infinity, and a directed rounding stops at it or before it.
            let stops = round == Round::Zero || round == if negative { Round::Up } else { Round::Down };
            return (limit.1 - u16::from(stops)) | u16::from(negative) << 15;
        }
        let upper = self.values.partition_point(|entry| scaled(entry) < value);
        let (high, low) = (&self.values[upper], &self.values[upper.saturating_sub(1)]);
        if scaled(high) == value {
            return high.1 & 0x7fff | u16::from(negative) << 15;
        }
        let middle = (2 * value).cmp(&(scaled(high) + scaled(low)));
        let chosen = if takes_upper(round, negative, middle, high.1 & 1 == 0) { high } else { low };
        chosen.1 & 0x7fff | u16::from(negative) << 15
    }
}

/// f16 in units of 2^-24, all of it.
fn f16_table() -> Table {
    Table::new(0x7c00, f16_units)
}

/// An f16 in units of 2^-24; infinity as 2^16.
fn f16_units(bits: u16) -> i128 {
    let (exponent, fraction) = (bits >> 10 & 31, i128::from(bits & 0x3ff));
    let magnitude = if exponent == 0 { fraction } else { (fraction + 1024) << (exponent - 1) };
    if bits & 0x8000 != 0 { -magnitude } else { magnitude }
}
