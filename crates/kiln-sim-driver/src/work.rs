//! What operations do, once it is their turn.

use std::sync::Arc;

use kiln_sim::device::{Device, Fault, Kernel, LaunchConfig};
use kiln_sim::stamp::Stamp;

use crate::driver::Driver;
use crate::ffi::{HostAddress, HostCall};
use crate::handle::Handle;
use crate::order::{Point, duration};
use crate::report::{self, note};
use crate::status::{Outcome, Status};

/// What an operation does.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Launch(Launch),
    Copy(Copy),
    Fill(Fill),
    /// Memory is there from its turn on.
    Allocate(u64),
    /// Gives memory back, in its turn.
    Free(u64),
    Host(HostCall),
    /// Nothing, in its turn.
    Nothing,
}

/// A kernel launch.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) function: Handle,
    pub(crate) kernel: Kernel,
    pub(crate) config: LaunchConfig,
    /// The parameters, laid out as the kernel has them.
    pub(crate) params: Vec<u8>,
}

/// Where one side of a copy lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// In memory that only the host can address.
    Host(HostAddress),
    /// In device memory, or in host memory that is mapped.
    Device(u64),
}

/// One side of a copy: where its first byte lies, and how far the rows and slices are apart, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) side: Side,
    pub(crate) pitch: u64,
    pub(crate) slice: u64,
}

/// A copy of a box of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) from: Span,
    pub(crate) to: Span,
    /// Bytes in a row, rows in a slice, slices.
    pub(crate) extent: [u64; 3],
}

/// A fill of a rectangle.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    pub(crate) target: u64,
    /// One element: 1, 2 or 4 bytes.
    pub(crate) pattern: Vec<u8>,
    /// Bytes from row to row.
    pub(crate) pitch: u64,
    /// Elements in a row, rows.
    pub(crate) extent: [u64; 2],
}

/// Why an operation did not happen.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked for in a wrong way; the context is as it was.
    Refused(Status),
    /// It went wrong on the device; the context is broken.
    Broken(Status),
}

impl Span {
    /// The side's part from the `row`-th row of the `slice`-th slice on.
    fn at(&self, row: u64, slice: u64) -> Side {
        let offset = row.wrapping_mul(self.pitch).wrapping_add(slice.wrapping_mul(self.slice));
        match self.side {
            Side::Host(address) => Side::Host(address.offset(offset as usize)),
            Side::Device(address) => Side::Device(address.wrapping_add(offset)),
        }
    }
}

impl Copy {
    /// A copy of `bytes` in one piece.
    pub(crate) fn linear(to: Side, from: Side, bytes: u64) -> Copy {
        let span = |side| Span { side, pitch: bytes, slice: bytes };
        Copy { from: span(from), to: span(to), extent: [bytes, 1, 1] }
    }

    /// Bytes in all.
    pub(crate) fn bytes(&self) -> u64 {
        self.extent.iter().fold(1, |bytes: u64, &size| bytes.saturating_mul(size))
    }

    /// The two sides, for a label: `copy to the device`.
    pub(crate) fn label(&self) -> &'static str {
        match (self.from.side, self.to.side) {
            (Side::Host(_), Side::Host(_)) => "copy within the host",
            (Side::Host(_), Side::Device(_)) => "copy to the device",
            (Side::Device(_), Side::Host(_)) => "copy from the device",
            (Side::Device(_), Side::Device(_)) => "copy within the device",
        }
    }
}

impl Driver {
    /// Does an operation. Gives how long it took, in simulated nanoseconds.
    pub(crate) fn perform(&mut self, context: Handle, stamp: &Stamp, work: &Work) -> Result<u64, Failure> {
        let gpu = self.gpu_of(context).map_err(Failure::Refused)?;
        let counts = matches!(work, Work::Launch(_) | Work::Copy(_) | Work::Fill(_));
        if counts && self.countdown.loses_device(&self.settings.faults) {
            self.lose(gpu);
        }
        if self.gpus[gpu].lost {
            return Err(Failure::Broken(Status::DEVICE_UNAVAILABLE));
        }
        match work {
            Work::Launch(launch) => self.launch(gpu, stamp, launch),
            Work::Copy(copy) => self.copy(context, gpu, stamp, copy),
            Work::Fill(fill) => self.fill(gpu, stamp, fill),
            Work::Allocate(address) => {
                if let Some((device, bytes)) = self.block(*address) {
                    device.allocated_by(*address, bytes, stamp);
                }
                Ok(0)
            }
            Work::Free(address) => self.free(stamp, *address),
            Work::Host(_) | Work::Nothing => Ok(0),
        }
    }

    /// Loses a GPU: every context on it is broken.
    fn lose(&mut self, gpu: usize) {
        self.gpus[gpu].lost = true;
        let broken: Vec<Handle> =
            self.contexts.iter().filter(|(_, on)| on.gpu == gpu).map(|(at, _)| at).collect();
        for context in broken {
            self.fail(context, Status::DEVICE_UNAVAILABLE);
        }
    }

