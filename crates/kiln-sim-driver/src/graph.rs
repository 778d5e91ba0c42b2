//! Graphs, and their executable form.
//!
//! A graph's nodes run in an order that its edges allow, each with a stamp that follows those of its dependencies
//! alone. So two nodes without a path between them that touch the same bytes are a race.

use std::collections::{BTreeMap, BTreeSet};

use crate::driver::Driver;
use crate::handle::Handle;
use crate::order::Point;
use crate::report::note;
use crate::status::{Outcome, Status};
use crate::work::Work;

/// A graph: its nodes, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Handle>,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    graph: Handle,
    /// What it comes after.
    pub(crate) after: Vec<Handle>,
    pub(crate) work: Work,
    /// Addresses of a kernel's parameters, for a caller who asked for them.
    pub(crate) pointers: Vec<usize>,
}

/// A graph that can be launched.
#[derive(Debug)]
pub(crate) struct Exec {
    /// Its steps, in an order in which they may run.
    steps: Vec<Step>,
    /// Timelines of its branches.
    lines: Vec<usize>,
    /// The end of its last launch, which the next one waits for.
    last: Point,
}

#[derive(Clone, Debug)]
struct Step {
    /// The node that it was made of.
    node: Handle,
    /// The steps that it comes after.
    after: Vec<usize>,
    /// Its timeline, among the graph's.
    line: usize,
    work: Work,
}

/// `CUgraphNodeType`.
pub(crate) fn kind(work: &Work) -> i32 {
    match work {
        Work::Launch(_) => 0,
        Work::Copy(_) => 1,
        Work::Fill(_) => 2,
        Work::Host(_) => 3,
        Work::Nothing | Work::Allocate(_) | Work::Free(_) => 5,
    }
}

/// `CUgraphExecUpdateResult`, for what stands in the way of an update.
pub(crate) const UPDATE_TOPOLOGY_CHANGED: i32 = 2;
pub(crate) const UPDATE_TYPE_CHANGED: i32 = 3;

/// What stands in the way of an update: a `CUgraphExecUpdateResult` and the node at fault, if it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) result: i32,
    pub(crate) node: Handle,
}

impl Driver {
    /// Adds a node to a graph.
    pub(crate) fn add_node(&mut self, graph: Handle, after: &[Handle], work: Work) -> Outcome<Handle> {
        self.graphs.get(graph)?;
        for &earlier in after {
            if self.nodes.get(earlier)?.graph != graph {
                return Err(Status::INVALID_VALUE);
            }
        }
        let node = self.nodes.insert(Node { graph, after: after.to_vec(), work, pointers: Vec::new() });
        self.graphs.get_mut(graph)?.nodes.push(node);
        Ok(node)
    }

    /// Adds an edge.
    pub(crate) fn add_edge(&mut self, graph: Handle, from: Handle, to: Handle) -> Outcome {
        if self.nodes.get(from)?.graph != graph || self.nodes.get(to)?.graph != graph {
            return Err(Status::INVALID_VALUE);
        }
        let node = self.nodes.get_mut(to)?;
        if node.after.contains(&from) {
            return Err(Status::INVALID_VALUE);
        }
        node.after.push(from);
        Ok(())
    }

    /// Nodes, and all that they come after.
    pub(crate) fn ancestors(&self, nodes: &[Handle]) -> Outcome<BTreeSet<Handle>> {
        let mut known = BTreeSet::new();
        let mut open = nodes.to_vec();
        while let Some(node) = open.pop() {
            if known.insert(node) {
                open.extend(&self.nodes.get(node)?.after);
            }
        }
        Ok(known)
    }

    /// Removes a graph and its nodes.
    pub(crate) fn destroy_graph(&mut self, graph: Handle) -> Outcome {
        for node in self.graphs.remove(graph)?.nodes {
            self.nodes.remove(node)?;
        }
        Ok(())
    }

    /// A graph's nodes as steps, in an order that its edges allow; an error if they form a circle.
    fn steps(&self, graph: Handle) -> Outcome<(Vec<Step>, usize)> {
        let mut open = self.graphs.get(graph)?.nodes.clone();
        let mut placed: BTreeMap<Handle, usize> = BTreeMap::new();
        let mut steps: Vec<Step> = Vec::new();
        let mut ends: Vec<usize> = Vec::new(); // of each branch, its last step
        while !open.is_empty() {
            let ready = |node: &Handle| {
                self.nodes
                    .get(*node)
                    .is_ok_and(|node| node.after.iter().all(|before| placed.contains_key(before)))
            };
            let at = open.iter().position(ready).ok_or(Status::INVALID_VALUE)?;
            let node = open.remove(at);
            let Node { after, work, .. } = self.nodes.get(node)?;
            let after: Vec<usize> = after.iter().map(|before| placed[before]).collect();
            // A step continues the branch of a step that it comes after, if no other does.
            let line = ends.iter().position(|end| after.contains(end)).unwrap_or(ends.len());
            if line == ends.len() {
                ends.push(0);
            }
            ends[line] = steps.len();
            placed.insert(node, steps.len());
            steps.push(Step { node, after, line, work: work.clone() });
        }
        Ok((steps, ends.len()))
    }

