//! Embeds windows of lines, some at a time, and sends their rows on in order.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use docvector_embed::{Batch, Embedder, EmbedderExt, InputKind, Lane, Truncation};
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    cli::{embed::EmbedOptions, rows::OnError},
    embed_model::Calls,
    failure::Failure,
    progress::Progress,
    run_summary::RunSummary,
    window::{BadLine, InputLine, Rows, Window, reason},
};

/// Embeds windows, with the same options for each.
pub(crate) struct WindowEmbedder<'a> {
    embedder: &'a dyn Embedder,
    kind: InputKind,
    too_long: Truncation,
    on_error: OnError,
    calls: Calls,
    /// Whether the input comes in its own time. Then a bad line is told at once: its end may never come.
    is_live: bool,
    /// The bytes of lines that may be in calls.
    room: Semaphore,
    /// Whether a bad line was found. Then no more windows are embedded, only checked.
    found_bad_line: AtomicBool,
}

/// The result of a window: its rows, or its bad lines.
struct EmbeddedWindow {
    lines: usize,
    bytes: u64,
    result: Result<Rows, Vec<BadLine>>,
}

impl<'a> WindowEmbedder<'a> {
    /// Embeds with these options.
    pub(crate) fn new(embedder: &'a dyn Embedder, options: &EmbedOptions, calls: Calls, is_live: bool) -> Self {
        let EmbedOptions { kind, too_long, on_error, .. } = *options;
        let room = Semaphore::new(calls.bytes as usize);
        Self { embedder, kind, too_long, on_error, calls, is_live, room, found_bad_line: AtomicBool::new(false) }
    }

    /// Embeds windows as they arrive, and sends the rows on in order.
    pub(crate) async fn embed(
        &self,
        windows: mpsc::Receiver<Result<Window, Failure>>,
        rows: mpsc::Sender<Rows>,
        progress: &Progress,
    ) -> Result<RunSummary, Failure> {
        let windows =
            stream::unfold(windows, |mut windows| async move { windows.recv().await.map(|window| (window, windows)) });
        let parts = windows.flat_map(|window| stream::iter(self.parts(window)));
        // No part is taken before there is room for it. A part that is larger than all room has it for itself.
        let parts = parts.then(|part| async move {
            let bytes = part.as_ref().map_or(0, Window::held_bytes).min(u64::from(self.calls.bytes));
            (part, self.room.acquire_many(bytes as u32).await)
        });
        let embedded = parts.map(|(part, room)| async move {
            let embedded = self.embed_window(part).await;
            drop(room);
            embedded
        });
        let mut embedded_windows = pin!(embedded.buffered(self.calls.at_a_time));
        let mut summary = RunSummary::default();
        while let Some(embedded) = embedded_windows.next().await {
            let EmbeddedWindow { lines, bytes, result } = embedded?;
            summary.lines += lines as u64;
            progress.advance(bytes, summary.lines);
            match result {
                Ok(done) if summary.bad_lines.is_empty() => {
                    summary.add(&done);
                    // A closed channel means that the writer failed, which reports its own error.
                    if rows.send(done).await.is_err() {
                        break;
                    }
                }
                Ok(_) => {}
                Err(bad_lines) => {
                    summary.bad_lines.extend(bad_lines);
                    if self.is_live {
                        break;
                    }
                }
            }
        }
        Ok(summary)
    }

    /// Cuts a window into windows for a call each.
    fn parts(&self, window: Result<Window, Failure>) -> Vec<Result<Window, Failure>> {
        match (window, self.calls.size) {
            (Ok(window), Some(bytes)) => window.cut(bytes).into_iter().map(Ok).collect(),
            (window, _) => vec![window],
        }
    }

    async fn embed_window(&self, window: Result<Window, Failure>) -> Result<EmbeddedWindow, Failure> {
        let window = window?;
        let (lines, bytes) = (window.lines.len(), window.bytes);
        let result = match self.on_error {
            OnError::Record => Ok(self.embed_and_record_bad_lines(window).await?),
            OnError::Fail => self.embed_or_list_bad_lines(window).await?,
        };
        Ok(EmbeddedWindow { lines, bytes, result })
    }

    /// Embeds a window, or finds all its bad lines. After the first bad line, no window is embedded.
    async fn embed_or_list_bad_lines(&self, window: Window) -> Result<Result<Rows, Vec<BadLine>>, Failure> {
        if window.bad_lines().next().is_some() {
            self.found_bad_line.store(true, Ordering::Relaxed);
        }
        if self.found_bad_line.load(Ordering::Relaxed) {
            return Ok(Err(self.find_bad_lines(&window)));
        }
        let texts = window.texts();
        match self.embedder.embed_all(self.batch(&texts)).await {
            Ok(embeddings) => {
                let charges = embeddings.charges().clone();
                Ok(Ok(Rows { lines: window.lines, embeddings: Some(embeddings), charges }))
            }
            Err(error) if error.bad_texts().is_empty() => Err(error.into()),
            Err(error) => {
                self.found_bad_line.store(true, Ordering::Relaxed);
                Ok(Err(window.blamed(&error)))
            }
        }
    }

    /// Finds all bad lines of a window without embedding it.
    fn find_bad_lines(&self, window: &Window) -> Vec<BadLine> {
        let texts = window.texts();
        let checked = self.batch(&texts).check(self.embedder.spaces(), &self.embedder.limits());
        let mut bad_lines = checked.err().map(|error| window.blamed(&error)).unwrap_or_default();
        bad_lines.extend(window.bad_lines().map(|bad_line| BadLine {
            line: bad_line.line,
            reason: bad_line.reason.clone(),
            object: None,
        }));
        bad_lines.sort_by_key(|bad_line| bad_line.line);
        bad_lines
    }

    /// Embeds the good lines of a window. The others become bad lines.
    async fn embed_and_record_bad_lines(&self, mut window: Window) -> Result<Rows, Failure> {
        let texts = window.texts();
        let each = self.embedder.embed_each(self.batch(&texts)).await;
        // If an error blames no text, the embedder itself failed, and would fail for other texts, too.
        if let Some((_, error)) = each.errors().find(|(_, error)| error.bad_texts().is_empty()) {
            return Err(error.clone().into());
        }
        let mut results = each.iter();
        for item in &mut window.lines {
            let InputLine::Text(text_line) = item else { continue };
            if let Some(Err(error)) = results.next() {
                let reason = error.bad_texts().first().map(reason).unwrap_or_default();
                *item = InputLine::Bad(BadLine { line: text_line.line, reason, object: text_line.object.take() });
            }
        }
        drop(results);
        let charges = each.charges().clone();
        Ok(Rows { lines: window.lines, embeddings: each.into_embeddings(), charges })
    }

    fn batch<'t>(&self, texts: &'t [&'t str]) -> Batch<'t> {
        // A file is bulk work, even if it holds queries.
        Batch::new(self.kind, texts).with_truncation(self.too_long).with_lane(Lane::Bulk)
    }
}
