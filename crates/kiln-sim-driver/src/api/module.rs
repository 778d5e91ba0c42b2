//! Modules, and functions and their attributes.

#![allow(non_snake_case)]

use std::ffi::c_char;

use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{In, Out, Text, set_text};
use crate::handle::Handle;
use crate::module::Image;
use crate::report::note;
use crate::status::{Outcome, Status};

/// `CU_JIT_*`: the options that speak of logs. The others steer a compiler that the simulator does not have.
const INFO_LOG: i32 = 3;
const INFO_LOG_SIZE: i32 = 4;
const ERROR_LOG: i32 = 5;
const ERROR_LOG_SIZE: i32 = 6;
/// `CU_MODULE_EAGER_LOADING`.
const EAGER: i32 = 1;

/// A log buffer of the caller's.
#[derive(Clone, Copy, Default)]
struct Log {
    buffer: Option<Out<u8>>,
    /// Where the size stands among the option values, and the size.
    room: Option<(Out<usize>, usize)>,
}

impl Log {
    /// Writes a text, and how long it is, the NUL included.
    fn write(self, text: &str) -> Outcome {
        let (Some(buffer), Some((size, room))) = (self.buffer, self.room) else { return Ok(()) };
        if room > 0 {
            set_text(buffer, room, text)?;
        }
        size.set(if text.is_empty() { 0 } else { (text.len() + 1).min(room) })
    }
}

/// The information log and the error log that the options name.
fn logs(count: u32, options: In<i32>, values: Out<usize>) -> Outcome<[Log; 2]> {
    let mut logs = [Log::default(); 2];
    if count > 0 {
        values.check()?;
    }
    for (at, option) in options.all(count as usize)?.into_iter().enumerate() {
        let value = values.at(at);
        match option {
            INFO_LOG | ERROR_LOG => {
                logs[usize::from(option == ERROR_LOG)].buffer = Some(Out::from_address(value.get()?));
            }
            INFO_LOG_SIZE | ERROR_LOG_SIZE => {
                // The size is an `unsigned int` in place of the pointer.
                let room = value.get()? as u32 as usize;
                logs[usize::from(option == ERROR_LOG_SIZE)].room = Some((value, room));
            }
            _ => {}
        }
    }
    Ok(logs)
}

fn load(session: &mut Session, call: &str, module: Out<Handle>, ptx: &[u8], logs: [Log; 2]) -> Outcome {
    let context = session.context()?;
    session.not_while_capturing(call)?;
    let [info, error] = logs;
    info.write("")?;
    let loaded = session.load(context, ptx).map_err(|(status, text)| {
        note(call, &text);
        match error.write(&text) {
            Ok(()) => status,
            Err(status) => status,
        }
    })?;
    error.write("")?;
    module.set(loaded)
}

fn load_image(
    session: &mut Session,
    call: &str,
    module: Out<Handle>,
    image: Text,
    logs: [Log; 2],
) -> Outcome {
    module.check()?;
    let start = image.start()?;
    if Image::of(&start) == Image::Binary {
        note(call, "the image is machine code: the simulator runs PTX alone");
        return Err(Status::NO_BINARY_FOR_GPU);
    }
    load(session, call, module, image.bytes()?, logs)
}

calls! {
    fn cuModuleLoad(module: Out<Handle>, path: Text) |session| {
        module.check()?;
        let path = path.str()?;
        let ptx = std::fs::read(path).map_err(|error| {
            note("cuModuleLoad", &format!("{path}: {error}"));
            Status::FILE_NOT_FOUND
        })?;
        if Image::of(&ptx) == Image::Binary {
            note("cuModuleLoad", &format!("{path} is machine code: the simulator runs PTX alone"));
            return Err(Status::NO_BINARY_FOR_GPU);
        }
        load(&mut session, "cuModuleLoad", module, &ptx, Default::default())
    }

    fn cuModuleLoadData(module: Out<Handle>, image: Text) |session| {
        load_image(&mut session, "cuModuleLoadData", module, image, Default::default())
    }

    fn cuModuleLoadDataEx(module: Out<Handle>, image: Text, count: u32, options: In<i32>, values: Out<usize>) |session| {
        load_image(&mut session, "cuModuleLoadDataEx", module, image, logs(count, options, values)?)
    }

    fn cuModuleUnload(module: Handle) |session| {
        let context = session.modules.get(module)?.context;
        session.check(context)?;
        session.not_while_capturing("cuModuleUnload")?;
        let end = session.end_of(context);
        session.wait(end.pending());
        session.unload(module)
    }

    fn cuModuleGetLoadingMode(mode: Out<i32>) |_session| {
        mode.set(EAGER)
    }

    fn cuModuleGetFunction(function: Out<Handle>, module: Handle, name: Text) |session| {
        function.check()?;
        let context = session.modules.get(module)?.context;
        session.check(context)?;
        function.set(session.function(module, name.str()?)?)
    }

    fn cuModuleGetFunctionCount(count: Out<u32>, module: Handle) |session| {
        count.set(session.modules.get(module)?.loaded.kernels().len() as u32)
    }

    fn cuModuleEnumerateFunctions(functions: Out<Handle>, count: u32, module: Handle) |session| {
        let names = session.modules.get(module)?.loaded.kernels();
        let handles: Outcome<Vec<Handle>> = names.iter().map(|name| session.function(module, name)).collect();
        functions.set_all(&handles?, count as usize)
    }

    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: Handle, name: Text) |session| {
        let module = session.modules.get(module)?;
        let (start, size) = module.loaded.global(name.str()?).ok_or(Status::NOT_FOUND)?;
        address.set_if_wanted(start)?;
        bytes.set_if_wanted(size as usize)
    }

    fn cuFuncGetAttribute(value: Out<i32>, attribute: i32, function: Handle) |session| {
        value.set(session.function_attribute(function, attribute)?)
    }

    fn cuFuncSetAttribute(function: Handle, attribute: i32, value: i32) |session| {
        session.set_function_attribute(function, attribute, value)
    }

    // Cache and bank preferences change nothing that a program could tell.
    fn cuFuncSetCacheConfig(function: Handle, config: i32) |session| {
        session.functions.get(function)?;
        if (0..=3).contains(&config) { Ok(()) } else { Err(Status::INVALID_VALUE) }
    }

    fn cuFuncSetSharedMemConfig(function: Handle, config: i32) |session| {
        session.functions.get(function)?;
        if (0..=2).contains(&config) { Ok(()) } else { Err(Status::INVALID_VALUE) }
    }

    fn cuFuncGetModule(module: Out<Handle>, function: Handle) |session| {
        module.set(session.functions.get(function)?.module)
    }

    fn cuFuncGetName(name: Out<*const c_char>, function: Handle) |session| {
        name.set(session.functions.get(function)?.name.as_ptr())
    }

    fn cuFuncGetParamInfo(function: Handle, at: usize, offset: Out<usize>, size: Out<usize>) |session| {
        let function = session.functions.get(function)?;
        let param = function.kernel.info().params.get(at).ok_or(Status::INVALID_VALUE)?;
        offset.set(param.offset as usize)?;
        size.set_if_wanted(param.size as usize)
    }

    fn cuFuncIsLoaded(state: Out<i32>, function: Handle) |session| {
        session.functions.get(function)?;
        state.set(1)
    }

    fn cuFuncLoad(function: Handle) |session| {
        session.functions.get(function).map(drop)
    }
}