    /// Makes a graph executable.
    pub(crate) fn instantiate(&mut self, graph: Handle) -> Outcome<Handle> {
        let (steps, lines) = self.steps(graph)?;
        let lines = (0..lines).map(|_| self.order.open()).collect();
        Ok(self.execs.insert(Exec { steps, lines, last: Point::default() }))
    }

    /// Removes an executable graph.
    pub(crate) fn destroy_exec(&mut self, exec: Handle) -> Outcome {
        for line in self.execs.remove(exec)?.lines {
            self.order.timelines.retire(line);
        }
        Ok(())
    }

    /// Launches an executable graph on a stream.
    pub(crate) fn launch_graph(&mut self, exec: Handle, stream: Handle) -> Outcome {
        let Exec { steps, lines, last } = self.execs.get(exec)?;
        let (steps, lines, last) = (steps.clone(), lines.clone(), last.clone());
        let context = self.streams.get(stream)?.context;
        // A graph does not keep the code of its kernels.
        for step in &steps {
            if let Work::Launch(launch) = &step.work
                && self.functions.get(launch.function).is_err()
            {
                let name = &launch.kernel.info().name;
                note("cuGraphLaunch", &format!("the module of kernel {name} has been unloaded"));
                return Err(Status::INVALID_HANDLE);
            }
        }
        let mut start = self.here(stream)?;
        start.join(&last);
        let mut points: Vec<Point> = Vec::with_capacity(steps.len());
        let mut end = start.clone();
        for step in steps {
            let mut before = if step.after.is_empty() { start.clone() } else { Point::default() };
            step.after.iter().for_each(|&earlier| before.join(&points[earlier]));
            let label = format!("{} in a graph", what(&step.work));
            let point = self.submit(context, lines[step.line], before, &label, step.work)?;
            end.join(&point);
            points.push(point);
        }
        self.streams.get_mut(stream)?.point = end.clone();
        self.execs.get_mut(exec)?.last = end;
        Ok(())
    }

    /// Gives an executable graph the parameters of another graph of the same form.
    pub(crate) fn update_exec(&mut self, exec: Handle, graph: Handle) -> Outcome<Option<Mismatch>> {
        let (new, _) = self.steps(graph)?;
        let exec = self.execs.get_mut(exec)?;
        let differs = |(old, new): &(&Step, &Step)| old.after != new.after;
        let pairs = || exec.steps.iter().zip(&new);
        if exec.steps.len() != new.len() {
            return Ok(Some(Mismatch { result: UPDATE_TOPOLOGY_CHANGED, node: 0 }));
        }
        if let Some((_, new)) = pairs().find(differs) {
            return Ok(Some(Mismatch { result: UPDATE_TOPOLOGY_CHANGED, node: new.node }));
        }
        if let Some((_, new)) = pairs().find(|(old, new)| kind(&old.work) != kind(&new.work)) {
            return Ok(Some(Mismatch { result: UPDATE_TYPE_CHANGED, node: new.node }));
        }
        for (old, new) in exec.steps.iter_mut().zip(new) {
            old.work = new.work;
        }
        Ok(None)
    }

    /// Changes what one step of an executable graph does; its kind stays.
    pub(crate) fn update_step(&mut self, exec: Handle, node: Handle, work: Work) -> Outcome {
        let exec = self.execs.get_mut(exec)?;
        let step = exec.steps.iter_mut().find(|step| step.node == node).ok_or(Status::INVALID_VALUE)?;
        if kind(&step.work) != kind(&work) {
            return Err(Status::INVALID_VALUE);
        }
        step.work = work;
        Ok(())
    }
}

/// What an operation is, for a label.
pub(crate) fn what(work: &Work) -> String {
    match work {
        Work::Launch(launch) => launch.kernel.info().name.to_string(),
        Work::Copy(copy) => copy.label().into(),
        Work::Fill(_) => "fill".into(),
        Work::Allocate(_) => "allocation".into(),
        Work::Free(_) => "free".into(),
        Work::Host(_) => "host function".into(),
        Work::Nothing => "nothing".into(),
    }
}
