//! Named ranges for profilers, through NVTX.
//!
//! A tool such as nsys names a library of its own in `NVTX_INJECTION64_PATH`. NVTX loads it once and calls its
//! `InitializeInjectionNvtx2`, which asks for tables of function pointers and fills in those that it wants to be called through.
//! Where no tool is attached a range costs one load and one branch, and its name is never made.
//!
//! This is that protocol, as version 3 of NVTX's headers has it (`nvtxDetail/nvtxTypes.h`, `nvtxInit.h`), and no more of NVTX than
//! ranges of one domain. NVIDIA's crate `nvtx` compiles the headers themselves, for which its build needs libclang; building Kiln
//! needs a C compiler at most.

#![allow(unsafe_code)] // the border to the tool's library

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::mem::transmute;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What ranges are grouped under in a tool.
const DOMAIN: &[u8] = b"kiln\0";

#[cfg(target_pointer_width = "64")]
const INJECTION: &str = "NVTX_INJECTION64_PATH";
#[cfg(not(target_pointer_width = "64"))]
const INJECTION: &str = "NVTX_INJECTION32_PATH";

/// `NvtxCallbackModule`: how many functions each module has, where the first is none.
const MODULES: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];
const SLOTS_MAX: usize = 16;
/// `NVTX_CB_MODULE_CORE2` and its functions.
const CORE2: usize = 5;
const DOMAIN_RANGE_PUSH: usize = 4;
const DOMAIN_RANGE_POP: usize = 5;
const DOMAIN_CREATE: usize = 12;

/// `NVTX_VERSION`, and the kinds of `nvtxEventAttributes_t` that are used.
const VERSION: u16 = 3;
const MESSAGE_ASCII: i32 = 1;
/// `NvtxExportTableID`.
const TABLE_CALLBACKS: u32 = 1;
const TABLE_VERSION: u32 = 3;

/// The functions, as the tool has set them; null where it has not.
static SLOTS: [[AtomicPtr<c_void>; SLOTS_MAX]; MODULES.len()] =
    [const { [const { AtomicPtr::new(null_mut()) }; SLOTS_MAX] }; MODULES.len()];

/// Where a module's functions are set, and a null after them.
struct Table([*const AtomicPtr<c_void>; SLOTS_MAX + 1]);

// SAFETY: nothing writes to a table; it points to atomics that live as long as the program.
unsafe impl Sync for Table {}

static TABLES: [Table; MODULES.len()] = {
    let mut tables = [const { Table([null(); SLOTS_MAX + 1]) }; MODULES.len()];
    let mut module = 0;
    while module < MODULES.len() {
        let mut id = 1;
        while id < MODULES[module] {
            tables[module].0[id] = &raw const SLOTS[module][id];
            id += 1;
        }
        module += 1;
    }
    tables
};

/// `NvtxExportTableCallbacks`.
#[repr(C)]
struct Callbacks {
    struct_size: usize,
    module_functions: extern "C" fn(c_uint, *mut *const *const AtomicPtr<c_void>, *mut c_uint) -> c_int,
}

static CALLBACKS: Callbacks = Callbacks { struct_size: size_of::<Callbacks>(), module_functions };

/// `NvtxExportTableVersionInfo`.
#[repr(C)]
struct VersionInfo {
    struct_size: usize,
    version: u32,
    reserved: u32,
    set_tool_version: extern "C" fn(u32),
}

static VERSION_INFO: VersionInfo = VersionInfo {
    struct_size: size_of::<VersionInfo>(),
    version: VERSION as u32,
    reserved: 0,
    set_tool_version,
};

/// The tool's version is of no interest, here as in NVTX.
extern "C" fn set_tool_version(_: u32) {}

extern "C" fn export_table(id: u32) -> *const c_void {
    match id {
        TABLE_CALLBACKS => (&raw const CALLBACKS).cast(),
        TABLE_VERSION => (&raw const VERSION_INFO).cast(),
        _ => null(),
    }
}

extern "C" fn module_functions(
    module: c_uint,
    table: *mut *const *const AtomicPtr<c_void>,
    size: *mut c_uint,
) -> c_int {
    let module = module as usize;
    if module == 0 || module >= MODULES.len() {
        return 0;
    }
    // SAFETY: the tool passes null, or a place for the answer.
    unsafe {
        if !size.is_null() {
            *size = MODULES[module] as c_uint;
        }
        if !table.is_null() {
            *table = TABLES[module].0.as_ptr();
        }
    }
    1
}

/// `nvtxEventAttributes_t`.
#[repr(C)]
struct Event {
    version: u16,
    size: u16,
    category: u32,
    color_type: i32,
    color: u32,
    payload_type: i32,
    reserved: i32,
    payload: u64,
    message_type: i32,
    message: *const c_char,
}

/// A tool that is attached, and what it calls our domain.
struct Tool {
    domain: AtomicPtr<c_void>,
}

