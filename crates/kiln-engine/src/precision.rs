//! The arithmetic of matrix products on a GPU.

use std::fmt;
use std::str::FromStr;

/// How matrix products are computed. Sums, parameters and all else are float32 in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Float32 operands: within the tolerance of the golden trajectories.
    #[default]
    F32,
    /// Operands rounded to TF32, 11 significant bits, on tensor cores.
    Tf32,
    /// Operands rounded to bfloat16, 8 significant bits, on tensor cores.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.to_string() == name)
            .ok_or_else(|| format!("expected f32, tf32 or bf16, found {name:?}"))
    }
}
