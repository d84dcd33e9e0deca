//! Writes the parts of an Arrow file one by one, so that a file can be continued: [`write_start`], [`write_batch`],
//! [`write_footer`], and [`walk`], which finds the batches of a file that was not finished.
//!
//! `arrow_ipc`'s own writer begins a file and ends it. The format is that of
//! <https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format>.

use std::io::{self, Read, Seek, SeekFrom, Write};

use arrow_array::RecordBatch;
use arrow_ipc::{
    Block, FooterBuilder, MessageHeader, MetadataVersion,
    convert::IpcSchemaEncoder,
    writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, write_message},
};
use arrow_schema::{ArrowError, Schema};
use flatbuffers::FlatBufferBuilder;

const MAGIC: &[u8; 6] = b"ARROW1";
/// The mark before the length of each message.
pub(super) const CONTINUATION: [u8; 4] = [0xff; 4];
/// Each message begins at a multiple of so many bytes.
const ALIGNMENT: usize = 8;
/// The longest head of a message that is read: those of our batches have a few hundred bytes.
const MAX_HEAD_BYTES: u32 = 16 << 20;

fn options() -> Result<IpcWriteOptions, ArrowError> {
    IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)
}

/// Writes the start of a file with this schema; returns its bytes.
pub(super) fn write_start(writer: &mut impl Write, schema: &Schema) -> Result<u64, ArrowError> {
    writer.write_all(MAGIC)?;
    writer.write_all(&[0; ALIGNMENT - MAGIC.len()])?;
    let mut tracker = DictionaryTracker::new(true);
    let message =
        IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options()?);
    let (head, body) = write_message(writer, message, &options()?)?;
    Ok((ALIGNMENT + head + body) as u64)
}

/// Writes a batch that begins at this place; returns what the footer has to say of it. The schema has no dictionaries.
pub(super) fn write_batch(writer: &mut impl Write, batch: &RecordBatch, at: u64) -> Result<Block, ArrowError> {
    let mut tracker = DictionaryTracker::new(true);
    let mut context = Default::default();
    let (_, message) = IpcDataGenerator::default().encode(batch, &mut tracker, &options()?, &mut context)?;
    let (head, body) = write_message(writer, message, &options()?)?;
    Ok(Block::new(at as i64, head as i32, body as i64))
}

/// Writes the end of a file.
pub(super) fn write_footer(writer: &mut impl Write, schema: &Schema, blocks: &[Block]) -> Result<(), ArrowError> {
    writer.write_all(&CONTINUATION)?;
    writer.write_all(&[0; 4])?;
    let mut builder = FlatBufferBuilder::new();
    let none: [Block; 0] = [];
    let dictionaries = builder.create_vector(&none);
    let batches = builder.create_vector(blocks);
    let schema = IpcSchemaEncoder::new().schema_to_fb_offset(&mut builder, schema);
    let mut footer = FooterBuilder::new(&mut builder);
    footer.add_version(MetadataVersion::V5);
    footer.add_schema(schema);
    footer.add_dictionaries(dictionaries);
    footer.add_recordBatches(batches);
    let footer = footer.finish();
    builder.finish(footer, None);
    let footer = builder.finished_data();
    writer.write_all(footer)?;
    writer.write_all(&(footer.len() as i32).to_le_bytes())?;
    writer.write_all(MAGIC)?;
    Ok(())
}

/// The batches of a file that was not finished.
pub(super) struct Walked {
    pub(super) blocks: Vec<Block>,
    /// The bytes up to the end of the last one.
    pub(super) bytes: u64,
    pub(super) rows: u64,
}

/// Goes through the messages of a file, up to so many bytes. `None` if it is not the start of a file.
pub(super) fn walk(file: &mut (impl Read + Seek), most: u64) -> io::Result<Option<Walked>> {
    let mut walked = Walked { blocks: Vec::new(), bytes: ALIGNMENT as u64, rows: 0 };
    let mut magic = [0; ALIGNMENT];
    file.seek(SeekFrom::Start(0))?;
    if !is_filled(file, &mut magic)? || !magic.starts_with(MAGIC) {
        return Ok(None);
    }
    let mut has_schema = false;
    while let Some(message) = Message::read(file, walked.bytes, most)? {
        match message.rows {
            Some(rows) => {
                walked.blocks.push(Block::new(walked.bytes as i64, message.head as i32, message.body as i64));
                walked.rows += rows;
            }
            None if has_schema => break,
            None => has_schema = true,
        }
        walked.bytes += message.head + message.body;
    }
    Ok(has_schema.then_some(walked))
}

/// A message of a file.
struct Message {
    /// The bytes of its head, with the mark and the length, and of its body.
    head: u64,
    body: u64,
    /// The rows of a batch; `None` if it is a schema.
    rows: Option<u64>,
}

impl Message {
    /// Reads the head of the message at this place; `None` if there is none, or it does not end before `most`.
    fn read(file: &mut (impl Read + Seek), at: u64, most: u64) -> io::Result<Option<Self>> {
        let mut mark = [0; 8];
        file.seek(SeekFrom::Start(at))?;
        if !is_filled(file, &mut mark)? || mark[..4] != CONTINUATION {
            return Ok(None);
        }
        let bytes = u32::from_le_bytes([mark[4], mark[5], mark[6], mark[7]]);
        if bytes == 0 || bytes > MAX_HEAD_BYTES {
            return Ok(None);
        }
        let mut head = vec![0; bytes as usize];
        if !is_filled(file, &mut head)? {
            return Ok(None);
        }
        let Ok(message) = arrow_ipc::root_as_message(&head) else { return Ok(None) };
        let rows = match message.header_type() {
            MessageHeader::Schema => None,
            MessageHeader::RecordBatch => {
                let Some(batch) = message.header_as_record_batch() else { return Ok(None) };
                Some(batch.length().unsigned_abs())
            }
            _ => return Ok(None),
        };
        let (head, body) = (8 + u64::from(bytes), message.bodyLength().unsigned_abs());
        let end = at.checked_add(head).and_then(|end| end.checked_add(body));
        Ok(end.is_some_and(|end| end <= most).then_some(Self { head, body, rows }))
    }
}

/// Fills the buffer; returns `false` at the end of the file.
fn is_filled(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
