//! 16-bit arithmetic by format.

use crate::isa::HalfType;
use crate::num::half;

macro_rules! by_format {
    ($($name:ident($($arg:ident: $ty:ty),*) = $f16:ident, $bf16:ident;)*) => {
        $(pub(super) fn $name(format: HalfType, $($arg: $ty),*) -> u16 {
            match format {
                HalfType::F16 => half::$f16($($arg),*),
                HalfType::Bf16 => half::$bf16($($arg),*),
            }
        })*
    };
}

by_format! {
    add(a: u16, b: u16) = add_f16, add_bf16;
    sub(a: u16, b: u16) = sub_f16, sub_bf16;
    mul(a: u16, b: u16) = mul_f16, mul_bf16;
    fma(a: u16, b: u16, c: u16) = fma_f16, fma_bf16;
    neg(a: u16) = neg_f16, neg_bf16;
    abs(a: u16) = abs_f16, abs_bf16;
    min(a: u16, b: u16, nan: bool, xorsign: bool) = min_f16, min_bf16;
    max(a: u16, b: u16, nan: bool, xorsign: bool) = max_f16, max_bf16;
    relu(a: u16) = relu_f16, relu_bf16;
    sat(a: u16) = sat_f16, sat_bf16;
    ftz(a: u16) = ftz_f16, ftz_bf16;
    tanh(a: u16) = tanh_f16, tanh_bf16;
    ex2(a: u16) = ex2_f16, ex2_bf16;
}
