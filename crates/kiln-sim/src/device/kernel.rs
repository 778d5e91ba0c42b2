//! Modules and kernels: loading, and whether a launch fits.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::arch::Arch;
use crate::check::view::MAX_BLOCKS;
use crate::isa::Param;
use crate::isa::decode::{self, DecodeError, Symbols, Variable, variable_bytes};
use crate::isa::{CODE_BASE, CODE_STEP, Origin, Program};
use crate::memory::{MemoryError, Owner};
use crate::ptx::ast::{self, Init, Space};
use crate::ptx::{SyntaxError, parse};
use crate::stamp::Stamp;

use super::{Device, LaunchConfig};

/// 32-bit registers that the threads of a block can have together.
const REGISTERS_PER_BLOCK: u32 = 65_536;
/// Bytes of the texts of modules that are kept for who loads them again.
const KEPT_BYTES: usize = 64 << 20;

/// Why a module was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The text is not PTX.
    #[error("PTX line {line}: {message}")]
    Invalid {
        /// Line, from 1.
        line: u32,
        /// What is wrong.
        message: String,
    },
    /// Correct PTX, as far as the simulator can tell, that it does not implement.
    #[error("PTX line {line}: the simulator does not support {message}")]
    Unsupported {
        /// Line, from 1.
        line: u32,
        /// What is not supported.
        message: String,
    },
    /// Compiled for another architecture.
    #[error("PTX for {target} does not run on {device}")]
    WrongTarget {
        /// The target of the PTX.
        target: String,
        /// What the device is.
        device: Arch,
    },
    /// No room for the module's variables.
    #[error(transparent)]
    OutOfMemory(#[from] MemoryError),
}

impl From<SyntaxError> for LoadError {
    fn from(error: SyntaxError) -> LoadError {
        LoadError::Invalid { line: error.line, message: error.message }
    }
}

impl From<DecodeError> for LoadError {
    fn from(DecodeError { line, message, unsupported }: DecodeError) -> LoadError {
        if unsupported {
            LoadError::Unsupported { line, message }
        } else {
            LoadError::Invalid { line, message }
        }
    }
}

/// A loaded module.
#[derive(Debug)]
pub struct Module {
    program: Arc<Program>,
    kernels: Vec<(String, Arc<KernelInfo>, usize)>,
    /// Name, address, bytes.
    globals: Vec<(String, u64, u64)>,
}

/// What is known of a kernel before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its parameters, in order.
    pub params: Vec<Param>,
    /// Static shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Constant memory of its module, in bytes.
    pub const_bytes: u32,
    /// Local memory of a thread, in bytes.
    pub local_bytes: u32,
    /// Registers of a thread. An estimate: PTX names values, and how many live at once is what is counted, up to what the
    /// largest block that the kernel allows can have.
    pub registers: u32,
    /// Threads of a block that the kernel allows.
    pub max_threads: u32,
    /// Threads of a block that the kernel requires, if it does.
    pub required_threads: Option<[u32; 3]>,
    /// Blocks of a cluster, if the kernel fixes them.
    pub cluster: Option<[u32; 3]>,
    /// PTX ISA version, ten times: 84 for 8.4.
    pub ptx_version: u32,
}

/// A kernel, ready to be launched.
#[derive(Clone, Debug)]
pub struct Kernel {
    program: Arc<Program>,
    function: usize,
    info: Arc<KernelInfo>,
}

impl Module {
    /// A kernel by name.
    pub fn kernel(&self, name: &str) -> Option<Kernel> {
        let (_, info, function) = self.kernels.iter().find(|kernel| kernel.0 == name)?;
        Some(Kernel { program: self.program.clone(), function: *function, info: info.clone() })
    }

    /// Address and bytes of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals.iter().find(|global| global.0 == name).map(|global| (global.1, global.2))
    }

    /// The kernels' names.
    pub fn kernels(&self) -> Vec<Arc<str>> {
        self.kernels.iter().map(|kernel| kernel.1.name.clone()).collect()
    }
}

impl Kernel {
    /// What is known of it.
    pub fn info(&self) -> &KernelInfo {
        &self.info
    }

    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    pub(super) fn function(&self) -> usize {
        self.function
    }

