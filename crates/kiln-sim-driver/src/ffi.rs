//! The border to C: types that stand for the pointers in a driver call's arguments.
//!
//! A driver call's pointers come from a C caller, who vouches for them as CUDA's documentation asks: each is
//! null, or points to memory of the documented type that stays valid for the length of the call. The types here
//! have the layout of those pointers and appear only in the argument lists of exported calls. What can be
//! checked is checked (null, alignment); the rest is the C caller's promise, and every `SAFETY` note of this
//! module rests on it.

use std::ffi::CStr;

use crate::status::{Outcome, Status};

/// Where a call writes a result: `T *`.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// The same address, for a result of another type.
    pub(crate) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// The place `count` further in an array of results.
    pub(crate) fn at(self, count: usize) -> Out<T> {
        Out(self.0.wrapping_add(count))
    }

    /// A pointer that the caller passed as a number among others.
    pub(crate) fn from_address(address: usize) -> Out<T> {
        Out(std::ptr::with_exposed_provenance_mut(address))
    }
}

impl<T: Copy> Out<T> {
    /// Writes the result; a null pointer is an invalid value.
    pub(crate) fn set(self, value: T) -> Outcome {
        if self.0.is_null() || !self.0.is_aligned() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller of the driver passes null or a pointer to a `T` that may be written, see the module.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// Writes the result if the caller wants it; null says no.
    pub(crate) fn set_if_wanted(self, value: T) -> Outcome {
        if self.0.is_null() { Ok(()) } else { self.set(value) }
    }

    /// What is there now.
    pub(crate) fn get(self) -> Outcome<T> {
        In(self.0.cast_const()).get()
    }

    /// Whether the caller passed null.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Refuses null, before anything has been done that would have to be undone.
    pub(crate) fn check(self) -> Outcome {
        if self.0.is_null() { Err(Status::INVALID_VALUE) } else { Ok(()) }
    }

    /// Writes at most `room` values to an array.
    pub(crate) fn set_all(self, values: &[T], room: usize) -> Outcome {
        values.iter().take(room).enumerate().try_for_each(|(at, &value)| self.at(at).set(value))
    }

    /// Writes the same value to the places `start..end` of an array.
    pub(crate) fn set_from(self, start: usize, end: usize, value: T) -> Outcome {
        (start..end).try_for_each(|at| self.at(at).set(value))
    }
}

/// What a call reads: `const T *`.
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl<T: Copy> In<T> {
    /// The value; a null pointer is an invalid value.
    pub(crate) fn get(self) -> Outcome<T> {
        if self.0.is_null() || !self.0.is_aligned() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller of the driver passes null or a pointer to a valid `T`, see the module. The types
        // read in this way hold integers and raw pointers only, so that any bit pattern is valid.
        Ok(unsafe { self.0.read() })
    }

    /// The first `count` values; null is an invalid value unless there are none.
    pub(crate) fn all(self, count: usize) -> Outcome<Vec<T>> {
        if self.0.is_null() && count > 0 {
            return Err(Status::INVALID_VALUE);
        }
        (0..count).map(|at| In(self.0.wrapping_add(at)).get()).collect()
    }

    /// The pointer to the value `count` further.
    pub(crate) fn at(self, count: usize) -> In<T> {
        In(self.0.wrapping_add(count))
    }

    /// A pointer that the caller passed as a number among others.
    pub(crate) fn from_address(address: usize) -> In<T> {
        In(std::ptr::with_exposed_provenance(address))
    }

    /// Whether the caller passed null.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

/// A C string: `const char *`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Text(*const libc::c_char);

impl Text {
    /// The string's bytes, without the NUL; a null pointer is an invalid value.
    pub(crate) fn bytes<'a>(self) -> Outcome<&'a [u8]> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller passes a NUL-terminated string that stays for the length of the call, see the
        // module; no exported call keeps the slice beyond its return.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_bytes())
    }

    /// The first four bytes, fewer if the string ends before. Unlike the string's length, they can be asked for where
    /// the pointer may be to something else that begins with a mark of four bytes.
    pub(crate) fn start(self) -> Outcome<Vec<u8>> {
        let mut start = Vec::new();
        for at in 0..4 {
            match In(self.0.cast::<u8>().wrapping_add(at)).get()? {
                0 => break,
                byte => start.push(byte),
            }
        }
        Ok(start)
    }

    /// The string as UTF-8; other bytes are an invalid value.
    pub(crate) fn str<'a>(self) -> Outcome<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Status::INVALID_VALUE)
    }
}

/// Writes `text` and a NUL into a C buffer of `room` bytes, cut to fit.
pub(crate) fn set_text(buffer: Out<u8>, room: usize, text: &str) -> Outcome {
    let Some(most) = room.checked_sub(1) else { return Err(Status::INVALID_VALUE) };
    let bytes: Vec<u8> = text.bytes().take(most).chain([0]).collect();
    buffer.check()?;
    buffer.set_all(&bytes, bytes.len())
}

/// An address of host memory that an operation reads or writes, perhaps after the call has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct HostAddress(pub(crate) usize);

impl HostAddress {
    /// The address `bytes` further.
    pub(crate) fn offset(self, bytes: usize) -> HostAddress {
        HostAddress(self.0.wrapping_add(bytes))
    }

    /// Copies memory out of the program.
    pub(crate) fn read(self, into: &mut [u8]) -> Outcome {
        if into.is_empty() {
            return Ok(());
        }
        if self.0 == 0 {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the program passed this address with this length to a driver call as readable memory, and
        // must keep it so until the operation is finished; `into` is ours and cannot overlap it.
        unsafe { std::ptr::copy_nonoverlapping(self.0 as *const u8, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies memory into the program.
    pub(crate) fn write(self, from: &[u8]) -> Outcome {
        if from.is_empty() {
            return Ok(());
        }
        if self.0 == 0 {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: as for `read`, as writable memory.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.0 as *mut u8, from.len()) };
        Ok(())
    }
}

/// A function of the program that the driver calls, with the argument that it asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostCall {
    function: extern "C" fn(usize),
    argument: usize,
}

impl HostCall {
    pub(crate) fn new(function: Option<extern "C" fn(usize)>, argument: usize) -> Outcome<HostCall> {
        Ok(HostCall { function: function.ok_or(Status::INVALID_VALUE)?, argument })
    }

    /// The function and its argument.
    pub(crate) fn parts(self) -> (extern "C" fn(usize), usize) {
        (self.function, self.argument)
    }

    /// Calls it.
    pub(crate) fn call(self) {
        (self.function)(self.argument);
    }
}
