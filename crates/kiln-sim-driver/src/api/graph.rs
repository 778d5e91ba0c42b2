//! Graphs as a whole.

#![allow(non_snake_case)]

use crate::abi::{Instantiation, UpdateResult};
use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{In, Out};
use crate::graph::{Graph, Node};
use crate::handle::Handle;
use crate::report::note;
use crate::status::{Outcome, Status};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_*`: free on launch, upload, launch from the device, node priorities.
const AUTO_FREE: u64 = 1;
const UPLOAD: u64 = 2;
const DEVICE_LAUNCH: u64 = 4;
const FLAGS: u64 = 0xf;

fn instantiate(session: &mut Session, graph: Handle, flags: u64, allowed: u64) -> Outcome<Handle> {
    session.context()?;
    session.graphs.get(graph)?;
    if flags & !allowed != 0 || flags & AUTO_FREE != 0 && flags & DEVICE_LAUNCH != 0 {
        return Err(Status::INVALID_VALUE);
    }
    if flags & DEVICE_LAUNCH != 0 {
        note("cuGraphInstantiate", "launches from the device are not supported by the simulator");
        return Err(Status::NOT_SUPPORTED);
    }
    session.instantiate(graph)
}

/// Writes a list as CUDA does: as many as there is room for, or only how many there are if there is no room at all.
pub(super) fn list(items: &[Handle], to: Out<Handle>, count: Out<usize>) -> Outcome {
    let room = count.get()?;
    if to.is_null() {
        return count.set(items.len());
    }
    to.set_all(items, room)?;
    to.set_from(items.len().min(room), room, 0)?;
    count.set(items.len().min(room))
}

/// The edges of a graph: where they begin and where they end.
fn edges(session: &Session, graph: Handle) -> Outcome<(Vec<Handle>, Vec<Handle>)> {
    let mut edges = (Vec::new(), Vec::new());
    for &to in &session.graphs.get(graph)?.nodes {
        for &from in &session.nodes.get(to)?.after {
            edges.0.push(from);
            edges.1.push(to);
        }
    }
    Ok(edges)
}

/// Copies a graph with all its nodes.
fn clone(session: &mut Session, original: Handle) -> Outcome<Handle> {
    let nodes = session.graphs.get(original)?.nodes.clone();
    let graph = session.graphs.insert(Graph::default());
    let mut copies: Vec<(Handle, Handle)> = Vec::new();
    for &node in &nodes {
        let work = session.nodes.get(node)?.work.clone();
        copies.push((node, session.add_node(graph, &[], work)?));
    }
    let copy_of = |node: Handle| copies.iter().find(|pair| pair.0 == node).map(|pair| pair.1);
    for &(node, copy) in &copies {
        let Node { after, .. } = session.nodes.get(node)?;
        let after = after.iter().filter_map(|&before| copy_of(before)).collect();
        session.nodes.get_mut(copy)?.after = after;
    }
    Ok(graph)
}

calls! {
    fn cuGraphCreate(graph: Out<Handle>, flags: u32) |session| {
        graph.check()?;
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        let created = session.graphs.insert(Graph::default());
        graph.set(created)
    }

    fn cuGraphClone(graph: Out<Handle>, original: Handle) |session| {
        graph.check()?;
        graph.set(clone(&mut session, original)?)
    }

    fn cuGraphDestroy(graph: Handle) |session| {
        session.destroy_graph(graph)
    }

    fn cuGraphInstantiateWithFlags(exec: Out<Handle>, graph: Handle, flags: u64) |session| {
        exec.check()?;
        exec.set(instantiate(&mut session, graph, flags, FLAGS & !UPLOAD)?)
    }

    fn cuGraphInstantiateWithParams(exec: Out<Handle>, graph: Handle, params: Out<Instantiation>) |session| {
        exec.check()?;
        let given = params.get()?;
        let made = instantiate(&mut session, graph, given.flags, FLAGS);
        params.set(Instantiation { error_node: 0, result: i32::from(made.is_err()), ..given })?;
        exec.set(made?)
    }

    fn cuGraphExecDestroy(exec: Handle) |session| {
        session.destroy_exec(exec)
    }

    fn cuGraphLaunch(exec: Handle, stream: Handle) |session| {
        let stream = session.stream(stream)?;
        if session.part(stream)?.is_some() {
            session.invalidate_capture_of(stream);
            note("cuGraphLaunch", "graphs within graphs are not supported by the simulator");
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        session.launch_graph(exec, stream)
    }

    // There is nothing to prepare.
    fn cuGraphUpload(exec: Handle, stream: Handle) |session| {
        session.execs.get(exec)?;
        session.stream(stream).map(drop)
    }

    fn cuGraphExecUpdate_v2(exec: Handle, graph: Handle, result: Out<UpdateResult>) |session| {
        let mismatch = session.update_exec(exec, graph)?;
        let (code, error_node) = mismatch.map_or((0, 0), |mismatch| (mismatch.result, mismatch.node));
        result.set_if_wanted(UpdateResult { result: code, error_node, error_from: 0 })?;
        mismatch.map_or(Ok(()), |_| Err(Status::GRAPH_EXEC_UPDATE_FAILURE))
    }

    fn cuGraphGetNodes(graph: Handle, nodes: Out<Handle>, count: Out<usize>) |session| {
        list(&session.graphs.get(graph)?.nodes, nodes, count)
    }

    fn cuGraphGetRootNodes(graph: Handle, nodes: Out<Handle>, count: Out<usize>) |session| {
        let is_root = |node: &Handle| session.nodes.get(*node).is_ok_and(|node| node.after.is_empty());
        let roots: Vec<Handle> = session.graphs.get(graph)?.nodes.iter().copied().filter(is_root).collect();
        list(&roots, nodes, count)
    }

    fn cuGraphGetEdges(graph: Handle, from: Out<Handle>, to: Out<Handle>, count: Out<usize>) |session| {
        let (starts, ends) = edges(&session, graph)?;
        if from.is_null() != to.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let room = count.get()?;
        list(&starts, from, count)?;
        if to.is_null() {
            return Ok(());
        }
        count.set(room)?;
        list(&ends, to, count)
    }

    fn cuGraphAddDependencies(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize) |session| {
        let (from, to) = (from.all(count)?, to.all(count)?);
        for (from, to) in from.into_iter().zip(to) {
            session.add_edge(graph, from, to)?;
        }
        Ok(())
    }
}
