//! The loading of PTX, a kernel at a time: why a driver refuses it, and functions that are there before they are launched.
//!
//! A driver compiles all that a module has when it loads it, ten seconds and more for what the embedded modules have in one precision,
//! and a job launches a handful of their kernels. So each is cut out of its module, and loaded as a module of its own.

#![allow(unsafe_code)] // calls of the driver that cudarc has no safe form of

use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUjit_option, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, DriverError};
use cudarc::nvrtc::Ptx;

use super::fault;
use super::memory::no_room;
use crate::Error;

/// Name and PTX of a module.
pub(super) type Module = (&'static str, &'static str);

/// How the PTX of a kernel begins.
const ENTRY: &str = ".visible .entry ";
/// How the names of source files begin, behind the last kernel.
const FILES: &str = "\n\t.file\t";

/// A kernel in the PTX of its module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    module: &'static str,
    pub(super) name: &'static str,
    /// What stands before the first kernel: version, target, what they declare in common.
    declarations: &'static str,
    /// The PTX of the kernels before it.
    before: &'static str,
    body: &'static str,
    files: &'static str,
}

/// The kernels of a module. They call none of each other, nor any function beside them.
pub(super) fn entries((module, ptx): Module) -> impl Iterator<Item = Entry> {
    let (text, files) = ptx.split_at(ptx.find(FILES).unwrap_or(ptx.len()));
    let (declarations, kernels) = text.split_at(text.find(ENTRY).unwrap_or(text.len()));
    let starts = kernels.match_indices(ENTRY).map(|(start, _)| start);
    let ends = starts.clone().skip(1).chain([kernels.len()]);
    starts.zip(ends).filter_map(move |(start, end)| {
        let (before, body) = (&kernels[..start], &kernels[start..end]);
        let (name, _) = body.strip_prefix(ENTRY)?.split_once('(')?;
        Some(Entry { module, name, declarations, before, body, files })
    })
}

impl Entry {
    #[cfg(test)]
    pub(super) fn module(&self) -> &'static str {
        self.module
    }

    /// What stands between the parentheses behind its name.
    pub(super) fn params(&self) -> &'static str {
        let inside = self.body.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        inside.map_or("", |(params, _)| params)
    }

    /// A module that has this kernel alone. Empty lines stand for the kernels before it, so that each line has the number that it has in
    /// the whole module.
    pub(super) fn ptx(&self) -> String {
        let lines = self.before.matches('\n').count();
        [self.declarations, &"\n".repeat(lines), self.body, self.files].concat()
    }

    /// The kernel in a context, there before it is launched: drivers load lazily, and then the first launch would load it, and might
    /// synchronise the device.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`], or [`Error::Gpu`] with the driver's words, and what its compiler says of the PTX.
    pub(super) fn load(&self, context: &Arc<CudaContext>) -> Result<CudaFunction, Error> {
        let ptx = self.ptx();
        let failed = |error: DriverError| match error.0 {
            // Its text is about as long as its code.
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => no_room(context, "a kernel", ptx.len() as u128),
            _ => fault(&format!("loading the kernel {} of {}", self.name, self.module), error),
        };
        let module = context.load_module(Ptx::from_src(&ptx)).map_err(|error| match failed(error) {
            Error::Gpu { what, reason } => {
                let words = compilers_words(&ptx).map_or_else(String::new, |words| format!(": {words}"));
                Error::Gpu { what, reason: reason + &words }
            }
            error => error,
        })?;
        let function = module.load_function(self.name).map_err(failed)?;
        // SAFETY: the function is one of a module that it keeps alive, whose context `load_module` has bound to this thread.
        unsafe { sys::cuFuncLoad(function.cu_function()) }.result().map_err(failed)?;
        Ok(function)
    }
}

/// Bytes of what a compiler says that are kept.
const WORDS_BYTES_MAX: usize = 2048;

/// What the driver's compiler says of PTX that could not be loaded, if it says anything: asked once more, in the context that is bound.
fn compilers_words(ptx: &str) -> Option<String> {
    let text = CString::new(ptx).ok()?;
    let mut words = vec![0u8; WORDS_BYTES_MAX];
    let mut options =
        [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [words.as_mut_ptr().cast(), WORDS_BYTES_MAX as *mut c_void];
    let mut module = null_mut();
    // SAFETY: the text ends with NUL; there are two options and as many values, as the driver wants them: where its words go, and how
    // many bytes there are. All of it outlives the call.
    let loaded = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if loaded.result().is_ok() {
        // SAFETY: this module has just been loaded, and nothing else knows of it.
        let _ = unsafe { sys::cuModuleUnload(module) }.result(); // what matters is the error before
    }
    let end = words.iter().position(|&byte| byte == 0).unwrap_or(words.len());
    let words = String::from_utf8_lossy(&words[..end]).trim().to_owned();
    (!words.is_empty()).then_some(words)
}
