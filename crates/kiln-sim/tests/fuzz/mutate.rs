//! Inputs: texts of the corpus, mutated, and noise.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Parts that mutations put in: signs that nest, numbers at the edges, names with a meaning.
const PARTS: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "<",
    ">",
    ",",
    ";",
    ":",
    "@",
    "@!",
    "|",
    "!",
    "+",
    "-",
    "=",
    ".",
    "\"",
    "/*",
    "*/",
    "//",
    "\0",
    "é",
    "0",
    "1",
    "-1",
    "0x7fffffff",
    "0x80000000",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "99999999999999999999",
    "0f7f800000",
    "0d7ff0000000000000",
    "1e999",
    "_",
    "%r0",
    "%r1",
    "%rd1",
    "%p1",
    "%tid.x",
    "%r<4000000000>",
    ".reg .b32 %q<60000>;",
    ".reg .pred %p<2>;",
    ".align 1048576",
    ".align 0",
    ".local .b8 l[524288];",
    ".shared .b8 s[1099511627775];",
    ".global .b8 g[1099511627775];",
    ".const .b8 c[4096] = {1};",
    ".param .b8 p[4096]",
    ".v4",
    ".b128",
    ".s64",
    ".f16x2",
    "ret;",
    "bra",
    "brx.idx",
    "call",
    "bar.sync",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    "ld.global.v4.u32 {%r1, %r1, %r1, %r1}, [%rd1+9223372036854775807];",
    "st.shared.u32 [%r1-9223372036854775808], %r1;",
    "cp.async.bulk",
    "mbarrier.init.shared.b64",
    ".entry",
    ".func",
    ".visible",
    ".maxntid 4294967295, 4294967295, 2",
    ".reqntid 1024, 1024, 64",
    ".reqnctapercluster 16, 16, 16",
    ".loc 1 4294967295 0",
    ".file 1 \"x\"",
    ".version 8.4",
    ".target sm_90",
    ".address_size 64",
    "\n.visible .entry k()\n{\n",
    "$L:",
    ".section .debug_info {",
    ".pragma \"nounroll\";",
];

/// Numbers at the edges of what fits somewhere.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "15",
    "16",
    "17",
    "31",
    "32",
    "33",
    "255",
    "256",
    "1024",
    "1025",
    "32764",
    "32768",
    "65535",
    "65536",
    "1048576",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "1099511627775",
    "9223372036854775807",
    "-9223372036854775808",
    "-1",
    "-2147483649",
    "18446744073709551615",
    "18446744073709551616",
];

/// Texts to mutate.
pub(crate) struct Corpus {
    texts: Vec<String>,
    /// How many of them can be loaded; those come first.
    accepted: usize,
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the corpus is there") {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "ptx") {
            into.push(path);
        }
    }
}

