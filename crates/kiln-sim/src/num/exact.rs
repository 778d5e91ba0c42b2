//! Exact values `±mantissa * 2^exponent`, their sums, products, quotients and roots, and the one rounding at the end.
//!
//! Everything that the host's rounding to nearest cannot do goes through here: directed roundings, and conversions
//! that must round once. Bits that do not fit 128 are *jammed*: if any bit lost was set, the lowest kept one is set.
//! That keeps a value strictly between its neighbours, hence on the right side of every rounding boundary, as long
//! as two bits or more lie below the last bit of the result. Method: Hauser's SoftFloat.

use super::Round;

/// A binary floating-point format with subnormals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Significant bits, the hidden one included.
    pub(super) precision: u32,
    /// Exponent of the smallest normal value.
    pub(super) min_exponent: i32,
    /// Pattern of the largest finite value, without sign.
    pub(super) max_finite: u64,
    /// Pattern that an overflow to infinity gives, without sign.
    pub(super) infinity: u64,
    /// The sign bit's position.
    pub(super) sign_bit: u32,
}

/// IEEE half precision.
pub(super) const F16: Format =
    Format { precision: 11, min_exponent: -14, max_finite: 0x7bff, infinity: 0x7c00, sign_bit: 15 };
/// The upper half of an f32.
pub(super) const BF16: Format =
    Format { precision: 8, min_exponent: -126, max_finite: 0x7f7f, infinity: 0x7f80, sign_bit: 15 };
/// IEEE single precision.
pub(super) const F32: Format = Format {
    precision: 24,
    min_exponent: -126,
    max_finite: 0x7f7f_ffff,
    infinity: 0x7f80_0000,
    sign_bit: 31,
};
/// IEEE double precision.
pub(super) const F64: Format = Format {
    precision: 53,
    min_exponent: -1022,
    max_finite: 0x7fef_ffff_ffff_ffff,
    infinity: 0x7ff0_0000_0000_0000,
    sign_bit: 63,
};
/// Four exponent and three mantissa bits, no infinity: an overflow saturates.
pub(super) const E4M3: Format =
    Format { precision: 4, min_exponent: -6, max_finite: 0x7e, infinity: 0x7e, sign_bit: 7 };
/// Five exponent and two mantissa bits; PTX converts to it with `.satfinite` only, so an overflow saturates.
pub(super) const E5M2: Format =
    Format { precision: 3, min_exponent: -14, max_finite: 0x7b, infinity: 0x7b, sign_bit: 7 };

/// A finite value: `mantissa * 2^exponent`, negated where `negative`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    /// The sign, of a zero too.
    pub(super) negative: bool,
    /// Magnitude; the lowest bit may be a jammed one.
    pub(super) mantissa: u128,
    /// Weight of the lowest bit of the mantissa.
    pub(super) exponent: i32,
}

impl From<f64> for Exact {
    /// Of a finite value.
    fn from(value: f64) -> Exact {
        let bits = value.to_bits();
        let biased = (bits >> 52 & 0x7ff) as i32;
        let fraction = u128::from(bits & ((1 << 52) - 1));
        let mantissa = if biased == 0 { fraction } else { fraction | 1 << 52 };
        Exact { negative: bits >> 63 != 0, mantissa, exponent: biased.max(1) - 1075 }
    }
}

impl From<f32> for Exact {
    /// Of a finite value.
    fn from(value: f32) -> Exact {
        Exact::from(f64::from(value))
    }
}

impl From<i128> for Exact {
    fn from(value: i128) -> Exact {
        Exact { negative: value < 0, mantissa: value.unsigned_abs(), exponent: 0 }
    }
}

impl Exact {
    /// The same value with its highest bit at 126. The mantissa is not zero.
    fn normalized(self) -> Exact {
        let shift = self.mantissa.leading_zeros() as i32 - 1;
        if shift < 0 {
            return Exact { mantissa: jam(self.mantissa, 1), exponent: self.exponent + 1, ..self };
        }
        Exact { mantissa: self.mantissa << shift, exponent: self.exponent - shift, ..self }
    }

    /// The product. Both mantissas have 64 bits at most.
    pub(super) fn times(self, other: Exact) -> Exact {
        Exact {
            negative: self.negative != other.negative,
            mantissa: self.mantissa * other.mantissa,
            exponent: self.exponent + other.exponent,
        }
    }

