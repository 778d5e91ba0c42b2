//! Runs a program as its directives say.

use kiln_sim::device::{Config, Device, Fault, Schedule};
use kiln_sim::finding::Finding;
use kiln_sim::stamp::Stamp;

use crate::program::{Argument, Fill, Program};

/// The device that a program asks for.
pub(crate) fn device(program: &Program, schedule: Schedule) -> Device {
    let mut config = Config::new(program.arch);
    config.schedule = schedule;
    config.fuel = program.fuel.unwrap_or(50_000_000);
    Device::new(config)
}

fn contents(element: usize, count: usize, fill: Fill) -> Vec<u8> {
    let number = |i: usize| if fill == Fill::Iota { i as u64 } else { 0 };
    (0..count).flat_map(|i| number(i).to_le_bytes()[..element].to_vec()).collect()
}

/// Loads `ptx`, which is the program or its mended form, launches its kernel and returns what is found.
pub(crate) fn run(program: &Program, ptx: &str, schedule: Schedule) -> Result<Vec<Finding>, String> {
    let device = device(program, schedule);
    let module = device.load(ptx).map_err(|error| error.to_string())?;
    let kernel = module.kernel(&program.kernel).ok_or("no such kernel")?;
    let mut stamps = (1..).map(|number| Stamp::sequential(number, "test"));
    let mut params =
        vec![0; kernel.info().params.last().map_or(0, |last| (last.offset + last.size) as usize)];
    if kernel.info().params.len() != program.arguments.len() {
        return Err(format!("{} parameters", kernel.info().params.len()));
    }
    let mut freed = Vec::new();
    for (param, argument) in kernel.info().params.iter().zip(&program.arguments) {
        let bytes = match argument {
            Argument::Number(bytes) => bytes.clone(),
            Argument::Buffer(element, count, fill) => {
                let address = device.alloc((element * count) as u64).map_err(|error| error.to_string())?;
                if *fill != Fill::Uninit {
                    let contents = contents(*element, *count, *fill);
                    device.write(address, &contents, &stamps.next().unwrap()).map_err(|e| e.to_string())?;
                }
                if *fill == Fill::Freed {
                    freed.push(address);
                }
                address.to_le_bytes().into()
            }
        };
        if bytes.len() != param.size as usize {
            return Err(format!("an argument of {} bytes for {param:?}", bytes.len()));
        }
        params[param.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    for address in freed {
        device.free(address).map_err(|error| error.to_string())?;
    }
    match device.launch(&kernel, &program.launch, &params, &stamps.next().unwrap()) {
        Ok(_) => Ok(Vec::new()),
        Err(Fault::Findings(findings)) => Ok(findings),
        Err(Fault::InvalidLaunch(why)) => Err(why),
    }
}
