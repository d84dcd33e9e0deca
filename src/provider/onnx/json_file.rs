//! Reads JSON files; each error names the file and the field.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// A JSON value and its file.
#[derive(Clone, Debug)]
pub(super) struct JsonFile {
    file: PathBuf,
    pub(super) value: Value,
}

impl JsonFile {
    pub(super) fn read(file: PathBuf) -> Result<Self> {
        let bytes = fs::read(&file).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let what = if missing { "is not there: fetch it with the other files" } else { "cannot be read" };
            config(&file, what).with_source(error)
        })?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("is not JSON: line {}, column {}", error.line(), error.column());
            config(&file, &message).with_source(error)
        })?;
        Ok(Self { file, value })
    }

    /// Reads a file that need not exist.
    pub(super) fn find(file: PathBuf) -> Result<Option<Self>> {
        if file.exists() { Self::read(file).map(Some) } else { Ok(None) }
    }

    pub(super) fn error(&self, message: impl AsRef<str>) -> Error {
        config(&self.file, message.as_ref())
    }

    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&str>> {
        let wrong = || self.error(format!("field {field} is not a string"));
        self.get(field).map(|value| value.as_str().ok_or_else(wrong)).transpose()
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>> {
        let wrong = || self.error(format!("field {field} is not true or false"));
        self.get(field).map(|value| value.as_bool().ok_or_else(wrong)).transpose()
    }

    /// Reads a token's text: a string, or the field `content` of an object.
    pub(super) fn token(&self, field: &str) -> Result<Option<&str>> {
        match self.get(field).and_then(|value| value.get("content")) {
            Some(content) => Ok(content.as_str()),
            None => self.text(field),
        }
    }

    /// Refuses a field that changes the vectors, unless it is not set or has one of these values.
    pub(super) fn refuse_unless(&self, field: &str, known: &[&str]) -> Result<()> {
        match self.get(field) {
            Some(value) if value.as_str().is_none_or(|value| !known.contains(&value)) => {
                Err(self.error(format!("field {field} is {value}, which is not known here")))
            }
            _ => Ok(()),
        }
    }

    /// Reads a number. Some tools write whole numbers as floats, and 1e30 for "no limit".
    pub(super) fn number(&self, field: &str) -> Result<Option<f64>> {
        let wrong = || self.error(format!("field {field} is not a number"));
        self.get(field).map(|value| value.as_f64().ok_or_else(wrong)).transpose()
    }

    pub(super) fn size(&self, field: &str) -> Result<Option<usize>> {
        let whole = |number: f64| {
            let fits = number.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(&number);
            if fits { Ok(number as usize) } else { Err(self.error(format!("field {field} is {number}, not a size"))) }
        };
        self.number(field)?.map(whole).transpose()
    }

    /// Reads a size that the model needs: at least 1.
    pub(super) fn needed(&self, field: &str) -> Result<usize> {
        match self.size(field)? {
            None => Err(self.error(format!("has no field {field}"))),
            Some(0) => Err(self.error(format!("field {field} is 0"))),
            Some(size) => Ok(size),
        }
    }

    /// Reads a length limit. Numbers below 1 and from 1e9 on mean no limit.
    pub(super) fn limit(&self, field: &str) -> Result<Option<usize>> {
        Ok(self.number(field)?.filter(|limit| (1.0..1e9).contains(limit)).map(|limit| limit as usize))
    }
}

/// Makes an error of the kind `Config` that names the file.
pub(super) fn config(file: &Path, message: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{} {message}", file.display()))
}

/// Whether a path that a file names stays below the folder that it is joined to.
pub(super) fn stays_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
