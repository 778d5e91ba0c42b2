//! Nodes of graphs.

#![allow(non_snake_case)]

use kiln_sim::device::LaunchConfig as Config;

use crate::abi::{Copy3d, FillNode, HostNode, KernelNode, KernelNode2};
use crate::api::copy::{describe, described_3d};
use crate::api::fill::fill_of;
use crate::api::graph::list;
use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{HostCall, In, Out};
use crate::graph;
use crate::handle::Handle;
use crate::status::{Outcome, Status};
use crate::work::Work;

/// What a node is to be added to, and after which others.
#[derive(Clone, Copy)]
struct Position {
    graph: Handle,
    after: In<Handle>,
    count: usize,
}

fn add(session: &mut Session, node: Out<Handle>, at: Position, work: Work) -> Outcome {
    node.check()?;
    let after = at.after.all(at.count)?;
    node.set(session.add_node(at.graph, &after, work)?)
}

fn kernel(session: &Session, params: In<KernelNode2>) -> Outcome<Work> {
    let KernelNode2 { node, kernel, .. } = params.get()?;
    if kernel != 0 {
        return Err(Status::NOT_SUPPORTED); // of a library
    }
    let KernelNode { function, grid, block, shared, params, extra } = node;
    let config = Config { grid, block, cluster: None, dynamic_shared: shared, cooperative: false };
    session.prepare(function, config, params, extra).map(Work::Launch)
}

fn fill(params: In<FillNode>) -> Outcome<Work> {
    let FillNode { target, pitch, value, element, width, height } = params.get()?;
    let bytes = value.to_le_bytes();
    let element = match element {
        1 | 2 | 4 => &bytes[..element as usize],
        _ => return Err(Status::INVALID_VALUE),
    };
    fill_of(target, pitch, [width, height], element).map(Work::Fill)
}

fn host(params: In<HostNode>) -> Outcome<Work> {
    let HostNode { function, argument } = params.get()?;
    HostCall::new(function, argument).map(Work::Host)
}

fn copy(session: &Session, params: In<Copy3d>) -> Outcome<Work> {
    described_3d(session, params.get()?).map(Work::Copy)
}

/// Changes what a node does; its kind stays.
fn change(session: &mut Session, node: Handle, work: Work) -> Outcome {
    let node = session.nodes.get_mut(node)?;
    if graph::kind(&node.work) != graph::kind(&work) {
        return Err(Status::INVALID_VALUE);
    }
    (node.work, node.pointers) = (work, Vec::new());
    Ok(())
}

calls! {
    fn cuGraphAddEmptyNode(node: Out<Handle>, graph: Handle, after: In<Handle>, count: usize) |session| {
        add(&mut session, node, Position { graph, after, count }, Work::Nothing)
    }

    fn cuGraphAddKernelNode_v2(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<KernelNode2>,
    ) |session| {
        let work = kernel(&session, params)?;
        add(&mut session, node, Position { graph, after, count }, work)
    }

    fn cuGraphAddMemcpyNode(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<Copy3d>,
        _context: Handle,
    ) |session| {
        let work = copy(&session, params)?;
        add(&mut session, node, Position { graph, after, count }, work)
    }

    fn cuGraphAddMemsetNode(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<FillNode>,
        _context: Handle,
    ) |session| {
        add(&mut session, node, Position { graph, after, count }, fill(params)?)
    }

    fn cuGraphAddHostNode(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<HostNode>,
    ) |session| {
        add(&mut session, node, Position { graph, after, count }, host(params)?)
    }

    fn cuGraphNodeGetType(node: Handle, kind: Out<i32>) |session| {
        kind.set(graph::kind(&session.nodes.get(node)?.work))
    }

    fn cuGraphNodeGetDependencies(node: Handle, nodes: Out<Handle>, count: Out<usize>) |session| {
        list(&session.nodes.get(node)?.after, nodes, count)
    }

    // The addresses stay valid until the node is changed or destroyed.
    fn cuGraphKernelNodeGetParams_v2(node: Handle, params: Out<KernelNode2>) |session| {
        let node = session.nodes.get_mut(node)?;
        let Work::Launch(launch) = &node.work else { return Err(Status::INVALID_VALUE) };
        let start = launch.params.as_ptr().expose_provenance();
        node.pointers = launch.kernel.info().params.iter().map(|param| start + param.offset as usize).collect();
        let given = KernelNode {
            function: launch.function,
            grid: launch.config.grid,
            block: launch.config.block,
            shared: launch.config.dynamic_shared,
            params: In::from_address(node.pointers.as_ptr().expose_provenance()),
            extra: In::from_address(0),
        };
        params.set(KernelNode2 { node: given, kernel: 0, context: 0 })
    }

    fn cuGraphKernelNodeSetParams_v2(node: Handle, params: In<KernelNode2>) |session| {
        let work = kernel(&session, params)?;
        change(&mut session, node, work)
    }

    fn cuGraphExecKernelNodeSetParams_v2(exec: Handle, node: Handle, params: In<KernelNode2>) |session| {
        let work = kernel(&session, params)?;
        session.update_step(exec, node, work)
    }

    fn cuGraphMemcpyNodeGetParams(node: Handle, params: Out<Copy3d>) |session| {
        let Work::Copy(copy) = &session.nodes.get(node)?.work else { return Err(Status::INVALID_VALUE) };
        params.set(describe(copy))
    }

    fn cuGraphMemcpyNodeSetParams(node: Handle, params: In<Copy3d>) |session| {
        let work = copy(&session, params)?;
        change(&mut session, node, work)
    }

    fn cuGraphExecMemcpyNodeSetParams(exec: Handle, node: Handle, params: In<Copy3d>, _context: Handle) |session| {
        let work = copy(&session, params)?;
        session.update_step(exec, node, work)
    }

    fn cuGraphMemsetNodeGetParams(node: Handle, params: Out<FillNode>) |session| {
        let Work::Fill(fill) = &session.nodes.get(node)?.work else { return Err(Status::INVALID_VALUE) };
        let mut value = [0; 4];
        value[..fill.pattern.len()].copy_from_slice(&fill.pattern);
        let [width, height] = fill.extent.map(|size| size as usize);
        params.set(FillNode {
            target: fill.target,
            pitch: fill.pitch as usize,
            value: u32::from_le_bytes(value),
            element: fill.pattern.len() as u32,
            width,
            height,
        })
    }

    fn cuGraphMemsetNodeSetParams(node: Handle, params: In<FillNode>) |session| {
        change(&mut session, node, fill(params)?)
    }

    fn cuGraphExecMemsetNodeSetParams(exec: Handle, node: Handle, params: In<FillNode>, _context: Handle) |session| {
        session.update_step(exec, node, fill(params)?)
    }

    fn cuGraphHostNodeGetParams(node: Handle, params: Out<HostNode>) |session| {
        let Work::Host(call) = &session.nodes.get(node)?.work else { return Err(Status::INVALID_VALUE) };
        let (function, argument) = call.parts();
        params.set(HostNode { function: Some(function), argument })
    }

    fn cuGraphHostNodeSetParams(node: Handle, params: In<HostNode>) |session| {
        change(&mut session, node, host(params)?)
    }

    fn cuGraphExecHostNodeSetParams(exec: Handle, node: Handle, params: In<HostNode>) |session| {
        session.update_step(exec, node, host(params)?)
    }
}
