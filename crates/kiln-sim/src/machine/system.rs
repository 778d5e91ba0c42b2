//! The functions that the driver provides to kernels: `vprintf`, which is what `printf` compiles to, and `__assertfail`.

use sprintf::{Printf, vsprintf};

use crate::finding::Kind;
use crate::isa::{Inst, Place};

use super::Machine;
use super::regs::lanes;
use super::step::{Flow, Running};

/// Longest string that is read, in bytes.
const LONGEST: u64 = 4096;
/// What a launch prints beyond this many bytes is lost, as on hardware (where less is kept, and the newest).
const BUFFER: usize = 16 << 20;

/// What a conversion of `printf` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conversion {
    /// Its bytes, and whether it is signed.
    Integer(u32, bool),
    Double,
    Text,
    Pointer,
}

/// A part of a format: text that stands for itself, or one conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'f> {
    Plain(&'f str),
    /// Flags, width and precision; what is converted; the letter.
    Converted(&'f str, Conversion, char),
}

/// Splits a format into its parts; an error names the conversion that is not one. CUDA has no `%n` and no `*`.
fn parts(format: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        if at > 0 {
            parts.push(Part::Plain(&rest[..at]));
        }
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('%') {
            parts.push(Part::Plain("%"));
            rest = after;
            continue;
        }
        let flags = tail.find(|c: char| !"-+ #0123456789.".contains(c)).unwrap_or(tail.len());
        let sized = &tail[flags..];
        let letters = sized.find(|c: char| !"hlzjt".contains(c)).unwrap_or(sized.len());
        let Some(letter) = sized[letters..].chars().next() else {
            return Err(format!("`%{tail}` has no conversion"));
        };
        let wide = sized[..letters].contains(['l', 'z', 'j', 't']);
        let bytes = if wide { 8 } else { 4 };
        let conversion = match letter {
            'd' | 'i' => Conversion::Integer(bytes, true),
            'u' | 'x' | 'X' | 'o' | 'c' => Conversion::Integer(bytes, false),
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' | 'a' | 'A' => Conversion::Double,
            's' => Conversion::Text,
            'p' => Conversion::Pointer,
            other => return Err(format!("`%{other}` is no conversion")),
        };
        parts.push(Part::Converted(&tail[..flags], conversion, letter));
        rest = &sized[letters + letter.len_utf8()..];
    }
    if !rest.is_empty() {
        parts.push(Part::Plain(rest));
    }
    Ok(parts)
}

/// One converted value.
fn convert(flags: &str, letter: char, value: &dyn Printf) -> Result<String, String> {
    vsprintf(&format!("%{flags}{letter}"), &[value]).map_err(|error| format!("`%{flags}{letter}`: {error}"))
}

