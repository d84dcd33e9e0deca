//! Turns entries into batches of columns, and back.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `key` | FixedSizeBinary(32) | the key of the entry |
//! | `space` | Utf8, or null | the id of the space, as 32 hex digits |
//! | `day` | Date32, or null | the day on which the entry was written |
//! | `truncated` | Boolean | whether the text was truncated |
//! | `half` | Boolean | whether the store keeps the components in 16 bits |
//! | `vector` | List of Float32 | the components |
//!
//! The schema's metadata have the version of this form under `docvector_embed.cache`, and the line about each space under
//! `space.` and its id.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, FixedSizeBinaryArray, Float32Array, ListArray, RecordBatch,
    StringArray,
    builder::{BooleanBuilder, Date32Builder, StringBuilder},
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use crate::{
    SpaceId,
    cache::{Entry, Key},
    stored_vectors::EntryInfo,
};

const VERSION_KEY: &str = "docvector_embed.cache";
const VERSION: &str = "1";
const SPACE_PREFIX: &str = "space.";
const KEY_BYTES: i32 = 32;

/// Makes the schema of a file with these lines about spaces.
pub(super) fn schema(notes: &[(SpaceId, String)]) -> SchemaRef {
    let mut metadata: HashMap<String, String> =
        notes.iter().map(|(space, about)| (format!("{SPACE_PREFIX}{space}"), about.clone())).collect();
    metadata.insert(VERSION_KEY.to_owned(), VERSION.to_owned());
    let fields = vec![
        Field::new("key", DataType::FixedSizeBinary(KEY_BYTES), false),
        Field::new("space", DataType::Utf8, true),
        Field::new("day", DataType::Date32, true),
        Field::new("truncated", DataType::Boolean, false),
        Field::new("half", DataType::Boolean, false),
        Field::new("vector", DataType::List(component()), false),
    ];
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

fn component() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

/// Checks that a file has the columns of this form; returns their places, or what is wrong.
pub(super) fn check(found: &Schema) -> Result<Vec<usize>, String> {
    match found.metadata().get(VERSION_KEY).map(String::as_str) {
        Some(VERSION) | None => {}
        Some(newer) => {
            return Err(format!("has the version {newer} of the form, and the newest known here is {VERSION}: update"));
        }
    }
    let mut places = Vec::new();
    for wanted in schema(&[]).fields() {
        let name = wanted.name();
        let Some((place, field)) = found.column_with_name(name) else {
            return Err(format!("has no column {name:?}: it is not an export of a cache"));
        };
        places.push(place);
        let is_same = match (field.data_type(), wanted.data_type()) {
            (DataType::List(found), DataType::List(wanted)) => found.data_type() == wanted.data_type(),
            (found, wanted) => found == wanted,
        };
        if !is_same {
            return Err(format!(
                "has the column {name:?} of type {}, and not {}",
                field.data_type(),
                wanted.data_type()
            ));
        }
    }
    Ok(places)
}

/// Returns the lines about spaces in the metadata of a schema, ordered by id.
pub(super) fn notes(schema: &Schema) -> Vec<(SpaceId, String)> {
    let lines = schema.metadata().iter();
    let spaces = lines.filter_map(|(key, about)| Some((key.strip_prefix(SPACE_PREFIX)?.parse().ok()?, about.clone())));
    let mut notes: Vec<(SpaceId, String)> = spaces.collect();
    notes.sort();
    notes
}

/// Makes a batch of entries, which are sound.
pub(super) fn batch(schema: &SchemaRef, entries: &[Entry<'_>]) -> Result<RecordBatch, ArrowError> {
    let mut keys = Vec::with_capacity(entries.len() * KEY_BYTES as usize);
    let mut spaces = StringBuilder::new();
    let (mut days, mut truncated, mut halves) = (Date32Builder::new(), BooleanBuilder::new(), BooleanBuilder::new());
    let (mut numbers, mut lengths) = (Vec::new(), Vec::with_capacity(entries.len()));
    for entry in entries {
        let damaged = || ArrowError::InvalidArgumentError("a damaged entry".into());
        let info = EntryInfo::read(&entry.key, entry.value, &mut numbers).ok_or_else(damaged)?;
        keys.extend_from_slice(entry.key.as_bytes());
        spaces.append_option(info.space.map(|space| space.to_string()));
        days.append_option(info.day.and_then(|day| i32::try_from(day).ok()));
        truncated.append_value(info.truncated);
        halves.append_value(info.half_precision);
        lengths.push(info.dimensions);
    }
    let numbers = Float32Array::new(ScalarBuffer::from(numbers), None);
    let vectors = ListArray::try_new(component(), OffsetBuffer::from_lengths(lengths), Arc::new(numbers), None)?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_new(KEY_BYTES, Buffer::from_vec(keys), None)?),
        Arc::new(spaces.finish()),
        Arc::new(days.finish()),
        Arc::new(truncated.finish()),
        Arc::new(halves.finish()),
        Arc::new(vectors),
    ];
    RecordBatch::try_new(schema.clone(), columns)
}

/// The columns of a batch that was read.
pub(super) struct Columns<'b> {
    keys: &'b FixedSizeBinaryArray,
    spaces: &'b StringArray,
    days: &'b Date32Array,
    truncated: &'b BooleanArray,
    halves: &'b BooleanArray,
    vectors: &'b ListArray,
}

impl<'b> Columns<'b> {
    /// Finds the columns of a batch whose schema was [checked](check).
    pub(super) fn of(batch: &'b RecordBatch) -> Option<Self> {
        fn column<'b, T: 'static>(batch: &'b RecordBatch, name: &str) -> Option<&'b T> {
            batch.column_by_name(name)?.as_any().downcast_ref()
        }
        Some(Self {
            keys: column(batch, "key")?,
            spaces: column(batch, "space")?,
            days: column(batch, "day")?,
            truncated: column(batch, "truncated")?,
            halves: column(batch, "half")?,
            vectors: column(batch, "vector")?,
        })
    }

    /// Returns the entry of a row: its key, and its value, or nothing if the row is not a whole entry. `None` without a
    /// key.
    pub(super) fn entry(&self, row: usize) -> Option<(Key, Option<Vec<u8>>)> {
        let key = Key::from_bytes(self.keys.is_valid(row).then(|| self.keys.value(row))?.try_into().ok()?);
        Some((key, self.value(row, &key)))
    }

    fn value(&self, row: usize, key: &Key) -> Option<Vec<u8>> {
        let is_whole = self.vectors.is_valid(row) && self.truncated.is_valid(row) && self.halves.is_valid(row);
        let vector = is_whole.then(|| self.vectors.value(row))?;
        let vector = vector.as_any().downcast_ref::<Float32Array>().filter(|vector| vector.null_count() == 0)?;
        if vector.is_empty() || !vector.values().iter().all(|number| number.is_finite()) {
            return None;
        }
        let space = self.spaces.is_valid(row).then(|| self.spaces.value(row).parse()).transpose().ok()?;
        let day = self.days.is_valid(row).then(|| u32::try_from(self.days.value(row))).transpose().ok()?;
        let info = EntryInfo {
            dimensions: vector.len(),
            half_precision: self.halves.value(row),
            truncated: self.truncated.value(row),
            space,
            day,
        };
        Some(info.entry_of(key, vector.values()))
    }
}
