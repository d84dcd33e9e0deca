//! Reads the batches of an Arrow file one by one: [`Batches`].
//!
//! Everything that a batch names is checked to lie within the file first: the reader of `arrow_ipc` panics where it does
//! not, and takes as much memory as a damaged length says.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::{
    Block,
    convert::try_fb_to_schema,
    reader::{FileDecoder, read_footer_length},
    root_as_footer, root_as_message,
};
use arrow_schema::{ArrowError, SchemaRef};

use super::footer::CONTINUATION;

/// The length of the footer, and the mark behind it.
const END_BYTES: usize = 10;
/// The mark before a message, and its length. Old files have only the length.
const PREFIX_BYTES: usize = 8;
const OLD_PREFIX_BYTES: usize = 4;

/// The reason why a file cannot be read.
pub(super) enum Fault {
    Compressed,
    Damaged(ArrowError),
}

impl From<ArrowError> for Fault {
    fn from(error: ArrowError) -> Self {
        Self::Damaged(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.into())
    }
}

fn damaged(why: impl Into<String>) -> Fault {
    Fault::Damaged(ArrowError::ParseError(why.into()))
}

/// The batches of a file.
pub(super) struct Batches {
    file: File,
    bytes: u64,
    blocks: Vec<Block>,
    /// The place of the next block in `blocks`.
    next: usize,
    schema: SchemaRef,
    decoder: FileDecoder,
}

impl Batches {
    /// Reads the footer of a file.
    pub(super) fn open(mut file: File) -> Result<Self, Fault> {
        let bytes = file.seek(SeekFrom::End(0))?;
        let end_at = bytes.checked_sub(END_BYTES as u64).ok_or_else(|| damaged("the file is too short"))?;
        let mut end = [0; END_BYTES];
        file.seek(SeekFrom::Start(end_at))?;
        file.read_exact(&mut end)?;
        let length = read_footer_length(end)?;
        let footer_at = end_at.checked_sub(length as u64).ok_or_else(|| damaged("the footer is too long"))?;
        let mut footer = vec![0; length];
        file.seek(SeekFrom::Start(footer_at))?;
        file.read_exact(&mut footer)?;
        let footer = root_as_footer(&footer).map_err(|error| damaged(error.to_string()))?;
        let schema = footer.schema().ok_or_else(|| damaged("the footer has no schema"))?;
        if !schema.endianness().equals_to_target_endianness() {
            return Err(damaged("the numbers have the byte order of another machine"));
        }
        let schema = Arc::new(try_fb_to_schema(schema)?);
        let blocks = footer.recordBatches().into_iter().flatten().copied().collect();
        let decoder = FileDecoder::new(schema.clone(), footer.version());
        Ok(Self { file, bytes, blocks, next: 0, schema, decoder })
    }

    /// Returns the schema of all columns.
    pub(super) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads only the columns at these places of the schema.
    pub(super) fn with_columns(mut self, places: Vec<usize>) -> Self {
        self.decoder = self.decoder.with_projection(places);
        self
    }

    /// Reads the next batch; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, Fault> {
        let Some(&block) = self.blocks.get(self.next) else { return Ok(None) };
        self.next += 1;
        let message = self.read(&block)?;
        Ok(self.decoder.read_record_batch(&block, &message)?)
    }

    /// Reads the message of a batch, and checks it.
    fn read(&mut self, block: &Block) -> Result<Buffer, Fault> {
        let outside = || damaged("a batch is not within the file");
        let number = |number: i64| u64::try_from(number).map_err(|_| outside());
        let (at, body) = (number(block.offset())?, number(block.bodyLength())?);
        let head = number(block.metaDataLength().into())?;
        let length = head.checked_add(body).ok_or_else(outside)?;
        let is_within = at.checked_add(length).is_some_and(|end| end <= self.bytes);
        if !is_within || head < PREFIX_BYTES as u64 {
            return Err(outside());
        }
        let length = usize::try_from(length).map_err(|_| outside())?;
        let mut message = MutableBuffer::from_len_zeroed(length);
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut message)?;
        check(&message, body)?;
        Ok(message.into())
    }
}

/// Checks that a message is a batch without compression, and has all its columns within its body.
fn check(message: &[u8], body: u64) -> Result<(), Fault> {
    let prefix = if message.starts_with(&CONTINUATION) { PREFIX_BYTES } else { OLD_PREFIX_BYTES };
    let message = root_as_message(&message[prefix..]).map_err(|error| damaged(error.to_string()))?;
    let batch = message.header_as_record_batch().ok_or_else(|| damaged("a message is no batch"))?;
    if batch.compression().is_some() {
        return Err(Fault::Compressed);
    }
    let end_of = |offset: i64, length: i64| u64::try_from(offset).ok()?.checked_add(u64::try_from(length).ok()?);
    let mut buffers = batch.buffers().into_iter().flatten();
    if !buffers.all(|buffer| end_of(buffer.offset(), buffer.length()).is_some_and(|end| end <= body)) {
        return Err(damaged("a column is not within its batch"));
    }
    Ok(())
}
