//! Initialisation, version, errors, entry points and the profiler.

#![allow(non_snake_case)]

use std::ffi::{CStr, c_char};

use crate::config::Settings;
use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{Out, Text};
use crate::report::note;
use crate::status::{Outcome, Status};

/// `CUdriverProcAddressQueryResult`.
const FOUND: i32 = 0;
const SYMBOL_NOT_FOUND: i32 = 1;

/// Calls whose plain name still means the first version in CUDA 12; of all others it means the latest.
const PLAIN: &[&str] = &[
    "cuCtxCreate",
    "cuDeviceGetUuid",
    "cuEventElapsedTime",
    "cuGraphAddDependencies",
    "cuGraphAddNode",
    "cuGraphGetEdges",
    "cuGraphNodeGetDependencies",
    "cuGraphNodeGetDependentNodes",
    "cuGraphRemoveDependencies",
    "cuMemAdvise",
    "cuMemPrefetchAsync",
    "cuStreamGetCaptureInfo",
    "cuStreamGetCtx",
    "cuStreamUpdateCaptureDependencies",
];

/// The entry point that a plain name means.
fn entry_point(name: &str) -> Option<*const ()> {
    let calls = super::calls();
    let find = |name: &str| calls.iter().find(|call| call.0 == name).map(|call| call.1);
    let later = || (2..=4).rev().find_map(|version| find(&format!("{name}_v{version}")));
    if PLAIN.contains(&name) {
        find(name).or_else(|| find(&format!("{name}_v2")))
    } else {
        later().or_else(|| find(name))
    }
}

fn error_text(result: Out<*const c_char>, text: Option<&'static CStr>) -> Outcome {
    result.set(text.map_or(std::ptr::null(), CStr::as_ptr))?;
    text.map(drop).ok_or(Status::INVALID_VALUE)
}

calls! {
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        Session::initialise().map_err(|error| {
            note("cuInit", &error.to_string());
            Status::INVALID_VALUE
        })
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        // May be called before cuInit, and so reads the settings itself.
        let settings = Settings::from_environment().map_err(|error| {
            note("cuDriverGetVersion", &error.to_string());
            Status::INVALID_VALUE
        })?;
        version.set(settings.driver)
    }

    fn cuGetErrorName(error: i32, name: Out<*const c_char>) {
        error_text(name, Status(error).name())
    }

    fn cuGetErrorString(error: i32, text: Out<*const c_char>) {
        error_text(text, Status(error).description())
    }

    fn cuGetProcAddress_v2(symbol: Text, function: Out<*const ()>, _version: i32, _flags: u64, result: Out<i32>) {
        function.check()?;
        let found = entry_point(symbol.str()?);
        function.set(found.unwrap_or(std::ptr::null()))?;
        result.set_if_wanted(if found.is_some() { FOUND } else { SYMBOL_NOT_FOUND })?;
        found.map(drop).ok_or(Status::NOT_FOUND)
    }

    fn cuProfilerStart() |session| {
        session.context().map(drop)
    }

    fn cuProfilerStop() |session| {
        session.context().map(drop)
    }

    // Obsolete: the driver answers that there is nothing to configure.
    fn cuProfilerInitialize(_config: Text, _output: Text, _mode: i32) |_session| {
        Err(Status::PROFILER_DISABLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_mean_what_the_header_makes_of_them() {
        let calls = crate::api::calls();
        let address = |name: &str| calls.iter().find(|call| call.0 == name).map(|call| call.1);
        for (plain, versioned) in [
            ("cuMemAlloc", "cuMemAlloc_v2"),
            ("cuInit", "cuInit"),
            ("cuMemAdvise", "cuMemAdvise"),
            ("cuCtxCreate", "cuCtxCreate_v2"),
            ("cuGetProcAddress", "cuGetProcAddress_v2"),
        ] {
            assert_eq!(entry_point(plain), address(versioned), "{plain}");
            assert!(entry_point(plain).is_some());
        }
        assert_eq!(entry_point("cuTeapot"), None);
    }
}