impl Corpus {
    /// All PTX of `tests/ptx`, in order of names.
    pub(crate) fn read() -> Corpus {
        let mut paths = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ptx"), &mut paths);
        let refused = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with("reject"));
        paths.sort_by_key(|path| (refused(path), path.clone()));
        let texts: Vec<String> =
            paths.iter().map(|path| fs::read_to_string(path).expect("PTX is text")).collect();
        assert!(texts.len() > 200, "{} texts", texts.len());
        let accepted = paths.iter().filter(|path| !refused(path)).count();
        Corpus { texts, accepted }
    }

    /// The input of a number.
    pub(crate) fn input(&self, seed: u64, number: u64) -> String {
        let mut random = SmallRng::seed_from_u64(seed << 40 ^ number);
        if number.is_multiple_of(50) {
            return noise(&mut random);
        }
        // One text in eight is among those that are refused as they are: the others get further.
        let among = if number.is_multiple_of(8) { self.texts.len() } else { self.accepted };
        let at = random.random_range(0..among);
        let mut bytes = self.texts[at].clone().into_bytes();
        let count = 1 << random.random_range(0..4);
        for _ in 0..count {
            let other = &self.texts[random.random_range(0..self.texts.len())];
            mutate(&mut bytes, other, &mut random);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Bytes that are no PTX, behind a head that is in half of the cases.
fn noise(random: &mut SmallRng) -> String {
    let length = random.random_range(0..2000);
    let words = random.random_range(0..3) > 0;
    let mut text = String::new();
    if random.random_range(0..2) == 0 {
        text += ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n";
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        match words {
            true => bytes.extend(format!("{} ", PARTS[random.random_range(0..PARTS.len())]).into_bytes()),
            false => bytes.push(random.random_range(0..=255)),
        }
    }
    text + &String::from_utf8_lossy(&bytes)
}

/// The start and end of a token near a random place.
fn token(bytes: &[u8], random: &mut SmallRng) -> (usize, usize) {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'%' | b'$' | b'.');
    let mut start = random.random_range(0..bytes.len());
    while start > 0 && is_word(bytes[start]) && is_word(bytes[start - 1]) {
        start -= 1;
    }
    let mut end = start + 1;
    while end < bytes.len() && is_word(bytes[start]) && is_word(bytes[end]) {
        end += 1;
    }
    (start, end)
}

/// The start and end of a number at or after a random place; a token where there is none.
fn number(bytes: &[u8], random: &mut SmallRng) -> (usize, usize) {
    let at = random.random_range(0..bytes.len());
    let is_start = |n: &usize| {
        bytes[*n].is_ascii_digit()
            && (*n == 0 || !bytes[*n - 1].is_ascii_alphanumeric() && bytes[*n - 1] != b'_')
    };
    let Some(start) = (at..bytes.len()).find(is_start) else { return token(bytes, random) };
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    (start, start + length)
}

/// The start and end of a line.
fn line(bytes: &[u8], random: &mut SmallRng) -> (usize, usize) {
    let at = random.random_range(0..bytes.len());
    let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |n| n + 1);
    let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| at + n + 1);
    (start, end)
}

fn mutate(bytes: &mut Vec<u8>, other: &str, random: &mut SmallRng) {
    if bytes.is_empty() {
        bytes.push(b'.');
    }
    let at = random.random_range(0..bytes.len());
    let part = PARTS[random.random_range(0..PARTS.len())];
    let replace = |bytes: &mut Vec<u8>, (start, end): (usize, usize), by: &[u8]| {
        bytes.splice(start..end, by.iter().copied());
    };
    match random.random_range(0..14) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random_range(0..=255),
        2 => bytes.truncate(at),
        3 => replace(bytes, (at, at), part.as_bytes()),
        4 => {
            let place = token(bytes, random);
            replace(bytes, place, b"");
        }
        5 => {
            let (start, end) = token(bytes, random);
            let copy = bytes[start..end].to_vec();
            replace(bytes, (end, end), &copy);
        }
        6 => {
            let place = token(bytes, random);
            replace(bytes, place, part.as_bytes());
        }
        7 => {
            let (from, to) = (token(bytes, random), token(bytes, random));
            let copy = bytes[from.0..from.1].to_vec();
            replace(bytes, to, &copy);
        }
        8 => {
            let place = line(bytes, random);
            replace(bytes, place, b"");
        }
        9 => {
            let (from, to) = (line(bytes, random), line(bytes, random));
            let copy = bytes[from.0..from.1].to_vec();
            replace(bytes, (to.0, to.0), &copy);
        }
        10 => {
            let (start, end) = line(other.as_bytes(), random);
            let place = line(bytes, random);
            replace(bytes, (place.0, place.0), &other.as_bytes()[start..end]);
        }
        11 | 12 => {
            let place = number(bytes, random);
            replace(bytes, place, NUMBERS[random.random_range(0..NUMBERS.len())].as_bytes());
        }
        _ => {
            let deep = part.repeat(1 << random.random_range(0..12));
            replace(bytes, (at, at), deep.as_bytes());
        }
    }
}
