//! Uploads a file from the disk as a form, piece by piece: [`Form`].

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::time::Instant;

use super::{Http, Reply, too_late, transport_error};
use crate::{Error, ErrorKind, Result, deadline::until, sync::Mutex};

/// Bytes that are read from the disk at once.
const PIECE: u64 = 256 << 10;

/// A form of fields and one file. The file is open, and its length is known; no more than a piece of it is in memory.
#[derive(Debug)]
pub(crate) struct Form {
    path: PathBuf,
    boundary: String,
    /// The bytes before the file.
    head: Bytes,
    file: File,
    /// Bytes of the file that have not been read.
    left: u64,
    /// The bytes after the file.
    tail: Bytes,
}

impl Form {
    /// Opens a file, to be sent under a name as the field `file`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the file cannot be opened.
    pub(crate) fn open(path: &Path, name: &str, fields: &[(&str, &str)]) -> Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (left, file) = opened.map_err(|error| unreadable(path, error))?;
        // Random, so that no content of a file can be taken for the end of it.
        let boundary = format!("docvector-{:032x}", fastrand::u128(..));
        let mut head = String::new();
        for (field, value) in fields {
            head += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
        }
        let name = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        head += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n");
        head += "Content-Type: application/octet-stream\r\n\r\n";
        let tail = format!("\r\n--{boundary}--\r\n");
        Ok(Self { path: path.to_owned(), boundary, head: head.into(), file, left, tail: tail.into() })
    }

    /// Returns the next piece; an empty one at the end.
    fn next_piece(&mut self) -> io::Result<Bytes> {
        if !self.head.is_empty() {
            return Ok(std::mem::take(&mut self.head));
        }
        if self.left == 0 {
            return Ok(std::mem::take(&mut self.tail));
        }
        let wanted = self.left.min(PIECE);
        let mut piece = Vec::with_capacity(wanted as usize);
        let read = self.file.by_ref().take(wanted).read_to_end(&mut piece)? as u64;
        if read < wanted {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
        }
        self.left -= read;
        Ok(piece.into())
    }

    fn bytes_left(&self) -> u64 {
        self.head.len() as u64 + self.left + self.tail.len() as u64
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Config, format!("the file {} cannot be read", path.display())).with_source(error)
}

/// How far an upload is.
#[derive(Debug)]
struct Progress {
    /// When the last piece was taken.
    last: Instant,
    /// Why the file could not be read.
    failure: Option<io::Error>,
}

/// The body of an upload.
struct FormBody {
    form: Form,
    progress: Arc<Mutex<Progress>>,
}

