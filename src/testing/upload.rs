//! Receives an uploaded file, as a stream to the disk: [`receive`].

use std::{
    collections::HashMap,
    future::poll_fn,
    io::Write,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use futures_util::stream;
use hyper::body::{Body, Bytes, Incoming};
use multer::{Field, Multipart};
use tempfile::NamedTempFile;

use super::{account::Account, api_error::ApiError, files::Content, input_file::InputReader};

/// The most bytes of a field that is not the file.
const LONGEST_FIELD: usize = 4096;

/// A file that came whole.
pub(super) struct Upload {
    pub(super) name: String,
    pub(super) content: Content,
    /// How long it is to be kept.
    pub(super) keeps: Option<Duration>,
}

/// Why no file came.
pub(super) enum NoUpload {
    Refused(ApiError),
    /// The connection is to be closed: because a test says so, or because the client closed it.
    Cut,
}

impl From<ApiError> for NoUpload {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// Receives one file. A fault may cut the connection after so many bytes of the body.
///
/// # Errors
/// The refusal, after the rest of the body has been read, so that the client sees it.
pub(super) async fn receive(
    body: &mut Incoming,
    content_type: Option<&str>,
    account: &Account,
    cut_after: Option<u64>,
) -> Result<Upload, NoUpload> {
    let Some(boundary) = content_type.and_then(|content_type| multer::parse_boundary(content_type).ok()) else {
        drain(body).await;
        return Err(ApiError::bad_request("The content type must be multipart/form-data with a boundary.").into());
    };
    let mut left = cut_after;
    let received = {
        let pieces = stream::poll_fn(|cx| {
            let piece = ready!(poll_bytes(body, cx));
            if let (Some(left), Some(Ok(piece))) = (&mut left, &piece) {
                *left = left.saturating_sub(piece.len() as u64);
            }
            if left == Some(0) || (left.is_some() && piece.is_none()) {
                left = Some(0);
                return Poll::Ready(Some(Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))));
            }
            Poll::Ready(piece.map(|piece| piece.map_err(std::io::Error::other)))
        });
        read_fields(Multipart::new(pieces, boundary), account).await
    };
    if left == Some(0) {
        return Err(NoUpload::Cut);
    }
    if matches!(received, Err(NoUpload::Refused(_))) {
        drain(body).await;
    }
    received
}

async fn read_fields(mut form: Multipart<'_>, account: &Account) -> Result<Upload, NoUpload> {
    let mut fields = HashMap::new();
    let mut file = None;
    while let Some(mut field) = form.next_field().await.map_err(broken_form)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            let file_name = field.file_name().unwrap_or("upload.jsonl").to_owned();
            file = Some((file_name, read_file(&mut field, account).await?));
        } else {
            let mut value = Vec::new();
            while let Some(piece) = field.chunk().await.map_err(broken_form)? {
                value.extend_from_slice(&piece);
                if value.len() > LONGEST_FIELD {
                    return Err(ApiError::bad_request("A field of the form is too long.").into());
                }
            }
            fields.insert(name, String::from_utf8_lossy(&value).into_owned());
        }
    }
    let Some((name, content)) = file else {
        return Err(ApiError::bad_request("'file' is a required property").with_param("file").into());
    };
    match fields.get("purpose").map(String::as_str) {
        Some("batch") => {}
        Some(other) => {
            let message = format!("'{other}' is not one of ['batch'], which is all that the simulator has.");
            return Err(ApiError::bad_request(message).with_param("purpose").into());
        }
        None => {
            let message = "'purpose' is a required property";
            return Err(ApiError::bad_request(message).with_param("purpose").into());
        }
    }
    if !name.ends_with(".jsonl") {
        return Err(ApiError::bad_request("Invalid file format for Batch API. Must be .jsonl").into());
    }
    let names = ["expires_after[anchor]", "expires_after[seconds]"];
    let keeps = match names.map(|name| fields.get(name)) {
        [None, None] => None,
        [anchor, seconds] => {
            let seconds = seconds.and_then(|seconds| seconds.parse().ok());
            Some(kept(anchor.map(String::as_str), seconds, names)?)
        }
    };
    Ok(Upload { name, content, keeps })
}

/// Returns the time that a file is to be kept, from an hour to 30 days. The names of both parameters are for refusals.
pub(super) fn kept(
    anchor: Option<&str>,
    seconds: Option<u64>,
    [anchor_name, seconds_name]: [&'static str; 2],
) -> Result<Duration, ApiError> {
    if anchor != Some("created_at") {
        return Err(ApiError::bad_request("Invalid anchor: it must be 'created_at'.").with_param(anchor_name));
    }
    match seconds {
        Some(seconds @ 3600..=2_592_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(ApiError::bad_request("A file expires after 3600 to 2592000 seconds.").with_param(seconds_name)),
    }
}

/// Writes the file to the disk and judges it on the way.
async fn read_file(field: &mut Field<'_>, account: &Account) -> Result<Content, NoUpload> {
    let broken = |error: std::io::Error| ApiError::broken(&error);
    let mut file = NamedTempFile::new_in(account.folder()).map_err(broken)?;
    let mut reader = InputReader::new(account.settings.clone());
    let most = account.settings.file_bytes;
    let mut bytes = 0;
    while let Some(piece) = field.chunk().await.map_err(broken_form)? {
        bytes += piece.len() as u64;
        if bytes > most {
            return Err(ApiError::too_large(most).into());
        }
        file.write_all(&piece).map_err(broken)?;
        reader.push(&piece);
    }
    Ok(Content::Uploaded(Arc::new(file.into_temp_path()), Arc::new(reader.finish())))
}

fn broken_form(error: multer::Error) -> NoUpload {
    match error {
        // The connection was closed in the middle.
        multer::Error::StreamReadFailed(_) => NoUpload::Cut,
        error => NoUpload::Refused(ApiError::bad_request(format!("The form cannot be read: {error}"))),
    }
}

/// Reads and drops the rest of a body: a client that is still sending does not see an answer.
pub(super) async fn drain(body: &mut Incoming) {
    while let Some(Ok(_)) = poll_fn(|cx| poll_bytes(body, cx)).await {}
}

/// Reads a body of at most so many bytes.
///
/// # Errors
/// A refusal if it is longer. The connection is to be closed if the body did not come whole.
pub(super) async fn read_whole(body: &mut Incoming, most: usize) -> Result<Vec<u8>, NoUpload> {
    let mut whole = Vec::new();
    while let Some(piece) = poll_fn(|cx| poll_bytes(body, cx)).await {
        let piece = piece.map_err(|_| NoUpload::Cut)?;
        if whole.len() + piece.len() > most {
            drain(body).await;
            return Err(ApiError::too_large(most).into());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

fn poll_bytes(body: &mut Incoming, cx: &mut std::task::Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            // Trailers have no data.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}
