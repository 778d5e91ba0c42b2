//! What there is to train on, before anything is opened: the driver, its version, the devices.

#![allow(unsafe_code)] // calls of the driver that cudarc has no safe form of

use std::fmt;

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUresult};
use cudarc::driver::{CudaContext, DriverError, result};

use super::device::text;
use super::{Team, fault};
use crate::Error;

/// A CUDA version, as drivers give it: 1000 major + 10 minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion(pub i32);

impl CudaVersion {
    /// What the embedded PTX needs: its ISA is 8.4, CUDA 12.4's, which drivers from R550 on take.
    pub const NEEDED: CudaVersion = CudaVersion(12_040);
    /// The oldest branch of NVIDIA's driver that has it.
    pub const NEEDED_BRANCH: &'static str = "R550";
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// Compute capability that the embedded PTX needs.
const CAPABILITY_NEEDED: (i32, i32) = (8, 0);

/// What is known of a device before it is opened.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuInfo {
    /// The device's own name.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// CUDA version that the driver supports.
    pub driver: CudaVersion,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// All of the device's memory.
    pub memory_bytes: usize,
    /// Shared memory that a block may have where its kernel asks for it.
    pub shared_bytes: u32,
    /// Whether blocks can form clusters.
    pub clusters: bool,
    /// Whether the system stops a kernel that runs for seconds, as it does where the GPU drives a display.
    pub watchdog: bool,
}

impl GpuInfo {
    /// Whether it is Kiln's simulator in the place of a GPU.
    pub fn is_simulator(&self) -> bool {
        self.name.starts_with("Kiln simulator")
    }

    /// How the blocks of the resident engine can work together there, the likely faster way first: consumer GPUs since sm_120 have
    /// clusters, but ptxas makes calls of their multicast copies.
    pub(crate) fn teams(&self) -> &'static [Team] {
        match (self.clusters, self.capability.0) {
            (false, _) => &[Team::Grid],
            (true, 12) => &[Team::Grid, Team::Cluster],
            (true, _) => &[Team::Cluster, Team::Grid],
        }
    }

    /// Whether warpgroups can multiply (`wgmma`): what is compiled for sm_90a runs on no other.
    pub(crate) fn warpgroups(&self) -> bool {
        self.capability == (9, 0)
    }

    /// Whether six products of bfloat16 on tensor cores take less time than one of float32 elsewhere. By the data sheets bfloat16 is
    /// 16 times as fast on an A100, 15 on an H100, and 28 on a B200; on GPUs for graphics two to four times. (An H20, of sm_90 too, has
    /// three times alone: for that there is [`crate::Choices`].)
    pub(crate) fn fast_planes(&self) -> bool {
        [(8, 0), (9, 0), (10, 0), (10, 3)].contains(&self.capability)
    }

    /// Whether Kiln's kernels can run on it.
    ///
    /// # Errors
    /// [`Error::DriverTooOld`] or [`Error::Capability`].
    pub fn check(&self) -> Result<(), Error> {
        if self.driver < CudaVersion::NEEDED {
            return Err(Error::DriverTooOld {
                found: self.driver.to_string(),
                needed: CudaVersion::NEEDED.to_string(),
            });
        }
        if self.capability < CAPABILITY_NEEDED {
            let (device, found) = (self.name.clone(), self.capability);
            return Err(Error::Capability { device, found, needed: CAPABILITY_NEEDED });
        }
        Ok(())
    }
}

impl fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.capability;
        write!(f, "{}, sm_{major}{minor}, driver {}", self.name, self.driver)
    }
}

/// The CUDA version that the driver supports. Needs no device.
///
/// # Errors
/// [`Error::NoGpu`] where there is no driver.
pub fn driver() -> Result<CudaVersion, Error> {
    // SAFETY: loading libcuda runs its initialisers, which is what any CUDA program does.
    if !unsafe { sys::is_culib_present() } {
        let reason =
            "no CUDA driver: libcuda.so was not found; install NVIDIA's driver, or use the host engine";
        return Err(Error::NoGpu { reason: reason.to_owned() });
    }
    let mut version = 0;
    // SAFETY: the call writes one integer, to a place that lives.
    let answer = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    answer.map_err(|error| Error::DriverBroken { reason: text(error) })?;
    Ok(CudaVersion(version))
}

