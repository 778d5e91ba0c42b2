//! Operands of matrix products that are rounded, as tensor cores take them: what an engine of lower precision is compared with.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

/// How the operands of a layer's matrix products are rounded. Products and sums are not: those of two rounded operands are exact in
/// float64, but for the last bits of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Not at all.
    None,
    /// To the 11 significant bits of TF32, ties away from zero (PTX's `cvt.rna.tf32.f32`).
    Tf32,
    /// To the 8 significant bits of bfloat16, ties to even (`cvt.rn.bf16.f32`).
    Bf16,
}

/// How the operands of a model's matrix products are rounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operands {
    /// The inputs of a batch.
    pub inputs: Rounding,
    /// Of each layer the weights, the outputs of the layer below, and the gradient at its own.
    pub layers: Vec<Rounding>,
}

impl Operands {
    /// No operand of so many layers is rounded.
    pub fn exact(layers: usize) -> Self {
        Self { inputs: Rounding::None, layers: vec![Rounding::None; layers] }
    }

    /// How many layers have operands that are rounded.
    pub fn rounded_layers(&self) -> usize {
        self.layers.iter().filter(|rounding| **rounding != Rounding::None).count()
    }

    /// The largest relative error of a rounded operand of a layer.
    pub fn roundoff(&self) -> f64 {
        self.layers.iter().map(|rounding| rounding.roundoff()).fold(0.0, f64::max)
    }
}

/// Significant bits of a float64.
const BITS: u32 = 53;

impl Rounding {
    /// The nearest value of that format. Exponents are those of float64: nothing overflows, nothing is subnormal.
    pub fn of(self, value: f64) -> f64 {
        let (kept, to_even) = match self {
            Rounding::None => return value,
            Rounding::Tf32 => (11, false),
            Rounding::Bf16 => (8, true),
        };
        if !value.is_finite() {
            return value;
        }
        let (bits, dropped) = (value.to_bits(), BITS - kept);
        // Half a unit of what is kept, less a little where a tie goes down to an even neighbour. A carry moves the exponent on.
        let down = to_even && bits >> dropped & 1 == 0;
        f64::from_bits((bits + (1 << (dropped - 1)) - u64::from(down)) >> dropped << dropped)
    }

    /// The largest relative error of a rounded operand: 0, 2^-11 or 2^-8.
    pub fn roundoff(self) -> f64 {
        match self {
            Rounding::None => 0.0,
            Rounding::Tf32 => 1.0 / 2048.0,
            Rounding::Bf16 => 1.0 / 256.0,
        }
    }

    /// An operand; its gradient passes as it is.
    pub(crate) fn operand(self, x: &Tensor) -> candle_core::Result<Tensor> {
        if self == Rounding::None { Ok(x.clone()) } else { x.apply_op1(Operand(self)) }
    }

    /// The result of a product as it is; its gradient, which is an operand of the products that follow, is rounded.
    pub(crate) fn gradient(self, y: &Tensor) -> candle_core::Result<Tensor> {
        if self == Rounding::None { Ok(y.clone()) } else { y.apply_op1(Gradient(self)) }
    }
}

/// Rounded on the way forward.
struct Operand(Rounding);

impl CustomOp1 for Operand {
    fn name(&self) -> &'static str {
        "rounded operand"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Operand(rounding) = *self;
        let values = storage.as_slice::<f64>()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("{}: expected values side by side", self.name());
        };
        let rounded = values[start..end].iter().map(|&value| rounding.of(value)).collect();
        Ok((CpuStorage::F64(rounded), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(gradient.clone()))
    }
}

/// Rounded on the way back.
struct Gradient(Rounding);

impl CustomOp1 for Gradient {
    fn name(&self) -> &'static str {
        "rounded gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Operand(Rounding::None).cpu_fwd(storage, layout)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        gradient.contiguous()?.apply_op1_no_bwd(&Operand(self.0)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a search: of the values of the format around it the nearest, by the format's own rule where two are as near.
    #[test]
    fn it_is_the_nearest_value() {
        for (rounding, bits) in [(Rounding::Tf32, 11), (Rounding::Bf16, 8)] {
            let units = 1u32 << (bits - 1);
            // From 1 to 4, in sixteenths of a unit in the last place.
            for sixteenth in 0..3 * 16 * units {
                let value = 1.0 + f64::from(sixteenth) / f64::from(16 * units);
                let step = if value < 2.0 { 1.0 } else { 2.0 } / f64::from(units);
                let below = (value / step).floor() * step;
                let (down, up) = (value - below, below + step - value);
                let tie = if rounding == Rounding::Tf32 || (below / step) % 2.0 == 1.0 {
                    below + step
                } else {
                    below
                };
                let nearest = if down < up {
                    below
                } else if up < down {
                    below + step
                } else {
                    tie
                };
                for scale in [1.0, 2f64.powi(-100), 2f64.powi(90)] {
                    assert_eq!(rounding.of(value * scale), nearest * scale, "{rounding:?} of {value}");
                    assert_eq!(rounding.of(-value * scale), -nearest * scale);
                }
                assert!((nearest - value).abs() <= rounding.roundoff() * value);
            }
            assert_eq!(rounding.of(0.0), 0.0);
            assert!(rounding.of(f64::NAN).is_nan() && rounding.of(f64::INFINITY) == f64::INFINITY);
        }
    }
}
