//! Launches.

#![allow(non_snake_case)]

use kiln_sim::device::LaunchConfig as Config;

use crate::abi::LaunchConfig;
use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{HostAddress, In};
use crate::handle::Handle;
use crate::launch;
use crate::status::Outcome;

/// The parameters of a launch, in either of the two forms.
#[derive(Clone, Copy)]
struct Params {
    pointers: In<HostAddress>,
    extra: In<usize>,
}

fn submit(
    session: &mut Session,
    function: Handle,
    stream: Handle,
    config: Config,
    params: Params,
) -> Outcome {
    let stream = session.stream(stream)?;
    let launch = session.prepare(function, config, params.pointers, params.extra)?;
    session.enqueue_launch(stream, launch)
}

calls! {
    fn cuLaunchKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Handle,
        pointers: In<HostAddress>,
        extra: In<usize>,
    ) |session| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let config = Config { grid, block, cluster: None, dynamic_shared: shared, cooperative: false };
        submit(&mut session, function, stream, config, Params { pointers, extra })
    }

    fn cuLaunchCooperativeKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Handle,
        pointers: In<HostAddress>,
    ) |session| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let config = Config { grid, block, cluster: None, dynamic_shared: shared, cooperative: true };
        submit(&mut session, function, stream, config, Params { pointers, extra: In::from_address(0) })
    }

    fn cuLaunchKernelEx(config: In<LaunchConfig>, function: Handle, pointers: In<HostAddress>, extra: In<usize>) |session| {
        let LaunchConfig { grid, block, shared, stream, attributes, count } = config.get()?;
        let mut config = Config { grid, block, cluster: None, dynamic_shared: shared, cooperative: false };
        launch::apply(&attributes.all(count as usize)?, &mut config)?;
        submit(&mut session, function, stream, config, Params { pointers, extra })
    }
}
