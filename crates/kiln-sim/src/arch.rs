//! The architectures that the simulator can be.

use std::fmt;
use std::str::FromStr;

/// A GPU architecture, by compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// A100.
    Sm80,
    /// RTX 30.
    Sm86,
    /// RTX 40, L40.
    Sm89,
    /// H100, H200.
    Sm90,
    /// B200.
    Sm100,
    /// RTX 50.
    Sm120,
}

impl Arch {
    /// All of them, oldest first.
    pub const ALL: [Arch; 6] = [Arch::Sm80, Arch::Sm86, Arch::Sm89, Arch::Sm90, Arch::Sm100, Arch::Sm120];

    /// The compute capability, ten times: 90 for `sm_90`.
    pub fn number(self) -> u32 {
        match self {
            Arch::Sm80 => 80,
            Arch::Sm86 => 86,
            Arch::Sm89 => 89,
            Arch::Sm90 => 90,
            Arch::Sm100 => 100,
            Arch::Sm120 => 120,
        }
    }

    /// The compute capability: (9, 0) for `sm_90`.
    pub fn capability(self) -> (u32, u32) {
        (self.number() / 10, self.number() % 10)
    }

    /// Bytes of shared memory that a block can have, static and dynamic together.
    pub fn shared_max_bytes(self) -> u32 {
        match self {
            Arch::Sm80 => 163 << 10,
            Arch::Sm86 | Arch::Sm89 | Arch::Sm120 => 99 << 10,
            Arch::Sm90 | Arch::Sm100 => 227 << 10,
        }
    }

    /// The most blocks in a cluster, where the kernel allows sizes that are not portable; 1 without clusters.
    pub fn cluster_max_blocks(self) -> u32 {
        match self {
            Arch::Sm80 | Arch::Sm86 | Arch::Sm89 => 1,
            Arch::Sm90 | Arch::Sm100 => 16,
            Arch::Sm120 => 8,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.number())
    }
}

/// A name that is none of the architectures.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not an architecture of the simulator: expected sm_80, sm_86, sm_89, sm_90, sm_100 or sm_120"
)]
pub struct UnknownArch(String);

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(text: &str) -> Result<Arch, UnknownArch> {
        Arch::ALL.into_iter().find(|arch| arch.to_string() == text).ok_or_else(|| UnknownArch(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for arch in Arch::ALL {
            assert_eq!(arch.to_string().parse::<Arch>().unwrap(), arch);
        }
        let error = "sm_70".parse::<Arch>().unwrap_err().to_string();
        assert!(error.contains("sm_70") && error.contains("sm_120"), "{error}");
    }
}
