//! The losses that a job can name.

use std::fmt;
use std::str::FromStr;

/// What is minimised. Both are means over the batch, so that a tail batch weighs as PyTorch has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// `mean(logsumexp(z) - z[label])` over the batch, as `torch.nn.CrossEntropyLoss`.
    CrossEntropy,
    /// `1/(2N) sum (y - yhat)²` over the N samples of the batch and all outputs. Labels stand for one-hot rows.
    MeanSquaredError,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::CrossEntropy => "cross-entropy",
            Loss::MeanSquaredError => "mse",
        })
    }
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "cross-entropy" => Ok(Loss::CrossEntropy),
            "mse" => Ok(Loss::MeanSquaredError),
            _ => Err(format!("expected cross-entropy or mse, found {name:?}")),
        }
    }
}
