//! The steps of a run, counted from 0: which are submitted, which are known to be done, and which a profiler is to see.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::Error;
use crate::gpu::Gpu;

/// Steps of a run, counted over all of its epochs from 0: `first` and those after it, up to `end`, which is the first that is
/// not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRange {
    /// The first step.
    pub first: usize,
    /// The step after the last, above `first`.
    pub end: usize,
}

impl fmt::Display for StepRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

impl FromStr for StepRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("expected A..B, steps counted from 0 with A below B, found {text:?}");
        let (first, end) = text.split_once("..").ok_or_else(wrong)?;
        match (first.parse(), end.parse()) {
            (Ok(first), Ok(end)) if first < end => Ok(Self { first, end }),
            _ => Err(wrong()),
        }
    }
}

/// Where a run stands. Cells, because steps are submitted by what only borrows the engine.
pub(super) struct Steps {
    submitted: Cell<usize>,
    /// Known to be done: as many as had been submitted when the device was last waited for.
    done: Cell<usize>,
    profiled: Option<StepRange>,
    profiling: Cell<bool>,
}

impl Steps {
    pub(super) fn new(profiled: Option<StepRange>) -> Self {
        Self { submitted: Cell::new(0), done: Cell::new(0), profiled, profiling: Cell::new(false) }
    }

    /// As if so many had been submitted, and were done.
    pub(super) fn go_on_from(&self, steps: usize) {
        self.submitted.set(steps);
        self.done();
    }

    /// How many have been submitted.
    pub(super) fn submitted(&self) -> usize {
        self.submitted.get()
    }

    /// How many of the next `steps` may be submitted together: the profiler starts and stops between two submissions.
    pub(super) fn together(&self, steps: usize) -> usize {
        let next = self.submitted.get();
        let ends = self.profiled.map_or([next; 2], |range| [range.first, range.end]);
        ends.into_iter().filter(|&end| end > next).map(|end| end - next).fold(steps, usize::min)
    }

    /// Before the next `steps` steps are submitted; gives their numbers.
    pub(super) fn begin(&self, gpu: &Gpu, steps: usize) -> Result<Range<usize>, Error> {
        let first = self.submitted.get();
        if self.profiled.is_some_and(|range| range.first == first) {
            gpu.start_profiler()?;
            self.done.set(first);
            self.profiling.set(true);
        }
        self.submitted.set(first + steps);
        Ok(first..first + steps)
    }

    /// After steps have been submitted.
    pub(super) fn end(&self, gpu: &Gpu) -> Result<(), Error> {
        if self.profiled.is_some_and(|range| range.end == self.submitted.get()) {
            self.stop_profiler(gpu)?;
            self.done();
        }
        Ok(())
    }

    /// Stops the profiler if it runs.
    pub(super) fn stop_profiler(&self, gpu: &Gpu) -> Result<(), Error> {
        if self.profiling.replace(false) { gpu.stop_profiler() } else { Ok(()) }
    }

    /// After the device has been waited for.
    pub(super) fn done(&self) {
        self.done.set(self.submitted.get());
    }

    /// Steps that may have failed if the device reports an error now.
    pub(super) fn open(&self) -> Range<usize> {
        self.done.get()..self.submitted.get().max(self.done.get() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_written() {
        let range = StepRange { first: 20, end: 36 };
        assert_eq!("20..36".parse(), Ok(range));
        assert_eq!(range.to_string(), "20..36");
        for wrong in ["", "20", "20..", "..36", "36..20", "20..20", "20..=36", "-1..2", "a..b"] {
            assert!(wrong.parse::<StepRange>().unwrap_err().contains("expected A..B"), "{wrong}");
        }
    }

    #[test]
    fn no_submission_crosses_an_end_of_the_profiled_range() {
        let at = |submitted: usize, steps: usize| {
            let all = Steps::new(Some(StepRange { first: 20, end: 36 }));
            all.submitted.set(submitted);
            all.together(steps)
        };
        assert_eq!([at(0, 100), at(4, 16), at(4, 17), at(19, 9)], [20, 16, 16, 1]);
        assert_eq!([at(20, 100), at(30, 100), at(35, 2)], [16, 6, 1]);
        assert_eq!([at(36, 100), at(40, 7)], [100, 7]);
        assert_eq!(Steps::new(None).together(100), 100);
    }
}