impl Body for FormBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        let piece = body.form.next_piece();
        body.progress.with(|progress| progress.last = Instant::now());
        Poll::Ready(match piece {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => Some(Ok(Frame::data(piece))),
            Err(error) => {
                let kind = error.kind();
                body.progress.with(|progress| progress.failure = Some(error));
                Some(Err(kind.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.form.bytes_left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.form.bytes_left())
    }
}

impl Http {
    /// Posts a form and reads the reply: at most `max_bytes`, before and after decompression. The file is read in the
    /// calling thread, which waits for the disk.
    ///
    /// The whole may take any time. The time limit is that between two pieces, and from the last one to the end of the
    /// reply's head; then that of the rest of the reply. Dropping the future closes the connection.
    ///
    /// # Errors
    /// Those of a request; [`Config`](ErrorKind::Config) if the file cannot be read. The server does not have the file
    /// then, because it did not get all that was announced.
    pub(crate) async fn upload(&self, url: &Url, headers: &HeaderMap, form: Form, max_bytes: usize) -> Result<Reply> {
        let timeout = self.options.timeout;
        let mut headers = headers.clone();
        let content_type = format!("multipart/form-data; boundary={}", form.boundary);
        if let Ok(content_type) = HeaderValue::try_from(content_type) {
            headers.insert(CONTENT_TYPE, content_type);
        }
        let path = form.path.clone();
        let progress = Arc::new(Mutex::new(Progress { last: Instant::now(), failure: None }));
        let body = FormBody { form, progress: progress.clone() };
        let request = self.client.post(url.clone()).headers(headers).body(reqwest::Body::wrap(body));
        let sent = while_it_moves(request.send(), &progress, timeout).await;
        if let Some(failure) = progress.with(|progress| progress.failure.take()) {
            return Err(unreadable(&path, failure));
        }
        let sent = sent.ok_or_else(|| too_late("no more of the upload was taken, and no reply began,", timeout))?;
        let response = sent.map_err(|error| transport_error(error, url))?;
        let end = Instant::now().checked_add(timeout).map(Instant::into_std);
        self.read(response, max_bytes, end, || too_late("no complete reply", timeout)).await
    }
}

/// Awaits a future as long as its upload makes progress; `None` if there was none for so long.
async fn while_it_moves<T>(
    future: impl Future<Output = T> + Send,
    progress: &Mutex<Progress>,
    timeout: Duration,
) -> Option<T> {
    let mut future = pin!(future);
    let mut since = progress.with(|progress| progress.last);
    loop {
        let end = since.checked_add(timeout).map(Instant::into_std);
        if let Some(done) = until(end, future.as_mut()).await {
            return Some(done);
        }
        let last = progress.with(|progress| progress.last);
        if last == since {
            return None;
        }
        since = last;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::http::HttpOptions;

    fn form_of(content: &[u8]) -> Form {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("written");
        Form::open(file.path(), "a\"b\r\n.jsonl", &[("purpose", "batch")]).expect("an open file")
    }

    #[test]
    fn a_form_is_as_long_as_it_says_and_holds_the_file() {
        for length in [0, 1, PIECE as usize, 2 * PIECE as usize + 7] {
            let content: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut form = form_of(&content);
            let (said, boundary) = (form.bytes_left(), form.boundary.clone());
            let mut sent = Vec::new();
            loop {
                let piece = form.next_piece().expect("a piece");
                assert!(piece.len() as u64 <= PIECE);
                if piece.is_empty() {
                    break;
                }
                sent.extend_from_slice(&piece);
            }
            assert_eq!((sent.len() as u64, form.bytes_left()), (said, 0));
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{boundary}\r\n\
                 Content-Disposition: form-data; name=\"file\"; filename=\"a%22b%0D%0A.jsonl\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            );
            let tail = format!("\r\n--{boundary}--\r\n");
            assert!(sent == [head.as_bytes(), &content, tail.as_bytes()].concat(), "{length} bytes");
        }
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error_and_a_longer_one_is_not_noticed() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "0123456789").expect("written");
        let open = || Form::open(file.path(), "a.jsonl", &[]).expect("an open file");
        let (mut shorter, mut longer) = (open(), open());
        std::fs::write(file.path(), "0123456789and more").expect("written");
        longer.next_piece().expect("the head");
        assert_eq!(longer.next_piece().expect("the file"), "0123456789");
        std::fs::write(file.path(), "012").expect("written");
        shorter.next_piece().expect("the head");
        assert_eq!(shorter.next_piece().expect_err("too short").kind(), io::ErrorKind::UnexpectedEof);
        let error = Form::open(Path::new("/there/is/no/such.jsonl"), "a", &[]).expect_err("no file");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("/there/is/no/such.jsonl"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_becomes_shorter_on_the_way_ends_the_upload() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "0123456789").expect("written");
        let form = Form::open(file.path(), "a.jsonl", &[]).expect("an open file");
        std::fs::write(file.path(), "012").expect("written");
        // Nobody accepts the connection, but the system does.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a URL");
        let http = Http::new(&HttpOptions::default(), false).expect("a client");
        let error = http.upload(&url, &HeaderMap::new(), form, 1000).await.expect_err("shorter");
        assert_eq!(error.kind(), ErrorKind::Config);
        let source = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(source.contains("shorter"), "{error}: {source}");
        assert!(error.message().contains(&file.path().display().to_string()), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_may_take_any_time_but_not_stand_still() {
        let second = Duration::from_secs(1);
        // Pieces every 9 seconds, then a wait for the reply.
        let run = async |wait: Duration| {
            let progress = Mutex::new(Progress { last: Instant::now(), failure: None });
            let upload = async {
                for _ in 0..10 {
                    sleep(9 * second).await;
                    progress.with(|progress| progress.last = Instant::now());
                }
                sleep(wait).await;
            };
            let begin = Instant::now();
            let done = while_it_moves(upload, &progress, 10 * second).await;
            (done.is_some(), begin.elapsed().as_secs())
        };
        assert_eq!(run(9 * second).await, (true, 99));
        assert_eq!(run(20 * second).await, (false, 100));
        assert_eq!(run(Duration::MAX).await, (false, 100));
    }
}
