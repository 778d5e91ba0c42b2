//! Launches: parameters, attributes, and what is refused before anything runs.

use kiln_sim::device::{KernelInfo, LaunchConfig, Param};

use crate::abi::LaunchAttribute;
use crate::arch::{Limits, MAX_BLOCK, MAX_GRID, REGISTERS};
use crate::driver::Driver;
use crate::ffi::{HostAddress, In};
use crate::handle::Handle;
use crate::module::Function;
use crate::occupancy;
use crate::report::note;
use crate::status::{Outcome, Status};
use crate::work::{Launch, Work};

/// `CU_LAUNCH_PARAM_*`: what the entries of `extra` mean.
const PARAM_END: usize = 0;
const PARAM_BUFFER: usize = 1;
const PARAM_BUFFER_SIZE: usize = 2;
/// Entries of `extra` that are read: the two pairs, and the end.
const EXTRA_MAX: usize = 5;

/// `CUlaunchAttributeID`, as far as they mean something here.
const ATTRIBUTE_COOPERATIVE: u32 = 2;
const ATTRIBUTE_CLUSTER: u32 = 4;
/// Those that only give hints or ask for overlap that the simulator never makes use of: ignore, access policy,
/// cluster scheduling policy, programmatic stream serialization, priority, memory synchronisation domains, carveout.
const ATTRIBUTES_WITHOUT_EFFECT: [u32; 8] = [0, 1, 5, 6, 8, 9, 10, 14];

/// Bytes of parameters that a kernel may have.
const PARAMS_MAX: usize = 32_764;

/// Puts a kernel's parameters together from `kernelParams` or `extra`.
pub(crate) fn parameters(info: &KernelInfo, pointers: In<HostAddress>, extra: In<usize>) -> Outcome<Vec<u8>> {
    let bytes = info.params.iter().map(|param| (param.offset + param.size) as usize).max().unwrap_or(0);
    if !extra.is_null() {
        if !pointers.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        return from_buffer(extra, bytes);
    }
    if info.params.is_empty() {
        return Ok(Vec::new());
    }
    if pointers.is_null() {
        note(&info.name, &format!("launched without its {} parameters", info.params.len()));
        return Err(Status::INVALID_VALUE);
    }
    let mut buffer = vec![0; bytes];
    for (Param { offset, size }, from) in info.params.iter().zip(pointers.all(info.params.len())?) {
        from.read(&mut buffer[*offset as usize..(offset + size) as usize])?;
    }
    Ok(buffer)
}

/// The parameters as `CU_LAUNCH_PARAM_BUFFER_POINTER` gives them.
fn from_buffer(extra: In<usize>, bytes: usize) -> Outcome<Vec<u8>> {
    let (mut address, mut size) = (None, None);
    for at in (0..EXTRA_MAX).step_by(2) {
        match extra.at(at).get()? {
            PARAM_END => break,
            PARAM_BUFFER => address = Some(HostAddress(extra.at(at + 1).get()?)),
            PARAM_BUFFER_SIZE => size = Some(In::<usize>::from_address(extra.at(at + 1).get()?).get()?),
            _ => return Err(Status::INVALID_VALUE),
        }
    }
    let (Some(address), Some(size)) = (address, size) else { return Err(Status::INVALID_VALUE) };
    if size < bytes || size > PARAMS_MAX {
        note("launch", &format!("the parameter buffer has {size} bytes, the kernel's parameters {bytes}"));
        return Err(Status::INVALID_VALUE);
    }
    let mut buffer = vec![0; size];
    address.read(&mut buffer)?;
    buffer.truncate(bytes);
    Ok(buffer)
}

/// Takes launch attributes into a configuration.
pub(crate) fn apply(attributes: &[LaunchAttribute], config: &mut LaunchConfig) -> Outcome {
    for attribute in attributes {
        let words = attribute.words();
        match attribute.id {
            ATTRIBUTE_COOPERATIVE => config.cooperative = words[0] != 0,
            ATTRIBUTE_CLUSTER => config.cluster = Some(words),
            id if ATTRIBUTES_WITHOUT_EFFECT.contains(&id) => {}
            id => {
                note("cuLaunchKernelEx", &format!("launch attribute {id} is not supported by the simulator"));
                return Err(Status::NOT_SUPPORTED);
            }
        }
    }
    Ok(())
}

/// The volume of three dimensions, of which a caller may give any.
pub(crate) fn volume(dimensions: [u32; 3]) -> u64 {
    dimensions.iter().fold(1, |volume: u64, &size| volume.saturating_mul(size.into()))
}