/// How many devices there are.
///
/// # Errors
/// [`Error::NoGpu`] where there is no driver or no device, [`Error::DriverBroken`] where the driver does not start.
pub fn devices() -> Result<usize, Error> {
    driver()?;
    let none = || Error::NoGpu {
        reason: "the CUDA driver finds no device: there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it"
            .into(),
    };
    result::init().map_err(|error| match error.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => none(),
        _ => Error::DriverBroken { reason: text(error) },
    })?;
    match result::device::get_count().map_err(unknown)? {
        count @ 1.. => Ok(count as usize),
        _ => Err(none()),
    }
}

/// What device number `ordinal` is, whether or not it can run Kiln's kernels.
///
/// # Errors
/// As [`devices`], and [`Error::NoGpu`] where there is no such device.
pub fn inspect(ordinal: usize) -> Result<GpuInfo, Error> {
    let driver = driver()?;
    let count = devices()?;
    let number = i32::try_from(ordinal).ok().filter(|_| ordinal < count);
    let Some(number) = number else {
        let reason = format!("device {ordinal} asked for, expected a number below {count}");
        return Err(Error::NoGpu { reason });
    };
    let device = result::device::get(number).map_err(unknown)?;
    let attribute = |attribute: Attribute| {
        // SAFETY: `device` comes from `get`, above.
        unsafe { result::device::get_attribute(device, attribute) }.map_err(unknown)
    };
    Ok(GpuInfo {
        name: result::device::get_name(device).map_err(unknown)?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        driver,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as u32,
        // SAFETY: `device` comes from `get`, above.
        memory_bytes: unsafe { result::device::total_mem(device) }.map_err(unknown)?,
        shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?.max(0)
            as u32,
        clusters: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH)? > 0,
        watchdog: attribute(Attribute::CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT)? > 0,
    })
}

/// Looks for a driver and for device number `ordinal`, and whether they can run Kiln's kernels.
///
/// # Errors
/// As [`inspect`] and [`GpuInfo::check`].
pub fn probe(ordinal: usize) -> Result<GpuInfo, Error> {
    let info = inspect(ordinal)?;
    info.check()?;
    Ok(info)
}

/// Bytes of a device's memory that are free now.
///
/// # Errors
/// As [`inspect`], and [`Error::Gpu`] where the device cannot be opened.
pub fn free_memory(ordinal: usize) -> Result<usize, Error> {
    inspect(ordinal)?;
    let context = CudaContext::new(ordinal).map_err(|error| fault("opening the device", error))?;
    Ok(context.mem_get_info().map_err(unknown)?.0)
}

fn unknown(error: DriverError) -> Error {
    fault("asking for the device's properties", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernels_need_is_what_their_ptx_says() {
        // PTX ISA 8.4 is CUDA 12.4's (PTX ISA, release notes).
        assert!(include_str!("../../../../kernels/ptx/epoch.ptx").contains(".version 8.4"));
        assert_eq!(
            (CudaVersion::NEEDED.to_string(), CudaVersion(13_010).to_string()),
            ("12.4".into(), "13.1".into())
        );
    }

    fn info(driver: i32, capability: (i32, i32)) -> GpuInfo {
        GpuInfo {
            name: "GPU".into(),
            capability,
            driver: CudaVersion(driver),
            multiprocessors: 1,
            memory_bytes: 1,
            shared_bytes: 1,
            clusters: capability.0 >= 9,
            watchdog: false,
        }
    }

    #[test]
    fn clusters_come_first_where_they_are_likely_faster() {
        let first = |capability| info(13_000, capability).teams()[0];
        assert_eq!(
            [(8, 0), (9, 0), (10, 0), (12, 0)].map(first),
            [Team::Grid, Team::Cluster, Team::Cluster, Team::Grid]
        );
        assert_eq!(info(13_000, (8, 9)).teams(), [Team::Grid]);
    }

    #[test]
    fn devices_that_are_too_old_are_told_apart() {
        assert_eq!(info(12_040, (8, 0)).check(), Ok(()));
        assert_eq!(info(13_000, (12, 0)).check(), Ok(()));
        let (found, needed) = ("12.3".to_owned(), "12.4".to_owned());
        assert_eq!(info(12_030, (9, 0)).check(), Err(Error::DriverTooOld { found, needed }));
        let (device, found, needed) = ("GPU".to_owned(), (7, 5), (8, 0));
        assert_eq!(info(12_040, (7, 5)).check(), Err(Error::Capability { device, found, needed }));
    }
}
