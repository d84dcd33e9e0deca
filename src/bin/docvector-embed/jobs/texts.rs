//! Feeds the texts of an input to a job as a stream: [`with_texts`].

use std::convert::Infallible;

use docvector_embed::Error;
use futures_util::{
    future,
    stream::{self, BoxStream, StreamExt},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    failure::Failure,
    progress::Progress,
    signals::interrupted,
    source::{Source, windows::Windows},
    threads::spawn,
    window::Window,
};

/// Windows that are read ahead.
const READ_AHEAD: usize = 2;

/// A message of the reader: the texts of a window, or the end.
enum Part {
    Texts(Vec<String>),
    End,
}

/// Calls `submit` with the texts of a source, which a thread reads meanwhile. `when_interrupted` is the message for a
/// signal.
///
/// If the input cannot be read to its end, the stream does not end either: a job of the texts so far would pass for one
/// of all texts. The future is dropped instead.
pub(crate) async fn with_texts<T, F: Future<Output = Result<T, Error>>>(
    source: &Source,
    progress: &Progress,
    when_interrupted: &str,
    submit: impl FnOnce(BoxStream<'static, String>) -> F,
) -> Result<Result<T, Error>, Failure> {
    let windows = source.windows()?;
    let (reading, parts) = mpsc::channel(READ_AHEAD);
    // It ends when its receiver has gone, so nobody waits for it.
    spawn("reader", move || read(windows, &reading))?;
    let (failing, failed) = oneshot::channel();
    let (counting, mut counts) = mpsc::unbounded_channel();
    let count = async {
        let mut texts = 0;
        while let Some(more) = counts.recv().await {
            texts += more;
            progress.advance(more, texts);
        }
        future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        Ok(failure) = failed => Err(failure),
        signal = interrupted() => Err(Failure::signal(signal, format_args!(" {when_interrupted}"))),
        submitted = submit(texts(parts, failing, counting)) => Ok(submitted),
        never = count => match never {},
    }
}

/// Makes one stream of the texts of all windows.
fn texts(
    parts: mpsc::Receiver<Result<Part, Failure>>,
    failing: oneshot::Sender<Failure>,
    counting: mpsc::UnboundedSender<u64>,
) -> BoxStream<'static, String> {
    let windows = stream::unfold((parts, failing), move |(mut parts, failing)| {
        let counting = counting.clone();
        async move {
            let failure = match parts.recv().await {
                Some(Ok(Part::Texts(texts))) => {
                    let _ = counting.send(texts.len() as u64);
                    return Some((stream::iter(texts), (parts, failing)));
                }
                Some(Ok(Part::End)) => return None,
                Some(Err(failure)) => failure,
                None => Failure::new("a thread panicked: this is a bug"),
            };
            let _ = failing.send(failure);
            future::pending().await
        }
    });
    windows.flatten().boxed()
}

/// Reads windows and sends their texts on. Ends early when the receiver is gone.
fn read(windows: Windows, parts: &mpsc::Sender<Result<Part, Failure>>) {
    let texts_of = |window: Window| Part::Texts(window.text_lines().map(|text_line| text_line.text.clone()).collect());
    for window in windows {
        if parts.blocking_send(window.map(texts_of)).is_err() {
            return;
        }
    }
    let _ = parts.blocking_send(Ok(Part::End));
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        cli::input::{InputFormat, InputOptions},
        runtime::runtime,
    };

    fn source_at(path: &Path) -> Source {
        Source::read(path, &InputOptions::by_name(InputFormat::Lines)).expect("read")
    }

    fn collect(source: &Source) -> Result<Vec<String>, Failure> {
        let progress = Progress::new(None, "texts", false);
        let submitted = runtime()?.block_on(with_texts(source, &progress, "", |texts| async {
            let texts: Vec<String> = texts.collect().await;
            Ok(texts)
        }))?;
        Ok(submitted?)
    }

    #[test]
    fn all_texts_come_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("in.txt");
        let lines: Vec<String> = (0..5000).map(|i| format!("line {i}")).collect();
        fs::write(&path, lines.join("\n")).expect("written");
        let source = source_at(&path);
        assert_eq!(collect(&source).expect("read again"), lines);
    }

    #[test]
    fn an_input_that_breaks_is_not_taken_for_a_shorter_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("in.txt");
        fs::write(&path, "a\n".repeat(5000)).expect("written");
        let source = source_at(&path);
        fs::write(&path, "a\n".repeat(4999)).expect("written");
        let failure = collect(&source).expect_err("the input is shorter than it was");
        assert!(format!("{failure:?}").contains("changed while it was in use"), "{failure:?}");
    }
}