    /// Whether a launch fits; the blocks of a cluster.
    pub(super) fn check(&self, config: &LaunchConfig, params: &[u8], arch: Arch) -> Result<[u32; 3], String> {
        let info = &self.info;
        let product = |dims: [u32; 3]| dims.iter().map(|n| u64::from(*n)).product::<u64>();
        let (blocks, threads) = (product(config.grid), product(config.block));
        let name = &info.name;
        if blocks == 0 || threads == 0 {
            return Err(format!("{name}: a grid of {:?} blocks of {:?} threads", config.grid, config.block));
        }
        if blocks > MAX_BLOCKS {
            return Err(format!(
                "{name}: {blocks} blocks: the simulator runs at most {MAX_BLOCKS} in a launch"
            ));
        }
        if threads > u64::from(info.max_threads) {
            return Err(format!(
                "{name}: {threads} threads in a block: expected at most {}",
                info.max_threads
            ));
        }
        if let Some(required) = info.required_threads.filter(|required| *required != config.block) {
            return Err(format!(
                "{name}: blocks of {:?} threads: the kernel requires {required:?}",
                config.block
            ));
        }
        let shared = u64::from(info.shared_bytes) + u64::from(config.dynamic_shared);
        if shared > u64::from(arch.shared_max_bytes()) {
            return Err(format!(
                "{name}: {shared} bytes of shared memory: {arch} has {}",
                arch.shared_max_bytes()
            ));
        }
        let needed = info.params.last().map_or(0, |last| u64::from(last.offset + last.size));
        if (params.len() as u64) < needed {
            return Err(format!("{name}: {} bytes of parameters: expected {needed}", params.len()));
        }
        self.check_cluster(config, arch)
    }

    fn check_cluster(&self, config: &LaunchConfig, arch: Arch) -> Result<[u32; 3], String> {
        let name = &self.info.name;
        let cluster = match (self.info.cluster, config.cluster) {
            (Some(kernel), Some(launch)) if kernel != launch => {
                return Err(format!("{name}: clusters of {launch:?} blocks: the kernel requires {kernel:?}"));
            }
            (Some(cluster), _) | (None, Some(cluster)) => cluster,
            (None, None) => return Ok([1; 3]),
        };
        let count: u64 = cluster.iter().map(|n| u64::from(*n)).product();
        if count == 0 || count > u64::from(arch.cluster_max_blocks()) {
            return Err(format!(
                "{name}: clusters of {count} blocks: {arch} has at most {}",
                arch.cluster_max_blocks()
            ));
        }
        if (0..3).any(|axis| !config.grid[axis].is_multiple_of(cluster[axis])) {
            return Err(format!(
                "{name}: a grid of {:?} is no multiple of clusters of {cluster:?}",
                config.grid
            ));
        }
        Ok(cluster)
    }
}

/// The architecture's number in `sm_90a`, and whether it is for that one alone.
fn target(text: &str) -> Option<(u32, bool)> {
    let digits = text.strip_prefix("sm_")?;
    let exact = digits.ends_with(['a', 'f']);
    digits.trim_end_matches(['a', 'f']).parse().ok().map(|number| (number, exact))
}

/// Products of warpgroups are for one architecture, and no other has to run them.
fn check_warpgroups(tree: &ast::Module, program: &Program) -> Result<(), LoadError> {
    let target = tree.target.first().map_or("", String::as_str);
    let at = program.code.iter().position(|inst| inst.op.is_of_warpgroups());
    let Some(at) = at.filter(|_| target != "sm_90a") else { return Ok(()) };
    let Origin { ptx_line, text, .. } = &program.origins[program.origin_of[at] as usize];
    let message = format!("expected `.target sm_90a`, found {target}, for `{text}`");
    Err(LoadError::Invalid { line: *ptx_line, message })
}

impl Device {
    /// Loads a module: parses it, decodes it, and places its variables. One that has none is there from the last time.
    ///
    /// # Errors
    /// Text that is not PTX or not supported, PTX for a newer architecture, no room.
    pub fn load(&self, ptx: &str) -> Result<Arc<Module>, LoadError> {
        if let Some(module) = self.modules().get(ptx) {
            return Ok(module.clone());
        }
        let module = Arc::new(self.load_anew(ptx)?);
        if module.globals.is_empty() {
            let mut kept = self.modules();
            if kept.keys().map(String::len).sum::<usize>() > KEPT_BYTES {
                kept.clear();
            }
            kept.insert(ptx.into(), module.clone());
        }
        Ok(module)
    }

