//! What the environment asks of the simulator.

use std::path::PathBuf;

use kiln_sim::arch::Arch;

/// The version of the driver API whose calls are exported.
const DRIVER: i32 = 12_080;

/// The settings, as `KILN_SIM_*` variables give them. Read once, when the driver is initialised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `KILN_SIM_ARCH`: what every device is, sm_90 unless told otherwise.
    pub(crate) arch: Arch,
    /// `KILN_SIM_DRIVER`: the CUDA version that the driver says it supports, 12080 (12.8) unless told otherwise.
    pub(crate) driver: i32,
    /// `KILN_SIM_DEVICES`: how many devices there are, 1 unless told otherwise.
    pub(crate) devices: usize,
    /// `KILN_SIM_MEMORY`: bytes of memory of each device; the simulator's default unless told otherwise.
    pub(crate) memory: Option<u64>,
    /// `KILN_SIM_SEED`: a seed for a random schedule; the schedule is fixed without it.
    pub(crate) seed: Option<u64>,
    /// `KILN_SIM_THREADS`: host threads that run blocks; all of the machine's unless told otherwise.
    pub(crate) threads: Option<usize>,
    /// `KILN_SIM_FUEL`: warp instructions that a launch may execute before it is taken to hang.
    pub(crate) fuel: Option<u64>,
    /// `KILN_SIM_REPORT`: a file to which each finding is added as one line of JSON.
    pub(crate) report: Option<PathBuf>,
    /// `KILN_SIM_CHECKS`: whether races and uninitialised reads are looked for; 1 unless told otherwise.
    pub(crate) checks: bool,
    /// `KILN_SIM_FAULT`: faults on order.
    pub(crate) faults: Faults,
}

/// Faults that happen on order, to test what a program does about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// `oom@N`: the N-th allocation of device memory, counted from 1, fails.
    pub(crate) allocation: Option<u64>,
    /// `oom>BYTES`: no more than this many bytes are ever allocated at once.
    pub(crate) bytes: Option<u64>,
    /// `launch@N`: the N-th kernel launch fails on the device.
    pub(crate) launch: Option<u64>,
    /// `lost@N`: the device is lost at the N-th operation (launch, copy, fill).
    pub(crate) lost: Option<u64>,
}

/// A variable that says something else than it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={found}: expected {expected}")]
pub(crate) struct SettingError {
    variable: &'static str,
    found: String,
    expected: String,
}

impl SettingError {
    /// The report file cannot be opened.
    pub(crate) fn report(settings: &Settings, error: &std::io::Error) -> SettingError {
        let found = settings.report.as_ref().map_or(String::new(), |path| path.display().to_string());
        wrong("KILN_SIM_REPORT", &found, &format!("a file that can be written ({error})"))
    }
}

impl Settings {
    /// Reads the process's environment.
    pub(crate) fn from_environment() -> Result<Settings, SettingError> {
        Settings::read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads the variables that `get` knows. An empty one counts as not set.
    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, SettingError> {
        let get = |name| get(name).filter(|value| !value.is_empty());
        let number = |name, least: u64, most: u64| match get(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
                _ if most == u64::MAX => Err(wrong(name, &text, &format!("a number from {least}"))),
                _ => Err(wrong(name, &text, &format!("a number from {least} to {most}"))),
            },
        };
        Ok(Settings {
            arch: match get("KILN_SIM_ARCH") {
                None => Arch::Sm90,
                Some(text) => text.parse().map_err(|_| {
                    wrong("KILN_SIM_ARCH", &text, "sm_80, sm_86, sm_89, sm_90, sm_100 or sm_120")
                })?,
            },
            driver: number("KILN_SIM_DRIVER", 11_000, 13_990)?.map_or(DRIVER, |version| version as i32),
            devices: number("KILN_SIM_DEVICES", 1, 64)?.map_or(1, |count| count as usize),
            memory: match get("KILN_SIM_MEMORY") {
                None => None,
                Some(text) => {
                    Some(bytes(&text).ok_or_else(|| wrong("KILN_SIM_MEMORY", &text, "bytes, such as 512m"))?)
                }
            },
            seed: number("KILN_SIM_SEED", 0, u64::MAX)?,
            threads: number("KILN_SIM_THREADS", 1, 1024)?.map(|count| count as usize),
            fuel: number("KILN_SIM_FUEL", 1, u64::MAX)?,
            report: get("KILN_SIM_REPORT").map(PathBuf::from),
            checks: match get("KILN_SIM_CHECKS").as_deref() {
                None | Some("1") => true,
                Some("0") => false,
                Some(text) => return Err(wrong("KILN_SIM_CHECKS", text, "0 or 1")),
            },
            faults: match get("KILN_SIM_FAULT") {
                None => Faults::default(),
                Some(text) => faults(&text).ok_or_else(|| {
                    wrong("KILN_SIM_FAULT", &text, "a list of oom@N, oom>BYTES, launch@N, lost@N")
                })?,
            },
        })
    }
}

