//! Devices.

#![allow(non_snake_case)]

use crate::abi::Uuid;
use crate::entry::calls;
use crate::ffi::{Out, Text, set_text};
use crate::status::{Outcome, Status};

/// A device's address on a bus that does not exist.
fn bus_id(gpu: usize) -> String {
    format!("0000:{:02x}:00.0", gpu + 1)
}

fn uuid(gpu: usize) -> Uuid {
    let mut bytes = *b"kiln simulator  ";
    bytes[15] = gpu as u8;
    Uuid(bytes)
}

fn length(length: i32) -> Outcome<usize> {
    usize::try_from(length).map_err(|_| Status::INVALID_VALUE)
}

calls! {
    fn cuDeviceGet(device: Out<i32>, ordinal: i32) |session| {
        session.gpu(ordinal)?;
        device.set(ordinal)
    }

    fn cuDeviceGetCount(count: Out<i32>) |session| {
        count.set(session.gpus.len() as i32)
    }

    fn cuDeviceGetName(name: Out<u8>, room: i32, device: i32) |session| {
        session.gpu(device)?;
        set_text(name, length(room)?, &format!("Kiln simulator ({})", session.settings.arch))
    }

    fn cuDeviceGetUuid(result: Out<Uuid>, device: i32) |session| {
        result.set(uuid(session.gpu(device)?))
    }

    fn cuDeviceGetUuid_v2(result: Out<Uuid>, device: i32) |session| {
        result.set(uuid(session.gpu(device)?))
    }

    fn cuDeviceGetPCIBusId(id: Out<u8>, room: i32, device: i32) |session| {
        set_text(id, length(room)?, &bus_id(session.gpu(device)?))
    }

    fn cuDeviceGetByPCIBusId(device: Out<i32>, id: Text) |session| {
        let id = id.str()?;
        let gpu = (0..session.gpus.len()).find(|&gpu| bus_id(gpu) == id);
        device.set(gpu.ok_or(Status::INVALID_DEVICE)? as i32)
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) |session| {
        let gpu = session.gpu(device)?;
        bytes.set(session.gpus[gpu].device.memory_info().1 as usize)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, attribute: i32, device: i32) |session| {
        let gpu = session.gpu(device)?;
        value.set(session.limits.attribute(attribute, gpu).ok_or(Status::INVALID_VALUE)?)
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) |session| {
        session.gpu(device)?;
        major.set(session.limits.capability.0)?;
        minor.set(session.limits.capability.1)
    }

    // Copies between devices work; a kernel cannot reach another device's memory.
    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) |session| {
        session.gpu(device)?;
        session.gpu(peer)?;
        can.set(0)
    }

    fn cuDeviceGetP2PAttribute(value: Out<i32>, attribute: i32, from: i32, to: i32) |session| {
        session.gpu(from)?;
        session.gpu(to)?;
        if from == to || !(1..=5).contains(&attribute) {
            return Err(Status::INVALID_VALUE);
        }
        value.set(0)
    }
}
