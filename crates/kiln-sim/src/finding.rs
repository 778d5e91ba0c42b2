//! What the checkers report.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// What kind of fault a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An access outside any allocation, or across the end of one.
    OutOfBounds,
    /// An access to memory that has been freed, or to shared memory of a block that may have ended.
    UseAfterFree,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A read of bytes that nobody has written.
    Uninitialised,
    /// A write to constant memory.
    ReadOnly,
    /// Two accesses that are not ordered, one of them a write.
    Race,
    /// A barrier used against its rules, or reached by a part of a warp only.
    Barrier,
    /// An mbarrier used against its rules.
    Mbarrier,
    /// Threads that wait for what cannot come.
    Deadlock,
    /// More instructions than the launch may execute.
    OutOfFuel,
    /// `trap`, or a failed device assertion.
    Trap,
    /// An instruction executed against its rules otherwise: a shuffle with a lane that is not there, a fragment
    /// instruction in a diverged warp.
    Misuse,
    /// Memory still allocated when its context ended.
    Leak,
}

impl Kind {
    /// The name that texts and JSON use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::OutOfBounds => "out-of-bounds",
            Kind::UseAfterFree => "use-after-free",
            Kind::Misaligned => "misaligned",
            Kind::Uninitialised => "uninitialised",
            Kind::ReadOnly => "read-only",
            Kind::Race => "race",
            Kind::Barrier => "barrier",
            Kind::Mbarrier => "mbarrier",
            Kind::Deadlock => "deadlock",
            Kind::OutOfFuel => "out-of-fuel",
            Kind::Trap => "trap",
            Kind::Misuse => "misuse",
            Kind::Leak => "leak",
        }
    }
}

/// The place of an instruction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The kernel, or what else ran: `copy from the device on stream 1`.
    pub kernel: Arc<str>,
    /// Line in the PTX, from 1; 0 where no instruction is to blame.
    pub ptx_line: u32,
    /// The instruction as the PTX has it.
    pub instruction: Arc<str>,
    /// File and line of the source, where `.loc` gives them.
    pub source: Option<(Arc<str>, u32)>,
    /// The block, if a thread is to blame.
    pub block: Option<[u32; 3]>,
    /// The thread in its block, if one is to blame.
    pub thread: Option<[u32; 3]>,
}

impl Place {
    /// A place outside any kernel.
    pub fn outside(label: Arc<str>) -> Place {
        Place {
            kernel: label,
            ptx_line: 0,
            instruction: Arc::from(""),
            source: None,
            block: None,
            thread: None,
        }
    }
}

/// The memory that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// `global`, `shared`, `local`, `param`, `const`.
    pub space: &'static str,
    /// The address as the instruction had it.
    pub address: u64,
    /// Bytes accessed.
    pub bytes: u32,
    /// What lies there or nearest: `allocation 3 (4096 bytes), offset 4096`.
    pub what: String,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What kind of fault.
    pub kind: Kind,
    /// What happened, in one sentence.
    pub message: String,
    /// Where it was noticed.
    pub place: Place,
    /// The other access of a race.
    pub other: Option<Place>,
    /// The memory concerned.
    pub location: Option<Location>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kernel)?;
        if self.ptx_line > 0 {
            write!(f, ", PTX line {}: `{}`", self.ptx_line, self.instruction)?;
        }
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        if let Some([x, y, z]) = self.block {
            write!(f, ", block ({x}, {y}, {z})")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  at {}", self.kind.name(), self.message, self.place)?;
        if let Some(other) = &self.other {
            write!(f, "\n  and {other}")?;
        }
        if let Some(location) = &self.location {
            let Location { space, address, bytes, what } = location;
            write!(f, "\n  {space} address {address:#x}, {bytes} bytes: {what}")?;
        }
        Ok(())
    }
}
