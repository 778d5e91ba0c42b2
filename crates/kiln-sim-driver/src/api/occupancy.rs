//! Occupancy.

#![allow(non_snake_case)]

use kiln_sim::device::{KernelInfo, LaunchConfig as Config};

use crate::abi::LaunchConfig;
use crate::arch::Limits;
use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{In, Out};
use crate::handle::Handle;
use crate::launch;
use crate::occupancy;
use crate::status::{Outcome, Status};

/// `CUoccupancyB2DSize`: the program's function from block size to bytes of dynamic shared memory.
type SizeToShared = Option<extern "C" fn(i32) -> usize>;

fn size(value: i32) -> Outcome<u32> {
    u32::try_from(value).map_err(|_| Status::INVALID_VALUE)
}

/// Bytes of shared memory as the calculator takes them; more than 4 GiB never fit.
fn shared(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn known(session: &Session, function: Handle) -> Outcome<(Limits, KernelInfo)> {
    Ok((session.limits, session.functions.get(function)?.kernel.info().clone()))
}

fn active(session: &Session, count: Out<i32>, function: Handle, threads: i32, dynamic: usize) -> Outcome {
    let (limits, info) = known(session, function)?;
    if threads <= 0 {
        return Err(Status::INVALID_VALUE);
    }
    count.set(occupancy::blocks(&limits, &info, size(threads)?, shared(dynamic)) as i32)
}

/// The best block size. The program's function is called without the driver's lock, for it may call the driver.
fn potential(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    to_shared: SizeToShared,
    dynamic: usize,
    most: i32,
) -> Outcome {
    grid.check()?;
    block.check()?;
    let (limits, info) = known(&Session::open()?, function)?;
    let of = |threads: u32| to_shared.map_or(dynamic, |to_shared| to_shared(threads as i32));
    let (blocks, threads) = occupancy::best(&limits, &info, size(most)?, |threads| shared(of(threads)));
    grid.set(blocks as i32)?;
    block.set(threads as i32)
}

/// Blocks of a launch that one multiprocessor holds, and the cluster that the launch asks for.
fn resident(session: &Session, function: Handle, config: &LaunchConfig) -> Outcome<(u32, [u32; 3])> {
    let mut parsed = Config {
        grid: config.grid,
        block: config.block,
        cluster: None,
        dynamic_shared: config.shared,
        cooperative: false,
    };
    launch::apply(&config.attributes.all(config.count as usize)?, &mut parsed)?;
    let (limits, info) = known(session, function)?;
    let threads = config.block.iter().try_fold(1_u32, |volume, &size| volume.checked_mul(size));
    let threads = threads.filter(|&threads| threads > 0).ok_or(Status::INVALID_VALUE)?;
    let cluster = parsed.cluster.or(info.cluster).unwrap_or([1; 3]);
    Ok((occupancy::blocks(&limits, &info, threads, config.shared), cluster))
}

calls! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(count: Out<i32>, function: Handle, threads: i32, dynamic: usize) |session| {
        active(&session, count, function, threads, dynamic)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        count: Out<i32>,
        function: Handle,
        threads: i32,
        dynamic: usize,
        flags: u32,
    ) |session| {
        if flags > 1 {
            return Err(Status::INVALID_VALUE);
        }
        active(&session, count, function, threads, dynamic)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: Out<usize>, function: Handle, blocks: i32, threads: i32) |session| {
        let (limits, info) = known(&session, function)?;
        let available = occupancy::dynamic_shared(&limits, &info, size(blocks)?, size(threads)?);
        bytes.set(available.ok_or(Status::INVALID_VALUE)? as usize)
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>,
        block: Out<i32>,
        function: Handle,
        to_shared: Option<extern "C" fn(i32) -> usize>,
        dynamic: usize,
        most: i32,
    ) {
        potential(grid, block, function, to_shared, dynamic, most)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>,
        block: Out<i32>,
        function: Handle,
        to_shared: Option<extern "C" fn(i32) -> usize>,
        dynamic: usize,
        most: i32,
        flags: u32,
    ) {
        if flags > 1 {
            return Err(Status::INVALID_VALUE);
        }
        potential(grid, block, function, to_shared, dynamic, most)
    }

    fn cuOccupancyMaxActiveClusters(clusters: Out<i32>, function: Handle, config: In<LaunchConfig>) |session| {
        let (each, cluster) = resident(&session, function, &config.get()?)?;
        let blocks = launch::volume(cluster);
        let limits = session.limits;
        if blocks == 0 || blocks > u64::from(limits.cluster.1) {
            return Err(Status::INVALID_CLUSTER_SIZE);
        }
        clusters.set((u64::from(each) * limits.multiprocessors as u64 / blocks) as i32)
    }

    fn cuOccupancyMaxPotentialClusterSize(largest: Out<i32>, function: Handle, config: In<LaunchConfig>) |session| {
        let (each, _) = resident(&session, function, &config.get()?)?;
        let (portable, most) = session.limits.cluster;
        let allowed = if session.functions.get(function)?.large_clusters { most } else { portable };
        if portable == 1 {
            return Err(Status::NOT_SUPPORTED); // no clusters on this architecture
        }
        if each == 0 {
            return Err(Status::LAUNCH_OUT_OF_RESOURCES);
        }
        largest.set(allowed as i32)
    }
}
