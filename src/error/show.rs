//! Shows an [`Error`]: one line for people, all facts for developers, and never a text, a key or a body.

use std::fmt;

use super::{Error, bad_text::advice};

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The most bad texts that are shown.
        const SHOWN: usize = 8;
        let inner = &*self.0;
        write!(f, "{}", inner.kind)?;
        if let Some(embedder) = &inner.embedder {
            write!(f, " in {embedder}")?;
        }
        if let Some(status) = inner.status {
            write!(f, " (status {status})")?;
        }
        if let Some(code) = &inner.code {
            write!(f, " ({code})")?;
        }
        if !inner.message.is_empty() {
            write!(f, ": {}", inner.message)?;
        }
        for (i, bad) in inner.bad_texts.iter().take(SHOWN).enumerate() {
            write!(f, "{} text {} {}", if i == 0 { ":" } else { ";" }, bad.index, bad.reason)?;
        }
        if inner.bad_texts.len() > SHOWN {
            write!(f, "; and {} more texts", inner.bad_texts.len() - SHOWN)?;
        }
        match self.partials().map(|partial| partial.indices.len()).sum() {
            0 => {}
            1 => f.write_str(" (1 row was finished)")?,
            rows => write!(f, " ({rows} rows were finished)")?,
        }
        if inner.provider_message.is_some() {
            f.write_str(" (`provider_message` has the server's own words)")?;
        }
        if let Some((attempts, why)) = &inner.gave_up {
            let plural = if *attempts == 1 { "" } else { "s" };
            write!(f, " (gave up after {attempts} attempt{plural}: {why})")?;
        }
        if let Some(id) = &inner.request_id {
            write!(f, " [request {id}]")?;
        }
        advice(&inner.bad_texts).map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        // If `main` returns an error, the program shows its `Debug` form. So it begins with the `Display` form.
        write!(f, "{self} ")?;
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &inner.kind);
        if !inner.bad_texts.is_empty() {
            debug.field("bad_texts", &inner.bad_texts);
        }
        if let Some(status) = inner.status {
            debug.field("status", &status);
        }
        if let Some(wait) = inner.retry_after {
            debug.field("retry_after", &wait);
        }
        if let Some(id) = &inner.request_id {
            debug.field("request_id", id);
        }
        if let Some(code) = &inner.code {
            debug.field("code", code);
        }
        if !inner.charges.is_none() {
            debug.field("charges", &inner.charges);
        }
        if inner.exhausted {
            debug.field("exhausted", &true);
        }
        if !inner.partials.is_empty() {
            debug.field("partial_rows", &self.partials().map(|partial| partial.indices.len()).sum::<usize>());
        }
        if let Some(source) = &inner.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}