/// The tool, found the first time that it is asked for.
fn tool() -> Option<&'static Tool> {
    static TOOL: OnceLock<Option<Tool>> = OnceLock::new();
    TOOL.get_or_init(attach).as_ref()
}

fn attach() -> Option<Tool> {
    type Initialise = unsafe extern "C" fn(extern "C" fn(u32) -> *const c_void) -> c_int;
    let path = std::env::var_os(INJECTION).filter(|path| !path.is_empty())?;
    // SAFETY: whoever runs the program names a library to be loaded into it; its initialisers are the tool's.
    let library = unsafe { libloading::Library::new(path) }.ok()?;
    // SAFETY: a tool's library exports this function with this type, see the head of the file.
    let initialised = unsafe {
        let initialise = library.get::<Initialise>(b"InitializeInjectionNvtx2\0").ok()?;
        initialise(export_table)
    };
    if initialised == 0 {
        return None;
    }
    // Its functions are called until the program ends.
    std::mem::forget(library);
    let create = slot(DOMAIN_CREATE)?;
    // SAFETY: the tool has set this slot to a function of this type.
    let create =
        unsafe { transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> *mut c_void>(create) };
    // SAFETY: the name ends with a zero, and lives as long as the program.
    let domain = unsafe { create(DOMAIN.as_ptr().cast()) };
    Some(Tool { domain: AtomicPtr::new(domain) })
}

/// What the tool has set a function to, if it has. Read anew at each use: a tool may take its functions back.
fn slot(id: usize) -> Option<*mut c_void> {
    let function = SLOTS[CORE2][id].load(Ordering::Acquire);
    (!function.is_null()).then_some(function)
}

/// A range, from [`range`] until it is dropped, on one thread. Ranges nest.
#[must_use = "a range ends when it is dropped"]
pub(crate) struct Range {
    tool: Option<&'static Tool>,
    /// A range ends on the thread on which it began.
    thread: PhantomData<*const ()>,
}

/// Begins a range. The name is made only where a tool is attached.
pub(crate) fn range(name: fmt::Arguments<'_>) -> Range {
    let tool = tool().filter(|tool| tool.push(name));
    Range { tool, thread: PhantomData }
}

impl Tool {
    /// Whether the tool takes ranges now.
    fn push(&self, name: fmt::Arguments<'_>) -> bool {
        let Some(push) = slot(DOMAIN_RANGE_PUSH) else { return false };
        let message = format!("{name}\0");
        let event = Event {
            version: VERSION,
            size: size_of::<Event>() as u16,
            category: 0,
            color_type: 0,
            color: 0,
            payload_type: 0,
            reserved: 0,
            payload: 0,
            message_type: MESSAGE_ASCII,
            message: message.as_ptr().cast(),
        };
        // SAFETY: the tool has set this slot to a function of this type.
        let push = unsafe {
            transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, *const Event) -> c_int>(push)
        };
        // SAFETY: the domain is the tool's own; event and message live until the call returns, and the tool copies them.
        unsafe { push(self.domain.load(Ordering::Relaxed), &event) };
        true
    }

    fn pop(&self) {
        let Some(pop) = slot(DOMAIN_RANGE_POP) else { return };
        // SAFETY: the tool has set this slot to a function of this type.
        let pop = unsafe { transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(pop) };
        // SAFETY: the domain is the tool's own.
        unsafe { pop(self.domain.load(Ordering::Relaxed)) };
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        if let Some(tool) = self.tool {
            tool.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes and places as C has them on 64-bit machines.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn structures_are_laid_out_as_nvtx_has_them() {
        use std::mem::offset_of;
        assert_eq!(
            (size_of::<Event>(), offset_of!(Event, payload), offset_of!(Event, message)),
            (48, 24, 40)
        );
        assert_eq!((size_of::<Callbacks>(), size_of::<VersionInfo>()), (16, 24));
    }

    #[test]
    fn every_module_has_its_table_and_no_other_has_one() {
        for (module, &functions) in MODULES.iter().enumerate().skip(1) {
            let (mut table, mut size) = (null(), 0);
            assert_eq!(module_functions(module as c_uint, &mut table, &mut size), 1);
            assert_eq!(size as usize, functions);
            assert_eq!(table, TABLES[module].0.as_ptr());
            let set = TABLES[module].0.iter().map(|slot| !slot.is_null()).collect::<Vec<_>>();
            let expected = (0..=SLOTS_MAX).map(|id| id >= 1 && id < functions).collect::<Vec<_>>();
            assert_eq!(set, expected, "module {module}");
        }
        for module in [0, 7, c_uint::MAX] {
            assert_eq!(module_functions(module, &mut null(), &mut 0), 0);
        }
        assert_eq!(module_functions(CORE2 as c_uint, null_mut(), null_mut()), 1);
        assert!(export_table(2).is_null() && !export_table(1).is_null() && !export_table(3).is_null());
    }
}
