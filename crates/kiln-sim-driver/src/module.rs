//! Modules and functions.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use kiln_sim::device::{Kernel, LoadError};

use crate::arch::SHARED_PER_BLOCK;
use crate::driver::Driver;
use crate::handle::Handle;
use crate::status::{Outcome, Status};

/// A loaded module.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) context: Handle,
    pub(crate) loaded: Arc<kiln_sim::device::Module>,
    /// Handles of its functions, as far as they have been asked for.
    functions: BTreeMap<Arc<str>, Handle>,
}

/// A function: a kernel, with what the program has set for it.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) context: Handle,
    pub(crate) module: Handle,
    pub(crate) kernel: Kernel,
    /// Its name, for C.
    pub(crate) name: CString,
    /// Bytes of dynamic shared memory that a launch may ask for.
    pub(crate) dynamic_max: u32,
    /// Percent of shared memory against cache; -1 for the default.
    carveout: i32,
    /// Whether clusters of more than 8 blocks are allowed.
    pub(crate) large_clusters: bool,
    cluster_policy: i32,
}

/// What an image is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// PTX, as far as one can tell.
    Text,
    /// Machine code: an ELF file, or several in a fat binary, or a pointer to one in the wrapper that nvcc puts around it.
    Binary,
}

impl Image {
    /// Looks at the first four bytes; fewer are a short text.
    pub(crate) fn of(start: &[u8]) -> Image {
        match start {
            [0x7f, b'E', b'L', b'F', ..] | [0x50, 0xed, 0x55, 0xba, ..] | [0xb1, 0x43, 0x62, 0x46, ..] => {
                Image::Binary
            }
            _ => Image::Text,
        }
    }
}

/// What a refusal to load means, as a `CUresult`.
fn refusal(error: &LoadError) -> Status {
    match error {
        LoadError::Invalid { .. } => Status::INVALID_PTX,
        LoadError::Unsupported { .. } => Status::NOT_SUPPORTED,
        LoadError::WrongTarget { .. } => Status::NO_BINARY_FOR_GPU,
        LoadError::OutOfMemory(_) => Status::OUT_OF_MEMORY,
    }
}

impl Driver {
    /// Loads PTX into a context; an error comes with its explanation.
    pub(crate) fn load(&mut self, context: Handle, ptx: &[u8]) -> Result<Handle, (Status, String)> {
        let gpu = self.gpu_of(context).map_err(|status| (status, String::new()))?;
        let text = std::str::from_utf8(ptx)
            .map_err(|error| (Status::INVALID_PTX, format!("not a text: {error}")))?;
        let loaded =
            self.gpus[gpu].device.load(text).map_err(|error| (refusal(&error), error.to_string()))?;
        Ok(self.modules.insert(Module { context, loaded, functions: BTreeMap::new() }))
    }

    /// Unloads a module.
    pub(crate) fn unload(&mut self, handle: Handle) -> Outcome {
        let module = self.modules.remove(handle)?;
        self.functions.take(|function| function.module == handle);
        let gpu = self.gpu_of(module.context)?;
        self.gpus[gpu].device.unload(&module.loaded);
        Ok(())
    }

    /// A module's function by name.
    pub(crate) fn function(&mut self, module: Handle, name: &str) -> Outcome<Handle> {
        let this = self.modules.get(module)?;
        if let Some(&function) = this.functions.get(name) {
            return Ok(function);
        }
        let kernel = this.loaded.kernel(name).ok_or(Status::NOT_FOUND)?;
        let function = Function {
            context: this.context,
            module,
            name: CString::new(name).map_err(|_| Status::NOT_FOUND)?,
            dynamic_max: SHARED_PER_BLOCK.saturating_sub(kernel.info().shared_bytes),
            kernel,
            carveout: -1,
            large_clusters: false,
            cluster_policy: 0,
        };
        let handle = self.functions.insert(function);
        self.modules.get_mut(module)?.functions.insert(Arc::from(name), handle);
        Ok(handle)
    }

    /// The value of a `CUfunction_attribute`.
    pub(crate) fn function_attribute(&self, function: Handle, attribute: i32) -> Outcome<i32> {
        let function = self.functions.get(function)?;
        let info = function.kernel.info();
        let cluster = info.cluster.unwrap_or([0; 3]);
        let (major, minor) = self.limits.capability;
        Ok(match attribute {
            0 => info.max_threads as i32,
            1 => info.shared_bytes as i32,
            2 => info.const_bytes as i32,
            3 => info.local_bytes as i32,
            4 => info.registers as i32,
            5 => info.ptx_version as i32,
            6 => major * 10 + minor,
            7 => 0, // loads are not cached in any way that a flag would change
            8 => function.dynamic_max as i32,
            9 => function.carveout,
            10 => i32::from(info.cluster.is_some()),
            11..=13 => cluster[(attribute - 11) as usize] as i32,
            14 => i32::from(function.large_clusters),
            15 => function.cluster_policy,
            _ => return Err(Status::INVALID_VALUE),
        })
    }

    /// Sets a `CUfunction_attribute`.
    pub(crate) fn set_function_attribute(&mut self, function: Handle, attribute: i32, value: i32) -> Outcome {
        let most = self.limits.shared_optin;
        let has_clusters = self.limits.cluster.0 > 1;
        let function = self.functions.get_mut(function)?;
        let room = most.saturating_sub(function.kernel.info().shared_bytes);
        match attribute {
            8 => {
                function.dynamic_max =
                    u32::try_from(value).ok().filter(|&bytes| bytes <= room).ok_or(Status::INVALID_VALUE)?
            }
            9 if (-1..=100).contains(&value) => function.carveout = value,
            14 if has_clusters && (0..=1).contains(&value) => function.large_clusters = value == 1,
            15 if has_clusters && (0..=2).contains(&value) => function.cluster_policy = value,
            _ => return Err(Status::INVALID_VALUE),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_their_start() {
        assert_eq!(Image::of(b"\x7fELF..."), Image::Binary);
        for mark in [0xba55_ed50_u32, 0x4662_43b1] {
            assert_eq!(Image::of(&mark.to_le_bytes()), Image::Binary);
        }
        for text in [&b"// PTX"[..], b"", b"\x7fEL"] {
            assert_eq!(Image::of(text), Image::Text);
        }
    }
}
