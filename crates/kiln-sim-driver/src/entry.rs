//! The way in: what every exported call goes through.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::report;
use crate::status::{Outcome, Status};

/// Serves one driver call; gives the `CUresult`.
pub(crate) fn call(name: &str, body: impl FnOnce() -> Outcome) -> i32 {
    match contain(name, body) {
        Ok(()) => Status::SUCCESS.0,
        Err(status) => status.0,
    }
}

/// Keeps a panic, which is a bug of the simulator, from unwinding into C.
pub(crate) fn contain(name: &str, body: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        report::bug(name);
        Err(Status::UNKNOWN)
    })
}

/// Exports driver calls. With `|session|` the body runs with the driver locked, and `cuInit` must have been called
/// before; without, it does not touch the driver's state. The body gives an [`Outcome`].
macro_rules! calls {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(|$session:ident|)? $body:block)*) => {
        $(
            $(#[$attribute])*
            #[unsafe(no_mangle)]
            extern "C" fn $name($($argument: $type),*) -> i32 {
                crate::entry::call(stringify!($name), || {
                    $(#[allow(unused_mut)] let mut $session = crate::driver::Session::open()?;)?
                    $body
                })
            }
        )*

        /// The calls of this module, by name.
        pub(crate) fn table() -> Vec<(&'static str, *const ())> {
            vec![$((stringify!($name), $name as *const ())),*]
        }
    };
}

pub(crate) use calls;
