//! One allocation: its words, and which of its bytes have been written.
//!
//! Blocks that run at the same time share it, so its words are atomics: races between them are found and reported, and
//! must not be undefined behaviour of the simulator itself. Pages come into being when they are first touched.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Memory outside the device (pinned or managed host memory) that kernels address as it is addressed on the host.
pub trait ExternalMemory: Send + Sync + fmt::Debug {
    /// Bytes.
    fn len(&self) -> u64;
    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies out, from byte `offset`.
    fn read(&self, offset: u64, to: &mut [u8]);
    /// Copies in, to byte `offset`.
    fn write(&self, offset: u64, from: &[u8]);
}

/// Bytes of a page.
const PAGE: u64 = 16 << 10;
const WORDS: usize = PAGE as usize / 4;

#[derive(Debug)]
struct Page {
    words: Box<[AtomicU32]>,
    /// One bit a byte.
    init: Box<[AtomicU64]>,
}

impl Page {
    /// Zeros, which count as written or not.
    fn new(written: bool) -> Page {
        let init = if written { u64::MAX } else { 0 };
        Page {
            words: (0..WORDS).map(|_| AtomicU32::new(0)).collect(),
            init: (0..PAGE as usize / 64).map(|_| AtomicU64::new(init)).collect(),
        }
    }
}

#[derive(Debug)]
enum Storage {
    Pages(Box<[OnceLock<Page>]>),
    External(Arc<dyn ExternalMemory>),
}

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) id: u64,
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    /// Kernels may not write it.
    pub(crate) constant: bool,
    /// What it is called: `allocation 3`, `variable table`.
    pub(crate) name: Arc<str>,
    /// Its bytes are zeros from the beginning, as those of a module's variables are.
    written: bool,
    storage: Storage,
}

impl Allocation {
    pub(super) fn new(
        id: u64,
        base: u64,
        bytes: u64,
        constant: bool,
        written: bool,
        name: Arc<str>,
    ) -> Allocation {
        let pages = (0..bytes.div_ceil(PAGE)).map(|_| OnceLock::new()).collect();
        Allocation { id, base, bytes, constant, name, written, storage: Storage::Pages(pages) }
    }

    pub(super) fn external(id: u64, base: u64, memory: Arc<dyn ExternalMemory>) -> Allocation {
        let name = Arc::from(format!("host memory {id}"));
        Allocation {
            id,
            base,
            bytes: memory.len(),
            constant: false,
            name,
            written: true,
            storage: Storage::External(memory),
        }
    }

    /// Whether an access lies in it.
    #[inline]
    pub(crate) fn holds(&self, address: u64, bytes: u64) -> bool {
        address >= self.base && bytes <= self.bytes && address - self.base <= self.bytes - bytes
    }

