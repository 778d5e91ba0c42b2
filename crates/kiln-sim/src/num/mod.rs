//! Arithmetic of PTX as pure functions: no state, no lanes, no registers.
//!
//! Every rule follows the PTX ISA's page of the instruction named beside it. Where the ISA leaves room (approximate
//! functions, the order of sums in `mma`, NaN payloads), the function says what it does.
//!
//! NaN results carry PTX's canonical patterns: `0x7fffffff` (f32 and tf32), `0x7fff` (f16 and bf16), `0x7f` (e4m3 and
//! e5m2), and `0x7ff8000000000000` (f64).

pub mod approx;
mod bits;
pub mod convert;
mod exact;
pub mod float;
pub mod half;
pub mod int;
pub mod mma;

#[cfg(test)]
mod tests;

/// How a result that no value of the format equals is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// `.rn`, `.rni`: to the nearest, ties to even.
    Nearest,
    /// `.rz`, `.rzi`: towards zero.
    Zero,
    /// `.rp`, `.rpi`: towards positive infinity.
    Up,
    /// `.rm`, `.rmi`: towards negative infinity.
    Down,
    /// `.rna`: to the nearest, ties away from zero.
    NearestAway,
}

/// PTX's NaN of f32.
pub const NAN_F32: f32 = f32::from_bits(0x7fff_ffff);
/// The NaN that f64 instructions return here.
pub const NAN_F64: f64 = f64::from_bits(0x7ff8_0000_0000_0000);
/// PTX's NaN of f16 and of bf16.
pub const NAN_16: u16 = 0x7fff;
