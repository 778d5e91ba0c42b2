//! The loading of PTX: why a driver refuses it, and functions that are there before they are launched.

#![allow(unsafe_code)] // calls of the driver that cudarc has no safe form of

use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUjit_option};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;

use super::device::text;
use super::fault;
use super::kernels::Module;
use crate::Error;

/// A module in a context.
///
/// # Errors
/// [`Error::Gpu`] with the driver's words, and what its compiler says of the PTX.
pub(super) fn load(context: &Arc<CudaContext>, (name, ptx): Module) -> Result<Arc<CudaModule>, Error> {
    context.load_module(Ptx::from_src(ptx)).map_err(|error| {
        let words = compilers_words(ptx).map_or_else(String::new, |words| format!(": {words}"));
        Error::Gpu { what: loading(name), reason: text(error) + &words }
    })
}

/// A function of a module, loaded whole: drivers load lazily, and then the first launch would load it, and might synchronise the device.
pub(super) fn function(module: &Arc<CudaModule>, of: &str, name: &str) -> Result<CudaFunction, Error> {
    let failed = |error| fault(&loading(of), error);
    let function = module.load_function(name).map_err(failed)?;
    // SAFETY: the function is one of a module that it keeps alive, whose context `load_function` has bound to this thread.
    unsafe { sys::cuFuncLoad(function.cu_function()) }.result().map_err(failed)?;
    Ok(function)
}

fn loading(module: &str) -> String {
    format!("loading the kernels of {module}")
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