    fn page<'p>(&self, pages: &'p [OnceLock<Page>], offset: u64) -> Option<&'p Page> {
        pages.get((offset / PAGE) as usize).map(|page| page.get_or_init(|| Page::new(self.written)))
    }

    /// The word at an offset that is a multiple of four.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> u32 {
        match &self.storage {
            Storage::Pages(pages) => match pages.get((offset / PAGE) as usize).and_then(OnceLock::get) {
                Some(page) => page.words[(offset % PAGE / 4) as usize].load(Relaxed),
                None => 0,
            },
            Storage::External(memory) => {
                let mut bytes = [0; 4];
                let count = (memory.len() - offset).min(4) as usize;
                memory.read(offset, &mut bytes[..count]);
                u32::from_le_bytes(bytes)
            }
        }
    }

    /// The words from an offset on that is a multiple of four.
    #[inline]
    pub(crate) fn read_words(&self, offset: u64, mut to: &mut [u32]) {
        let Storage::Pages(pages) = &self.storage else {
            return (offset..).step_by(4).zip(to).for_each(|(at, word)| *word = self.word(at));
        };
        let mut at = (offset / 4) as usize;
        while !to.is_empty() {
            let here = at % WORDS;
            let (now, later) = to.split_at_mut(to.len().min(WORDS - here));
            match pages.get(at / WORDS).and_then(OnceLock::get) {
                Some(page) => {
                    now.iter_mut().zip(&page.words[here..]).for_each(|(to, word)| *to = word.load(Relaxed))
                }
                None => now.fill(0),
            }
            at += now.len();
            to = later;
        }
    }

    /// Replaces the words from an offset on that is a multiple of four, and marks them as written.
    #[inline]
    pub(crate) fn write_words(&self, offset: u64, words: &[u32]) {
        for (at, word) in (offset..).step_by(4).zip(words) {
            self.set_word(at, *word, u32::MAX);
            self.set_init(at, 15);
        }
    }

    /// Whether so many words, from an offset on that is a multiple of four, have been written as a whole.
    #[inline]
    pub(crate) fn is_written(&self, offset: u64, words: usize) -> bool {
        let Storage::Pages(pages) = &self.storage else { return true };
        let (mut at, end) = ((offset / 4) as usize, (offset / 4) as usize + words);
        while at < end {
            // One number holds the bits of sixteen words.
            let next = (at / 16 * 16 + 16).min(end);
            let bits = u64::MAX >> (64 - 4 * (next - at)) << (4 * (at % 16));
            let init = match pages.get(at / WORDS).and_then(OnceLock::get) {
                Some(page) => page.init[at % WORDS / 16].load(Relaxed),
                None => {
                    if self.written {
                        u64::MAX
                    } else {
                        0
                    }
                }
            };
            if init & bits != bits {
                return false;
            }
            at = next;
        }
        true
    }

    /// Replaces the bits of `mask` in the word at an offset that is a multiple of four.
    #[inline]
    pub(crate) fn set_word(&self, offset: u64, value: u32, mask: u32) {
        match &self.storage {
            Storage::Pages(pages) => {
                let Some(page) = self.page(pages, offset) else { return };
                let word = &page.words[(offset % PAGE / 4) as usize];
                if mask == u32::MAX {
                    word.store(value, Relaxed);
                } else {
                    // Others may write the other bytes of the word at the same time.
                    word.fetch_and(!mask, Relaxed);
                    word.fetch_or(value & mask, Relaxed);
                }
            }
            Storage::External(memory) => {
                let bytes = value.to_le_bytes();
                for byte in 0..4u64 {
                    if mask >> (8 * byte) & 1 == 1 && offset + byte < memory.len() {
                        memory.write(offset + byte, &bytes[byte as usize..=byte as usize]);
                    }
                }
            }
        }
    }

    /// Which bytes of the word at an offset have been written, one bit each.
    #[inline]
    pub(crate) fn init(&self, offset: u64) -> u8 {
        match &self.storage {
            Storage::Pages(pages) => match pages.get((offset / PAGE) as usize).and_then(OnceLock::get) {
                Some(page) => {
                    (page.init[(offset % PAGE / 64) as usize].load(Relaxed) >> (offset % 64)) as u8 & 15
                }
                None if self.written => 15,
                None => 0,
            },
            // What the host does with its memory is not seen.
            Storage::External(_) => 15,
        }
    }

    /// Marks bytes of a word as written.
    #[inline]
    pub(crate) fn set_init(&self, offset: u64, bytes: u8) {
        if let Storage::Pages(pages) = &self.storage
            && let Some(page) = self.page(pages, offset)
        {
            let word = &page.init[(offset % PAGE / 64) as usize];
            let bits = u64::from(bytes) << (offset % 64);
            if word.load(Relaxed) & bits != bits {
                word.fetch_or(bits, Relaxed);
            }
        }
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) {
        match &self.storage {
            Storage::External(memory) => memory.read(offset, to),
            Storage::Pages(_) => {
                let mut at = offset;
                let mut rest = to;
                while !rest.is_empty() {
                    let word = self.word(at & !3).to_le_bytes();
                    let skip = (at & 3) as usize;
                    let count = rest.len().min(4 - skip);
                    let (now, later) = rest.split_at_mut(count);
                    now.copy_from_slice(&word[skip..skip + count]);
                    rest = later;
                    at += count as u64;
                }
            }
        }
    }

    /// Copies bytes in, and marks them as written.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) {
        if let Storage::External(memory) = &self.storage {
            return memory.write(offset, from);
        }
        let mut at = offset;
        let mut rest = from;
        while !rest.is_empty() {
            let skip = (at & 3) as usize;
            let count = rest.len().min(4 - skip);
            let mut word = [0; 4];
            word[skip..skip + count].copy_from_slice(&rest[..count]);
            let bits = ((1u32 << count) - 1) << skip;
            let mask = if count == 4 { u32::MAX } else { ((1u32 << (8 * count)) - 1) << (8 * skip) };
            self.set_word(at & !3, u32::from_le_bytes(word), mask);
            self.set_init(at & !3, bits as u8);
            rest = &rest[count..];
            at += count as u64;
        }
    }

    /// The first byte of a range that nobody wrote.
    pub(crate) fn first_unwritten(&self, offset: u64, bytes: u64) -> Option<u64> {
        let Storage::Pages(_) = self.storage else { return None };
        let mut at = offset;
        while at < offset + bytes {
            let init = self.init(at & !3);
            if init == 15 && at & 3 == 0 {
                at += 4;
                continue;
            }
            if init >> (at & 3) & 1 == 0 {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// Copies a range of another allocation, with what is known of its bytes.
    pub(crate) fn copy_from(&self, offset: u64, from: &Allocation, from_offset: u64, bytes: u64) {
        let mut buffer = vec![0; bytes as usize];
        from.read(from_offset, &mut buffer);
        self.write(offset, &buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes and not a whole number of pages.
    const BYTES: u64 = 3 * PAGE + 40;

    fn allocation(written: bool) -> Allocation {
        Allocation::new(1, 0x1000, BYTES, false, written, Arc::from("test"))
    }

    #[test]
    fn words_are_read_and_written_across_pages_as_one_by_one() {
        let memory = allocation(false);
        let values: Vec<u32> = (1..=70).collect();
        memory.write_words(PAGE - 4 * 35, &values);
        for (first, count) in [(PAGE - 4 * 40, 80), (0, 9), (2 * PAGE - 8, 4), (BYTES - 8, 2)] {
            let mut found = vec![7; count];
            memory.read_words(first, &mut found);
            let expected: Vec<u32> =
                (first..).step_by(4).take(count).map(|offset| memory.word(offset)).collect();
            assert_eq!(found, expected, "{count} words from {first}");
        }
        assert_eq!(memory.word(PAGE), 36);
    }

    #[test]
    fn words_are_written_if_each_of_their_bytes_is() {
        let memory = allocation(false);
        memory.write(PAGE - 64, &[1; 200]);
        for first in (0..300).map(|n| PAGE - 200 + 4 * n) {
            for words in [0, 1, 2, 15, 16, 17, 40] {
                let each = (first..).step_by(4).take(words).all(|offset| memory.init(offset) == 15);
                assert_eq!(memory.is_written(first, words), each, "{words} words from {first}");
            }
        }
        assert!(allocation(true).is_written(0, BYTES as usize / 4));
    }
}