    /// The sum. Neither mantissa has more than 120 bits, so that what is jammed lies far below any result's last bit.
    ///
    /// A sum of zero is positive, but negative for [`Round::Down`] and for two negative zeros.
    pub(super) fn plus(self, other: Exact, round: Round) -> Exact {
        if self.mantissa == 0 && other.mantissa == 0 {
            let negative = if self.negative == other.negative { self.negative } else { round == Round::Down };
            return Exact { negative, mantissa: 0, exponent: 0 };
        }
        if self.mantissa == 0 {
            return other;
        }
        if other.mantissa == 0 {
            return self;
        }
        let (a, b) = (self.normalized(), other.normalized());
        let (a, b) = if (a.exponent, a.mantissa) >= (b.exponent, b.mantissa) { (a, b) } else { (b, a) };
        let small = jam(b.mantissa, (a.exponent - b.exponent) as u32);
        if a.negative == b.negative {
            return Exact { mantissa: a.mantissa + small, ..a };
        }
        let mantissa = a.mantissa - small;
        let negative = if mantissa == 0 { round == Round::Down } else { a.negative };
        Exact { negative, mantissa, exponent: a.exponent }
    }

    /// The quotient to 70 bits or more, the rest jammed. The divisor is not zero, both mantissas have 53 bits at most.
    pub(super) fn over(self, divisor: Exact) -> Exact {
        let negative = self.negative != divisor.negative;
        if self.mantissa == 0 {
            return Exact { negative, mantissa: 0, exponent: 0 };
        }
        let a = self.normalized();
        let quotient = a.mantissa / divisor.mantissa;
        let sticky = u128::from(!a.mantissa.is_multiple_of(divisor.mantissa));
        Exact { negative, mantissa: quotient | sticky, exponent: a.exponent - divisor.exponent }
    }

    /// The square root to 63 bits, the rest jammed. The value is not negative.
    pub(super) fn sqrt(self) -> Exact {
        if self.mantissa == 0 {
            return self;
        }
        let mut a = self.normalized();
        if a.exponent & 1 != 0 {
            a = Exact { mantissa: a.mantissa << 1, exponent: a.exponent - 1, ..a };
        }
        let root = a.mantissa.isqrt();
        let sticky = u128::from(root * root != a.mantissa);
        Exact { negative: false, mantissa: root | sticky, exponent: a.exponent / 2 }
    }

    /// Whether its magnitude is `2^exponent` or more.
    pub(super) fn reaches(self, exponent: i32) -> bool {
        self.mantissa != 0 && self.exponent + 127 - self.mantissa.leading_zeros() as i32 >= exponent
    }

    /// The pattern of the value, rounded once.
    pub(super) fn round(self, format: &Format, round: Round) -> u64 {
        let sign = u64::from(self.negative) << format.sign_bit;
        if self.mantissa == 0 {
            return sign;
        }
        let top = 127 - self.mantissa.leading_zeros() as i32;
        let exponent = (self.exponent + top).max(format.min_exponent);
        let last = exponent - (format.precision as i32 - 1);
        let kept = round_shift(self.mantissa, last - self.exponent, round, self.negative) as u64;
        // A subnormal has no hidden bit, hence no exponent to add. A carry out of the mantissa raises the exponent.
        let hidden = 1u64 << (format.precision - 1);
        let biased = (exponent - format.min_exponent) as u64;
        let pattern = (biased << (format.precision - 1)) + kept;
        debug_assert!(kept >= hidden || biased == 0);
        if pattern <= format.max_finite {
            sign | pattern
        } else {
            sign | overflow(format, round, self.negative)
        }
    }
}

/// What a value beyond the largest finite one gives.
fn overflow(format: &Format, round: Round, negative: bool) -> u64 {
    match round {
        Round::Nearest | Round::NearestAway => format.infinity,
        Round::Zero => format.max_finite,
        Round::Up if negative => format.max_finite,
        Round::Down if !negative => format.max_finite,
        Round::Up | Round::Down => format.infinity,
    }
}

/// Shifts right, and sets the lowest bit if a set one was lost.
fn jam(value: u128, shift: u32) -> u128 {
    match shift {
        0 => value,
        1..128 => value >> shift | u128::from(value << (128 - shift) != 0),
        _ => u128::from(value != 0),
    }
}

/// `value / 2^shift` as an integer, rounded; a negative shift multiplies, and its result fits.
fn round_shift(value: u128, shift: i32, round: Round, negative: bool) -> u128 {
    if shift <= 0 {
        return value << -shift;
    }
    // Two bits below the last one tell all: at or above the half, and anything beside it.
    let scaled = if shift == 1 { value << 1 } else { jam(value, shift as u32 - 2) };
    let (kept, rest) = (scaled >> 2, scaled & 3);
    let up = match round {
        Round::Nearest => rest == 3 || rest == 2 && kept & 1 == 1,
        Round::NearestAway => rest >= 2,
        Round::Zero => false,
        Round::Up => rest != 0 && !negative,
        Round::Down => rest != 0 && negative,
    };
    kept + u128::from(up)
}
