//! Embeds windows of lines as they come, two at a time, and hands on their rows in order.

use std::{
    io::{self, Write},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use docvector_embed::{BadText, Batch, Embedder, EmbedderExt, InputKind, Lane, Truncation};
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use crate::{
    cli::embed::OnError,
    failure::Failure,
    progress::Progress,
    tally::Tally,
    window::{Fault, Item, Rows, Window},
};

/// Windows being embedded: so the embedder has work while the rows of one are handed on.
const IN_FLIGHT: usize = 2;

/// How windows are embedded.
pub(crate) struct Run<'a> {
    embedder: &'a dyn Embedder,
    kind: InputKind,
    too_long: Truncation,
    on_error: OnError,
    /// A bad line was found: nothing more is embedded, the rest is only checked.
    failing: AtomicBool,
}

/// What became of a window: its rows, or its bad lines.
struct Outcome {
    lines: usize,
    bytes: u64,
    result: Result<Rows, Vec<Fault>>,
}

impl<'a> Run<'a> {
    pub(crate) const fn new(
        embedder: &'a dyn Embedder,
        kind: InputKind,
        too_long: Truncation,
        on_error: OnError,
    ) -> Self {
        Self { embedder, kind, too_long, on_error, failing: AtomicBool::new(false) }
    }

    /// Embeds windows as they come, and hands the rows on in order.
    pub(crate) async fn embed(
        &self,
        windows: mpsc::Receiver<Result<Window, Failure>>,
        rows: mpsc::Sender<Rows>,
        progress: &Progress,
    ) -> Result<Tally, Failure> {
        let windows =
            stream::unfold(windows, |mut windows| async move { windows.recv().await.map(|window| (window, windows)) });
        let mut outcomes = pin!(windows.map(|window| self.window(window)).buffered(IN_FLIGHT));
        let mut tally = Tally::default();
        while let Some(outcome) = outcomes.next().await {
            let Outcome { lines, bytes, result } = outcome?;
            tally.lines += lines as u64;
            progress.advance(bytes, tally.lines);
            match result {
                Ok(done) if tally.faults.is_empty() => {
                    tally.add(&done);
                    // Then the writer has failed, and says why itself.
                    if rows.send(done).await.is_err() {
                        break;
                    }
                }
                Ok(_) => {}
                Err(faults) => tally.faults.extend(faults),
            }
        }
        Ok(tally)
    }

    async fn window(&self, window: Result<Window, Failure>) -> Result<Outcome, Failure> {
        let window = window?;
        if let Some(record) = window.records().next().filter(|record| record.looks_like_json()) {
            let line = record.line;
            // The exit status does not depend on whether it can be said.
            let _ = writeln!(
                io::stderr().lock(),
                "warning: line {line} looks like a JSON line, and is embedded as it stands: is --jsonl meant?"
            );
        }
        let (lines, bytes) = (window.items.len(), window.bytes);
        let result = match self.on_error {
            OnError::Record => Ok(self.record(window).await?),
            OnError::Fail => self.all_or_none(window).await?,
        };
        Ok(Outcome { lines, bytes, result })
    }

    /// Embeds a window, or finds all its bad lines. Once there was one, no window is embedded.
    async fn all_or_none(&self, window: Window) -> Result<Result<Rows, Vec<Fault>>, Failure> {
        if window.faults().next().is_some() {
            self.failing.store(true, Ordering::Relaxed);
        }
        if self.failing.load(Ordering::Relaxed) {
            return Ok(Err(self.check(&window)));
        }
        let texts: Vec<&str> = window.records().map(|record| record.text.as_str()).collect();
        match self.embedder.embed_all(self.batch(&texts)).await {
            Ok(embeddings) => {
                let usage = embeddings.usage();
                Ok(Ok(Rows { items: window.items, embeddings: Some(embeddings), usage }))
            }
            Err(error) if error.bad_texts().is_empty() => Err(error.into()),
            Err(error) => {
                self.failing.store(true, Ordering::Relaxed);
                Ok(Err(blamed(&window, &error)))
            }
        }
    }

    /// All bad lines of a window, found without embedding it.
    fn check(&self, window: &Window) -> Vec<Fault> {
        let texts: Vec<&str> = window.records().map(|record| record.text.as_str()).collect();
        let checked = self.batch(&texts).check(self.embedder.spaces(), &self.embedder.limits());
        let mut faults = checked.err().map(|error| blamed(window, &error)).unwrap_or_default();
        faults.extend(window.faults().map(|fault| Fault { line: fault.line, why: fault.why.clone(), object: None }));
        faults.sort_by_key(|fault| fault.line);
        faults
    }

    /// Embeds what can be embedded of a window; the other lines become faults.
    async fn record(&self, mut window: Window) -> Result<Rows, Failure> {
        let texts: Vec<&str> = window.records().map(|record| record.text.as_str()).collect();
        let each = self.embedder.embed_each(self.batch(&texts)).await;
        // Where no text is to blame, the embedder failed, and other texts would fare no better.
        if let Some((_, error)) = each.errors().find(|(_, error)| error.bad_texts().is_empty()) {
            return Err(error.clone().into());
        }
        let mut results = each.iter();
        for item in &mut window.items {
            let Item::Text(record) = item else { continue };
            if let Some(Err(error)) = results.next() {
                let why = error.bad_texts().first().map(why).unwrap_or_default();
                *item = Item::Bad(Fault { line: record.line, why, object: record.object.take() });
            }
        }
        drop(results);
        let usage = each.usage();
        Ok(Rows { items: window.items, embeddings: each.into_embeddings(), usage })
    }

    fn batch<'t>(&self, texts: &'t [&'t str]) -> Batch<'t> {
        // Queries of a file are bulk work, too.
        Batch::new(self.kind, texts).with_truncation(self.too_long).with_lane(Lane::Bulk)
    }
}

/// The lines of the texts that an error blames.
fn blamed(window: &Window, error: &docvector_embed::Error) -> Vec<Fault> {
    let lines: Vec<u64> = window.records().map(|record| record.line).collect();
    let fault = |bad: &BadText| {
        let line = *lines.get(bad.index)?;
        Some(Fault { line, why: why(bad), object: None })
    };
    error.bad_texts().iter().filter_map(fault).collect()
}

/// What is wrong with a text.
fn why(bad: &BadText) -> String {
    format!("the text {}", bad.reason)
}