impl Machine<'_> {
    /// `printf` for each lane in turn. A format that C does not define ends the kernel with a finding.
    pub(super) fn print(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        for lane in lanes(run.active) {
            let (format, arguments) = (address(run, inst, 1, lane), address(run, inst, 3, lane));
            let Some(format) = self.text(format, run, lane) else { return Flow::Changed };
            match self.formatted(&format, arguments, run, lane) {
                Some(Ok((text, count))) => {
                    if self.printed.len() < BUFFER {
                        self.printed += &text;
                    }
                    run.warp.r32[run.base.r32 as usize + usize::from(inst.r[0])][lane] = count;
                }
                Some(Err(message)) => {
                    self.fault(Kind::Misuse, run.pc, run.who | lane as u32, format!("printf: {message}"));
                    return Flow::Changed;
                }
                None => return Flow::Changed,
            }
        }
        Flow::Next
    }

    /// A failed `assert`.
    pub(super) fn assert(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        let Some(lane) = lanes(run.active).next() else { return Flow::Next };
        let condition = self.text(address(run, inst, 0, lane), run, lane);
        let file = self.text(address(run, inst, 2, lane), run, lane);
        let line = word(run, inst, 4, lane);
        if let (Some(condition), Some(file)) = (condition, file) {
            let message = format!("assertion `{condition}` failed at {file}:{line}");
            self.fault(Kind::Trap, run.pc, run.who | lane as u32, message);
        }
        Flow::Changed
    }

    /// The text of a format with its arguments from memory, and how many there are. None after a finding.
    #[allow(clippy::type_complexity)] // The two ways in which it can go wrong.
    fn formatted(
        &mut self,
        format: &str,
        arguments: u64,
        run: &Running<'_>,
        lane: usize,
    ) -> Option<Result<(String, u32), String>> {
        let parts = match parts(format) {
            Ok(parts) => parts,
            Err(message) => return Some(Err(message)),
        };
        let (mut text, mut at, mut count) = (String::new(), arguments, 0);
        for part in parts {
            let (flags, conversion, letter) = match part {
                Part::Plain(plain) => {
                    text += plain;
                    continue;
                }
                Part::Converted(flags, conversion, letter) => (flags, conversion, letter),
            };
            let bytes = if let Conversion::Integer(bytes, _) = conversion { bytes } else { 8 };
            at = at.next_multiple_of(u64::from(bytes));
            let value = self.value(at, bytes, run, lane)?;
            (at, count) = (at + u64::from(bytes), count + 1);
            let converted = match conversion {
                Conversion::Integer(..) if letter == 'c' => convert(flags, letter, &char::from(value as u8)),
                Conversion::Integer(4, true) => convert(flags, letter, &(value as i32)),
                Conversion::Integer(4, false) => convert(flags, letter, &(value as u32)),
                Conversion::Integer(_, true) => convert(flags, letter, &(value as i64)),
                Conversion::Integer(..) => convert(flags, letter, &value),
                Conversion::Double => convert(flags, letter, &f64::from_bits(value)),
                Conversion::Text => convert(flags, letter, &self.text(value, run, lane)?.as_str()),
                Conversion::Pointer => convert(flags, 's', &format!("{value:#x}").as_str()),
            };
            match converted {
                Ok(converted) => text += &converted,
                Err(message) => return Some(Err(message)),
            }
        }
        Some(Ok((text, count)))
    }

    /// A value in memory; none after a finding.
    fn value(&mut self, address: u64, bytes: u32, run: &Running<'_>, lane: usize) -> Option<u64> {
        let spot = self.resolve(Place::Generic, address, bytes, bytes, run, lane)?;
        if self.launch.checks {
            self.check_read(spot, bytes, None, run, lane, false);
        }
        Some(self.read_element(spot, 0, bytes as u8, run, lane))
    }

    /// The string at an address, up to its zero; none after a finding.
    fn text(&mut self, address: u64, run: &Running<'_>, lane: usize) -> Option<String> {
        let mut bytes = Vec::new();
        for at in 0..LONGEST {
            match self.value(address.wrapping_add(at), 1, run, lane)? as u8 {
                0 => return Some(String::from_utf8_lossy(&bytes).into_owned()),
                byte => bytes.push(byte),
            }
        }
        let message = format!("a string of more than {LONGEST} bytes");
        self.fault(Kind::Misuse, run.pc, run.who | lane as u32, message);
        None
    }
}

fn word(run: &Running<'_>, inst: &Inst, slot: usize, lane: usize) -> u32 {
    run.warp.r32[run.base.r32 as usize + usize::from(inst.r[slot])][lane]
}

/// The address whose low and high words are in two registers.
fn address(run: &Running<'_>, inst: &Inst, slot: usize, lane: usize) -> u64 {
    u64::from(word(run, inst, slot, lane)) | u64::from(word(run, inst, slot + 1, lane)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_split_as_in_c() {
        let found = parts("a%d%%%-5lu %.3f%s%p\n").unwrap();
        let expected = [
            Part::Plain("a"),
            Part::Converted("", Conversion::Integer(4, true), 'd'),
            Part::Plain("%"),
            Part::Converted("-5", Conversion::Integer(8, false), 'u'),
            Part::Plain(" "),
            Part::Converted(".3", Conversion::Double, 'f'),
            Part::Converted("", Conversion::Text, 's'),
            Part::Converted("", Conversion::Pointer, 'p'),
            Part::Plain("\n"),
        ];
        assert_eq!(found, expected);
        for wrong in ["%", "%5", "%n", "%*d", "%l", "%é"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }
}