    fn modules(&self) -> MutexGuard<'_, HashMap<String, Arc<Module>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_anew(&self, ptx: &str) -> Result<Module, LoadError> {
        let tree = parse(ptx)?;
        self.check_target(&tree)?;
        let mut placed = Placed::default();
        let loaded = self.place(&tree, &mut placed).and_then(|()| {
            let program = decode::decode(&tree, &placed.symbols, placed.shared_bytes)?;
            check_warpgroups(&tree, &program)?;
            self.initialise(&tree, &placed, &program)?;
            Ok(program)
        });
        match loaded {
            Ok(program) => Ok(module(&tree, placed, program)),
            Err(error) => {
                placed.globals.iter().for_each(|global| self.memory.free_variable(global.1));
                Err(error)
            }
        }
    }

    /// Gives a module's variables back.
    pub fn unload(&self, module: &Module) {
        module.globals.iter().for_each(|global| self.memory.free_variable(global.1));
    }

    fn check_target(&self, tree: &ast::Module) -> Result<(), LoadError> {
        let name = tree.target.first().map_or("", String::as_str);
        let device = self.config.arch;
        let wrong = || LoadError::WrongTarget { target: name.to_string(), device };
        let (number, exact) = target(name).ok_or_else(wrong)?;
        let fits = if exact { number == device.number() } else { number <= device.number() };
        if !fits {
            return Err(wrong());
        }
        if tree.address_bits != 64 {
            return Err(LoadError::Unsupported {
                line: tree.address_line,
                message: format!("addresses of {} bits", tree.address_bits),
            });
        }
        if tree.version > (9, 0) || tree.version.1 > 9 {
            let message = format!("PTX ISA {}.{}: expected up to 9.0", tree.version.0, tree.version.1);
            return Err(LoadError::Unsupported { line: tree.version_line, message });
        }
        Ok(())
    }

    fn place(&self, tree: &ast::Module, placed: &mut Placed) -> Result<(), LoadError> {
        for variable in &tree.variables {
            let bytes = variable_bytes(variable);
            let symbol = match variable.space {
                Space::Shared if variable.external || variable.elements.is_none() => Variable::DynamicShared,
                Space::Shared => {
                    let offset = placed.shared_bytes.next_multiple_of(variable.align.max(1));
                    placed.shared_bytes = offset + bytes;
                    Variable::Shared(offset)
                }
                Space::Global | Space::Const if !variable.external => {
                    let constant = variable.space == Space::Const;
                    let owner = Owner::Module { constant };
                    let memory =
                        self.memory.alloc(bytes.max(1), variable.align, owner, Some(&variable.name))?;
                    placed.globals.push((variable.name.clone(), memory.base, bytes));
                    placed.const_bytes += if constant { bytes } else { 0 };
                    Variable::Global(memory.base)
                }
                _ => {
                    let message = format!("variable `{}` that is defined elsewhere", variable.name);
                    return Err(LoadError::Unsupported { line: variable.line, message });
                }
            };
            if placed.symbols.insert(variable.name.clone(), symbol).is_some() {
                let message = format!("`{}` is defined twice", variable.name);
                return Err(LoadError::Invalid { line: variable.line, message });
            }
        }
        Ok(())
    }

    /// Writes the variables' values: zero where none is given.
    fn initialise(&self, tree: &ast::Module, placed: &Placed, program: &Program) -> Result<(), LoadError> {
        for variable in &tree.variables {
            let Some(Variable::Global(address)) = placed.symbols.get(&variable.name) else { continue };
            let bytes = variable_bytes(variable) as usize;
            let size = bytes / variable.elements.unwrap_or(1).max(1) as usize;
            let mut image = Vec::new();
            for init in &variable.init {
                let value = value_of(init, placed, program).ok_or_else(|| LoadError::Invalid {
                    line: variable.line,
                    message: format!("the value of `{}` names what is not declared", variable.name),
                })?;
                image.extend_from_slice(&value.to_le_bytes()[..size.min(8)]);
            }
            if image.len() > bytes {
                let message = format!(
                    "`{}` has {} values too many",
                    variable.name,
                    (image.len() - bytes) / size.max(1)
                );
                return Err(LoadError::Invalid { line: variable.line, message });
            }
            // What is given no value is zero, as it is from the beginning.
            if let Some(memory) = self.memory.find(*address) {
                memory.write(0, &image);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Placed {
    symbols: Symbols,
    globals: Vec<(String, u64, u64)>,
    shared_bytes: u64,
    const_bytes: u64,
}

fn value_of(init: &Init, placed: &Placed, program: &Program) -> Option<u64> {
    Some(match init {
        Init::Int(value) => *value as u64,
        Init::F32(bits) => u64::from(*bits),
        Init::F64(bits) => *bits,
        Init::Symbol(name, offset) => match placed.symbols.get(name) {
            Some(Variable::Global(address)) => address.wrapping_add_signed(*offset),
            Some(_) => return None,
            None => {
                let number = program.functions.iter().position(|function| function.name.as_ref() == name)?;
                CODE_BASE + CODE_STEP * number as u64
            }
        },
    })
}

fn module(tree: &ast::Module, placed: Placed, program: Program) -> Module {
    let const_bytes = u32::try_from(placed.const_bytes).unwrap_or(u32::MAX);
    let numbers: HashMap<&str, usize> =
        program.kernels.iter().map(|(name, number)| (name.as_str(), *number)).collect();
    let kernels = tree
        .functions
        .iter()
        .filter_map(|function| Some((function.name.clone(), *numbers.get(function.name.as_str())?)))
        .map(|(name, number)| {
            let function = &program.functions[number];
            let directives = function.directives;
            let count = |dims: [u32; 3]| dims.iter().fold(1u32, |a, b| a.saturating_mul(*b));
            let live = function.registers.r32 + 2 * function.registers.r64;
            let max_threads =
                directives.required_threads.or(directives.max_threads).map_or(1024, count).clamp(1, 1024);
            // The compiler fits a kernel to the largest block that it allows, so the estimate is bounded likewise.
            // A multiprocessor has four parts, so that a block's warps are counted by fours.
            let most = (REGISTERS_PER_BLOCK / max_threads.next_multiple_of(4 * 32) / 8 * 8).min(255);
            let info = KernelInfo {
                name: function.name.clone(),
                params: function.params.clone(),
                shared_bytes: function.shared_bytes,
                const_bytes,
                local_bytes: function.local_bytes,
                registers: live.next_multiple_of(8).clamp(16, most),
                max_threads,
                required_threads: directives.required_threads,
                cluster: directives.cluster,
                ptx_version: tree.version.0 * 10 + tree.version.1,
            };
            (name, Arc::new(info), number)
        })
        .collect();
    Module { program: Arc::new(program), kernels, globals: placed.globals }
}

/// A stamp for tests and tools that have one stream: each operation comes after the last.
impl Stamp {
    /// The next operation of a single stream.
    pub fn next(&self, label: &str) -> Stamp {
        Stamp::sequential(self.number + 1, label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Config;

    const HEAD: &str = ".version 8.4\n.target sm_80\n.address_size 64\n";
    const KERNEL: &str = ".visible .entry k()\n{\n\tret;\n}\n";

    #[test]
    fn modules_without_variables_are_shared() {
        let device = Device::new(Config::new(Arch::Sm80));
        let load = |text: &str| device.load(&format!("{HEAD}{text}{KERNEL}")).unwrap();
        let first = load("");
        assert!(Arc::ptr_eq(&first, &load("")));
        let variable = ".global .align 4 .u32 x = 7;\n";
        let (one, other) = (load(variable), load(variable));
        assert_ne!(one.global("x"), other.global("x"), "each has its own");
        // What is kept is bounded.
        load(&format!("// {}\n", "x".repeat(KEPT_BYTES)));
        load("// another\n");
        assert_eq!(device.modules().len(), 1);
        assert!(!Arc::ptr_eq(&first, &load("")));
    }
}