    fn launch(&mut self, gpu: usize, stamp: &Stamp, launch: &Launch) -> Result<u64, Failure> {
        if self.countdown.launch_fails(&self.settings.faults) {
            return Err(Failure::Broken(Status::LAUNCH_FAILED));
        }
        let device = self.gpus[gpu].device.clone();
        let launched = device.launch(&launch.kernel, &launch.config, &launch.params, stamp);
        report::print(&device.take_printed());
        let stats = self.settle(launched)?;
        let blocks = launch.config.grid.iter().map(|&count| u64::from(count)).product();
        Ok(duration::launch(stats.instructions, blocks, self.limits.multiprocessors as u64))
    }

    fn copy(&mut self, context: Handle, gpu: usize, stamp: &Stamp, copy: &Copy) -> Result<u64, Failure> {
        let [width, height, depth] = copy.extent;
        if copy.bytes() == 0 {
            return Ok(0);
        }
        for slice in 0..depth {
            for row in 0..height {
                let copied =
                    self.copy_row(gpu, stamp, copy.to.at(row, slice), copy.from.at(row, slice), width);
                self.settle(copied)?;
                if let Side::Device(from) = copy.from.at(row, slice) {
                    self.remember_source(context, from, width, stamp);
                }
            }
        }
        Ok(duration::transfer(copy.bytes()))
    }

    /// Copies bytes that follow each other on both sides.
    fn copy_row(&self, gpu: usize, stamp: &Stamp, to: Side, from: Side, bytes: u64) -> Result<(), Fault> {
        let device = |address| &*self.gpus[self.gpu_with(address, gpu)].device;
        if let (Side::Device(to), Side::Device(from)) = (to, from)
            && std::ptr::eq(device(to), device(from))
        {
            return device(to).copy(to, from, bytes, stamp);
        }
        // Before there is a buffer as large as a program may ask for by mistake.
        for side in [from, to] {
            if let Side::Device(address) = side {
                device(address).check_range(address, bytes, stamp)?;
            }
        }
        let mut buffer = vec![0; bytes as usize];
        let null = |_| Fault::InvalidLaunch("copy from or to a null pointer".into());
        match from {
            Side::Host(address) => address.read(&mut buffer).map_err(null)?,
            Side::Device(address) => device(address).read(address, &mut buffer, stamp)?,
        }
        match to {
            Side::Host(address) => address.write(&buffer).map_err(null),
            Side::Device(address) => device(address).write(address, &buffer, stamp),
        }
    }

    fn fill(&mut self, gpu: usize, stamp: &Stamp, fill: &Fill) -> Result<u64, Failure> {
        let [width, height] = fill.extent;
        if width == 0 {
            return Ok(0);
        }
        for row in 0..height {
            let target = fill.target.wrapping_add(row * fill.pitch);
            let device = self.gpus[self.gpu_with(target, gpu)].device.clone();
            self.settle(device.fill(target, &fill.pattern, width, stamp))?;
        }
        Ok(duration::transfer(width.saturating_mul(height).saturating_mul(fill.pattern.len() as u64)))
    }

    /// Frees memory.
    fn free(&mut self, stamp: &Stamp, address: u64) -> Result<u64, Failure> {
        if self.memory.starting(address).is_none() {
            note("cuMemFreeAsync", &format!("{address:#x} was freed before"));
            return Err(Failure::Refused(Status::INVALID_VALUE));
        }
        self.check_free(stamp, address)?;
        self.release(address).map_err(Failure::Refused)?;
        Ok(0)
    }

    /// The end of a block: to whatever touches it without order, that is a write.
    fn check_free(&mut self, stamp: &Stamp, address: u64) -> Result<(), Failure> {
        let Some((device, bytes)) = self.block(address) else { return Ok(()) };
        let checked = device.may_be_freed_by(address, bytes, stamp);
        self.settle(checked)
    }

    /// Where a block lies, and its bytes.
    fn block(&self, address: u64) -> Option<(&Device, u64)> {
        let bytes = self.memory.starting(address)?.bytes;
        Some((&self.gpus[self.gpu_with(address, 0)].device, bytes))
    }

    /// The host frees a block of a pool now, which on a GPU waits for nothing: what it has not waited for is not ordered before.
    pub(crate) fn check_free_by_host(&mut self, context: Handle, address: u64, call: &str) -> Outcome {
        let line = self.order.open();
        let stamp = self.order.issue(line, &Point::default(), Arc::from(call));
        // Which the host itself has done.
        Arc::make_mut(&mut self.order.host).advance(line, stamp.number);
        self.order.timelines.retire(line);
        self.check_free(&stamp, address).map_err(|failure| match failure {
            Failure::Refused(status) => status,
            Failure::Broken(status) => {
                self.fail(context, status);
                status
            }
        })
    }

    /// Reports what the simulator found, and says what it means for the context.
    fn settle<T>(&mut self, result: Result<T, Fault>) -> Result<T, Failure> {
        result.map_err(|fault| match fault {
            Fault::Findings(findings) => {
                self.reporter.report(&findings);
                Failure::Broken(findings.first().map_or(Status::UNKNOWN, report::status))
            }
            Fault::InvalidLaunch(why) => {
                note("launch", &why);
                Failure::Refused(Status::INVALID_VALUE)
            }
        })
    }
}