/// What is wrong with a launch, if anything: the code, and why.
pub(crate) fn refuse(
    limits: &Limits,
    function: &Function,
    config: &LaunchConfig,
) -> Option<(Status, String)> {
    let info = function.kernel.info();
    let LaunchConfig { grid, block, dynamic_shared, .. } = *config;
    let outside =
        |size: [u32; 3], most: [u32; 3]| size.iter().zip(most).any(|(&size, most)| size == 0 || size > most);
    let threads = volume(block);
    if outside(grid, MAX_GRID) {
        return Some((Status::INVALID_VALUE, format!("grid {grid:?}, allowed are 1 to {MAX_GRID:?}")));
    }
    if outside(block, MAX_BLOCK) || threads > u64::from(info.max_threads) {
        let most = info.max_threads;
        let text = format!("block {block:?}, the kernel allows {most} threads and at most {MAX_BLOCK:?}");
        return Some((Status::INVALID_VALUE, text));
    }
    if occupancy::registers(info.registers, threads as u32) > REGISTERS {
        let text = format!("{threads} threads of {} registers, a block can have {REGISTERS}", info.registers);
        return Some((Status::LAUNCH_OUT_OF_RESOURCES, text));
    }
    if dynamic_shared > function.dynamic_max {
        let most = function.dynamic_max;
        let text = format!(
            "{dynamic_shared} bytes of dynamic shared memory, the function allows {most} \
             (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)"
        );
        return Some((Status::INVALID_VALUE, text));
    }
    refuse_cluster(limits, function, config).or_else(|| refuse_cooperative(limits, function, config))
}

fn refuse_cluster(limits: &Limits, function: &Function, config: &LaunchConfig) -> Option<(Status, String)> {
    let required = function.kernel.info().cluster;
    let cluster = match (config.cluster, required) {
        (Some(asked), Some(required)) if asked != required => {
            let text = format!("clusters of {asked:?}, the kernel was compiled for {required:?}");
            return Some((Status::INVALID_VALUE, text));
        }
        (asked, required) => asked.or(required)?,
    };
    let most = if function.large_clusters { limits.cluster.1 } else { limits.cluster.0 };
    let blocks = volume(cluster);
    if blocks == 0 || blocks > u64::from(most) {
        return Some((
            Status::INVALID_CLUSTER_SIZE,
            format!("clusters of {cluster:?}, allowed are {most} blocks"),
        ));
    }
    if config.grid.iter().zip(cluster).any(|(grid, cluster)| grid % cluster != 0) {
        let text = format!("grid {:?} does not divide into clusters of {cluster:?}", config.grid);
        return Some((Status::INVALID_CLUSTER_SIZE, text));
    }
    None
}

fn refuse_cooperative(
    limits: &Limits,
    function: &Function,
    config: &LaunchConfig,
) -> Option<(Status, String)> {
    if !config.cooperative {
        return None;
    }
    let info = function.kernel.info();
    let each = occupancy::blocks(limits, info, volume(config.block) as u32, config.dynamic_shared);
    let most = u64::from(each) * limits.multiprocessors as u64;
    let blocks = volume(config.grid);
    let text = format!("{blocks} blocks in a cooperative launch, {most} fit on the device at once");
    (blocks > most).then_some((Status::COOPERATIVE_LAUNCH_TOO_LARGE, text))
}

impl Driver {
    /// A launch that has been checked.
    pub(crate) fn prepare(
        &self,
        function: Handle,
        config: LaunchConfig,
        pointers: In<HostAddress>,
        extra: In<usize>,
    ) -> Outcome<Launch> {
        let this = self.functions.get(function)?;
        let info = this.kernel.info();
        if let Some((status, why)) = refuse(&self.limits, this, &config) {
            note(&info.name, &format!("launch refused: {why}"));
            return Err(status);
        }
        let params = parameters(info, pointers, extra)?;
        Ok(Launch { function, kernel: this.kernel.clone(), config, params })
    }

    /// Submits a launch to a stream.
    pub(crate) fn enqueue_launch(&mut self, stream: Handle, launch: Launch) -> Outcome {
        if self.functions.get(launch.function)?.context != self.streams.get(stream)?.context {
            return Err(Status::INVALID_HANDLE);
        }
        let name = launch.kernel.info().name.clone();
        self.enqueue(stream, &name, Work::Launch(launch))
    }
}