fn wrong(variable: &'static str, found: &str, expected: &str) -> SettingError {
    SettingError { variable, found: found.to_owned(), expected: expected.to_owned() }
}

/// A count of bytes: a number, and perhaps k, m or g for KiB, MiB or GiB.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix(['k', 'm', 'g']) {
        None => (text.as_str(), 1),
        Some(digits) => (
            digits,
            if text.ends_with('k') {
                1 << 10
            } else if text.ends_with('m') {
                1 << 20
            } else {
                1 << 30
            },
        ),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A list of faults, divided by commas.
fn faults(text: &str) -> Option<Faults> {
    let mut faults = Faults::default();
    for order in text.split(',').map(str::trim) {
        if let Some(most) = order.strip_prefix("oom>") {
            faults.bytes = Some(bytes(most)?);
            continue;
        }
        let (what, at) = order.split_once('@')?;
        let at = at.parse().ok().filter(|&at| at > 0)?;
        match what {
            "oom" => faults.allocation = Some(at),
            "launch" => faults.launch = Some(at),
            "lost" => faults.lost = Some(at),
            _ => return None,
        }
    }
    Some(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Settings, SettingError> {
        Settings::read(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn nothing_set_is_one_sm_90() {
        let settings = read(&[]).unwrap();
        assert_eq!((settings.arch, settings.devices, settings.seed), (Arch::Sm90, 1, None));
        assert_eq!(settings.driver, 12_080);
        assert_eq!(settings.faults, Faults::default());
        assert_eq!(read(&[("KILN_SIM_ARCH", "")]), Ok(settings));
    }

    #[test]
    fn everything_can_be_set() {
        let settings = read(&[
            ("KILN_SIM_ARCH", "sm_120"),
            ("KILN_SIM_DRIVER", "12020"),
            ("KILN_SIM_DEVICES", "2"),
            ("KILN_SIM_MEMORY", "3g"),
            ("KILN_SIM_SEED", "0"),
            ("KILN_SIM_CHECKS", "0"),
            ("KILN_SIM_FAULT", "oom@3, oom>2m,launch@1,lost@9"),
        ])
        .unwrap();
        assert_eq!((settings.arch, settings.devices, settings.memory), (Arch::Sm120, 2, Some(3 << 30)));
        assert_eq!((settings.seed, settings.checks, settings.driver), (Some(0), false, 12_020));
        let all = Faults { allocation: Some(3), bytes: Some(2 << 20), launch: Some(1), lost: Some(9) };
        assert_eq!(settings.faults, all);
    }

    #[test]
    fn what_may_not_be_said_is_named() {
        for (name, value) in [
            ("KILN_SIM_ARCH", "sm_75"),
            ("KILN_SIM_DRIVER", "12.2"),
            ("KILN_SIM_DRIVER", "550"),
            ("KILN_SIM_DEVICES", "0"),
            ("KILN_SIM_DEVICES", "65"),
            ("KILN_SIM_SEED", "-1"),
            ("KILN_SIM_MEMORY", "99999999999999999999g"),
            ("KILN_SIM_MEMORY", "g"),
            ("KILN_SIM_CHECKS", "no"),
            ("KILN_SIM_FAULT", "oom"),
            ("KILN_SIM_FAULT", "oom@0"),
            ("KILN_SIM_FAULT", "fire@1"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert_eq!((error.variable, error.found.as_str()), (name, value));
        }
    }
}
