//! The programs of `ptx/fail`, `ptx/missed` and `ptx/reject`, and what their comments say.
//!
//! At the top, `//@ KEY: VALUE` tells how to run the program: `kernel` (k), `arch` (sm_90), `grid`, `block` (32), `cluster`,
//! `shared` (dynamic bytes), `cooperative`, `fuel` and, in the order of the parameters, `arg`:
//! `buffer TYPE COUNT zero|uninit|iota`, `freed TYPE COUNT`, or `TYPE VALUE`.
//!
//! `//~ KIND, KIND` stands on each line that a finding may name, with the kinds that it may have there. If two lines are
//! marked `race`, it is between them; a line marked `race*` may race with itself too. In PTX, a line that begins with
//! `//+ ` is part of the mended program alone, and one that ends with `//-` of the faulty one alone.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_sim::arch::Arch;
use kiln_sim::device::LaunchConfig;

/// What fills a buffer before the launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fill {
    Zero,
    Uninit,
    Iota,
    Freed,
}

/// An argument of the kernel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Argument {
    /// The address of a buffer: element size in bytes, elements.
    Buffer(usize, usize, Fill),
    /// The bytes of a number.
    Number(Vec<u8>),
}

/// A program and its directives.
#[derive(Debug)]
pub(crate) struct Program {
    /// File name, for messages.
    pub(crate) name: String,
    /// What is loaded.
    pub(crate) ptx: String,
    /// The name of the CUDA C++ file, if marks and findings are by its lines.
    pub(crate) source: Option<String>,
    pub(crate) kernel: String,
    pub(crate) arch: Arch,
    pub(crate) launch: LaunchConfig,
    pub(crate) fuel: Option<u64>,
    pub(crate) arguments: Vec<Argument>,
    /// Lines, from 1, and the kinds that they are marked with.
    pub(crate) marks: Vec<(u32, Vec<String>)>,
    /// Whether a line is marked as one that may race with itself.
    pub(crate) races_with_itself: bool,
}

/// The folder `ptx/NAME`.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx").join(name)
}

/// All programs of a folder in order of their names. PTX that was compiled from CUDA C++ beside it goes with that.
pub(crate) fn programs(name: &str) -> Vec<Program> {
    let entries = fs::read_dir(folder(name)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let compiled = |path: &Path| path.extension().unwrap() == "ptx" && path.with_extension("cu").exists();
    paths.iter().filter(|path| !compiled(path)).map(|path| Program::read(path)).collect()
}

fn size(name: &str) -> usize {
    match name {
        "u8" => 1,
        "u16" => 2,
        "u32" | "f32" => 4,
        "u64" | "f64" => 8,
        other => panic!("{other} is no type of an argument"),
    }
}

fn argument(text: &str) -> Argument {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["buffer", element, count, fill] => {
            let fill = match fill {
                "zero" => Fill::Zero,
                "uninit" => Fill::Uninit,
                "iota" => Fill::Iota,
                other => panic!("{other} fills no buffer"),
            };
            Argument::Buffer(size(element), count.parse().unwrap(), fill)
        }
        ["freed", element, count] => Argument::Buffer(size(element), count.parse().unwrap(), Fill::Freed),
        ["f32", value] => Argument::Number(value.parse::<f32>().unwrap().to_le_bytes().into()),
        [integer, value] => {
            let value = match value.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
                None => value.parse().unwrap(),
            };
            Argument::Number(value.to_le_bytes()[..size(integer)].into())
        }
        _ => panic!("{text} is no argument"),
    }
}

fn dimensions(text: &str) -> [u32; 3] {
    let mut all = [1; 3];
    for (dimension, number) in all.iter_mut().zip(text.split(',')) {
        *dimension = number.trim().parse().unwrap();
    }
    all
}

impl Program {
    fn read(path: &Path) -> Program {
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let text = fs::read_to_string(path).unwrap();
        let compiled = path.extension().unwrap() == "cu";
        let ptx =
            if compiled { fs::read_to_string(path.with_extension("ptx")).unwrap() } else { text.clone() };
        let mut program = Program {
            source: compiled.then(|| name.clone()),
            name,
            ptx,
            kernel: "k".into(),
            arch: Arch::Sm90,
            launch: LaunchConfig::linear(1, 32),
            fuel: None,
            arguments: Vec::new(),
            marks: Vec::new(),
            races_with_itself: text.contains("//~ race*"),
        };
        for (line, text) in (1..).zip(text.lines()) {
            if let Some(directive) = text.strip_prefix("//@ ") {
                program.direct(directive);
            } else if let Some((_, kinds)) = text.split_once("//~ ") {
                let kinds = kinds.trim_end_matches("//-").split(',').map(|kind| kind.trim().replace('*', ""));
                program.marks.push((line, kinds.collect()));
            }
        }
        program
    }

    fn direct(&mut self, directive: &str) {
        let (key, value) = directive.split_once(": ").unwrap_or((directive, ""));
        match key {
            "kernel" => self.kernel = value.into(),
            "arch" => self.arch = value.parse().unwrap(),
            "grid" => self.launch.grid = dimensions(value),
            "block" => self.launch.block = dimensions(value),
            "cluster" => self.launch.cluster = Some(dimensions(value)),
            "shared" => self.launch.dynamic_shared = value.parse().unwrap(),
            "cooperative" => self.launch.cooperative = true,
            "fuel" => self.fuel = Some(value.parse().unwrap()),
            "arg" => self.arguments.push(argument(value)),
            other => panic!("{}: //@ {other} is no directive", self.name),
        }
    }

    /// The program with its fault mended, if its comments say how.
    pub(crate) fn mended(&self) -> Option<String> {
        let mut changed = false;
        let mut line = |text: &str| {
            let (kept, text) = match text.trim_start().strip_prefix("//+ ") {
                Some(added) => (true, format!("\t{added}")),
                None if text.ends_with("//-") => (false, String::new()),
                None => return format!("{text}\n"),
            };
            changed = true;
            if kept { format!("{text}\n") } else { "\n".into() }
        };
        let ptx = self.ptx.lines().map(&mut line).collect();
        changed.then_some(ptx)
    }

    /// Whether a finding of this kind may name this line.
    pub(crate) fn expects(&self, line: u32, kind: &str) -> bool {
        self.marks.iter().any(|(marked, kinds)| *marked == line && kinds.iter().any(|k| k == kind))
    }
}
