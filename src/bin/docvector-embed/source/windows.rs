//! Reads a source again and compares it with what was read before: [`Windows`].

use std::{collections::BTreeMap, mem, vec};

use super::block::Block;
use crate::{
    failure::Failure,
    input::Input,
    window::{BadLine, InputLine, Window},
};

/// The windows of a source that is read again, cut as they were when it was first read. Its bad texts are bad lines.
pub(crate) struct Windows {
    input: Input,
    /// The lines of the input's window that are left.
    lines: vec::IntoIter<InputLine>,
    /// The bytes of windows of the input that no window here has told yet.
    bytes: u64,
    name: String,
    blocks: vec::IntoIter<Block>,
    /// Why texts are bad lines, by their index among all lines.
    excluded: BTreeMap<u64, String>,
    /// The index of the next line.
    index: u64,
    has_failed: bool,
}

impl Windows {
    /// Reads an input from its beginning. `name` is for messages.
    pub(super) fn new(input: Input, name: &str, blocks: Vec<Block>, excluded: BTreeMap<u64, String>) -> Self {
        let (lines, blocks) = (Vec::new().into_iter(), blocks.into_iter());
        Self { input, lines, bytes: 0, name: name.to_owned(), blocks, excluded, index: 0, has_failed: false }
    }

    /// Reads the next block and compares it with what was read before, so that no row meets another text than its own.
    fn next_block(&mut self) -> Result<Option<Window>, Failure> {
        let block = self.blocks.next();
        // At the end, no further line may come.
        let mut window = self.next_lines(block.as_ref().map_or(1, |block| block.lines))?;
        if Some(Block::of(&window)).filter(|block| block.lines > 0) != block {
            return Err(Failure::new(format!("{} changed while it was in use: leave it as it is", self.name)));
        }
        for (index, item) in (self.index..).zip(&mut window.lines) {
            if let Some(reason) = self.excluded.get(&index) {
                exclude(item, reason);
            }
        }
        self.index += window.lines.len() as u64;
        Ok(block.map(|_| window))
    }

    /// Reads so many lines, or fewer at the end.
    fn next_lines(&mut self, count: usize) -> Result<Window, Failure> {
        let mut window = Window::default();
        while window.lines.len() < count {
            if let Some(line) = self.lines.next() {
                window.push(line, mem::take(&mut self.bytes));
                continue;
            }
            let Some(read) = self.input.next().transpose()? else { break };
            self.bytes += read.bytes;
            self.lines = read.lines.into_iter();
        }
        Ok(window)
    }
}

impl Iterator for Windows {
    type Item = Result<Window, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let checked = self.next_block();
        self.has_failed = checked.is_err();
        checked.transpose()
    }
}

/// Makes a bad line of a text that was excluded.
fn exclude(item: &mut InputLine, reason: &str) {
    if let InputLine::Text(text_line) = item {
        let (line, reason, object) = (text_line.line, reason.to_owned(), text_line.object.take());
        *item = InputLine::Bad(BadLine { line, reason, object });
    }
}
