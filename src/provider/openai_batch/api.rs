//! Calls OpenAI's Files and Batches API, one request per call: [`Api`].

use std::{fmt, path::Path, sync::Arc};

use reqwest::{
    Method, Url,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::{Value, json};

use super::batch_object::{self, BatchObject};
use crate::{
    Error, ErrorKind, Result,
    http::{Http, Reply, download::Download, headers, redaction, upload::Form, was_never_sent},
    provider::openai::{endpoint::Endpoint, failure},
};

/// Maximum bytes of a reply that is not the content of a file. A page of 100 batches has about 150 KB; a batch that
/// failed may have an error per line.
const MAX_BYTES: usize = 16 << 20;

/// Batches per page of the list: the most that the API gives.
const PAGE: usize = 100;

/// The Files and Batches API of a server. It has connections of its own, which belong to the runtime that it is used in.
pub(super) struct Api {
    http: Http,
    /// The embeddings URL without its last segment. It may have a query.
    base: Url,
    headers: HeaderMap,
}

/// A file that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UploadedFile {
    pub(super) id: String,
    /// In seconds since 1970.
    pub(super) created_at: Option<u64>,
}

/// A page of the list of batches, the newest first.
#[derive(Clone, Debug)]
pub(super) struct BatchPage {
    pub(super) batches: Vec<BatchObject>,
    /// Whether there is another page. It begins after `last_id`, which is there then.
    pub(super) has_more: bool,
    pub(super) last_id: Option<String>,
}

/// Whether a create or a cancel that failed may have had its effect all the same. `false` only if it surely had none.
pub(super) fn may_have_had_effect(error: &Error) -> bool {
    match error.status() {
        // A time-out, a conflict, and a gateway whose client went away: the server behind it may have gone on.
        Some(408 | 409 | 499) => true,
        Some(status) => !(400..500).contains(&status),
        // This crate refused it itself, before it was sent.
        None if std::error::Error::source(error).is_none() => error.kind() != ErrorKind::Config,
        None => !was_never_sent(error),
    }
}

impl Api {
    /// Makes the API of an [`OpenAi`](crate::provider::OpenAi)'s server. It does not connect yet.
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Result<Self> {
        let mut base = endpoint.url.clone();
        if let Ok(mut path) = base.path_segments_mut() {
            path.pop();
            // At Azure, the URL may name the deployment, as in `/openai/deployments/NAME`. Files belong to none.
            if endpoint.model.is_none() {
                path.pop().pop();
            }
        }
        let mut headers = endpoint.headers.clone();
        // The content of a file can then be handed on as it arrives.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(Self { http: endpoint.http.with_own_connections()?, base, headers })
    }

    /// Uploads a file of input lines, under a name that ends in `.jsonl`.
    ///
    /// # Errors
    /// Those of a request; [`Config`](ErrorKind::Config) if the file cannot be read.
    pub(super) async fn upload(&self, path: &Path, name: &str) -> Result<UploadedFile> {
        let what = &format!("uploading {name:?}");
        let url = self.url(&["files"]);
        let form = Form::open(path, name, &[("purpose", "batch")]).map_err(|error| error.while_doing(what))?;
        let reply = self.http.upload(&url, &self.headers, form, MAX_BYTES).await;
        let value = Self::json_of(reply).map_err(|error| self.told(error, what))?;
        let file = value
            .get("id")
            .and_then(batch_object::id)
            .map(|id| UploadedFile { id, created_at: value.get("created_at").and_then(batch_object::number) });
        file.ok_or_else(|| self.told(unusable("file"), what))
    }

    /// Creates a batch of an uploaded file.
    ///
    /// # Errors
    /// Those of a request. [`may_have_had_effect`] says whether the batch may be there all the same.
    pub(super) async fn create(&self, input_file: &str, metadata: &[(&str, &str)]) -> Result<BatchObject> {
        let metadata: serde_json::Map<String, Value> =
            metadata.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
        let body = json!({
            "input_file_id": input_file,
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
            "metadata": metadata,
        });
        let what = format!("creating a batch of {}", self.shown(input_file));
        let body = body.to_string().into_bytes();
        let value = self.ask(Method::POST, &self.url(&["batches"]), body, &what).await?;
        BatchObject::read(&value).ok_or_else(|| self.told(unusable("batch"), &what))
    }

    /// Reads the state of a batch.
    ///
    /// # Errors
    /// Those of a request.
    pub(super) async fn batch(&self, id: &str) -> Result<BatchObject> {
        let what = format!("reading the batch {}", self.shown(id));
        let url = self.url_of(&["batches", id], id, &what)?;
        self.batch_of(self.ask(Method::GET, &url, Vec::new(), &what).await?, id, &what)
    }

    /// Lists batches, the newest first: the page after the batch `after`, or the first one.
    ///
    /// # Errors
    /// Those of a request.
    pub(super) async fn batches(&self, after: Option<&str>) -> Result<BatchPage> {
        let what = "listing batches";
        let mut url = self.url(&["batches"]);
        url.query_pairs_mut().append_pair("limit", &PAGE.to_string());
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", after);
        }
        let value = self.ask(Method::GET, &url, Vec::new(), what).await?;
        page_of(&value, after).ok_or_else(|| self.told(unusable("list of batches"), what))
    }

    /// Asks for the end of a batch, whose finished lines are kept.
    ///
    /// # Errors
    /// Those of a request. [`may_have_had_effect`] says whether the batch may be cancelled all the same.
    pub(super) async fn cancel(&self, id: &str) -> Result<BatchObject> {
        let what = format!("cancelling the batch {}", self.shown(id));
        let url = self.url_of(&["batches", id, "cancel"], id, &what)?;
        self.batch_of(self.ask(Method::POST, &url, Vec::new(), &what).await?, id, &what)
    }

    /// Returns the bytes that a file has, if the server tells them.
    ///
    /// # Errors
    /// Those of a request: status 404 if the server has no such file.
    pub(super) async fn file_bytes(&self, file: &str) -> Result<Option<u64>> {
        let what = format!("looking for the file {}", self.shown(file));
        let url = self.url_of(&["files", file], file, &what)?;
        let value = self.ask(Method::GET, &url, Vec::new(), &what).await?;
        Ok(value.get("bytes").and_then(batch_object::number))
    }

    /// Begins to read the content of a file.
    ///
    /// # Errors
    /// Those of a request.
    pub(super) async fn content(&self, file: &str) -> Result<Content<'_>> {
        let what = format!("reading the file {}", self.shown(file));
        let url = self.url_of(&["files", file, "content"], file, &what)?;
        let mut headers = self.headers.clone();
        headers.remove(CONTENT_TYPE);
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        match self.http.download(&url, &headers).await {
            Ok(Ok(download)) => Ok(Content { api: self, what, download }),
            Ok(Err(reply)) => Err(self.told(Self::error_of(&reply), &what)),
            Err(error) => Err(self.told(error, &what)),
        }
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// Those of a request.
    pub(super) async fn delete(&self, file: &str) -> Result<()> {
        let what = format!("deleting the file {}", self.shown(file));
        let url = self.url_of(&["files", file], file, &what)?;
        let value = self.ask(Method::DELETE, &url, Vec::new(), &what).await?;
        // A page that some proxy shows instead is no confirmation. Azure says nothing at all.
        let is_deleted = value.get("deleted").and_then(Value::as_bool) == Some(true);
        if is_deleted || value.is_null() { Ok(()) } else { Err(self.told(unusable("confirmation"), &what)) }
    }

    /// Sends a request and returns the JSON of its reply; `null` if the reply says that it has none.
    async fn ask(&self, method: Method, url: &Url, body: Vec<u8>, what: impl fmt::Display + Send) -> Result<Value> {
        let mut headers = self.headers.clone();
        if body.is_empty() {
            headers.remove(CONTENT_TYPE);
        }
        if body.is_empty() && method == Method::POST {
            // Some servers refuse a POST that does not say how long it is.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let reply = self.http.exchange(method, url, &headers, body, MAX_BYTES).await;
        Self::json_of(reply).map_err(|error| self.told(error, what))
    }

    /// Reads a reply as JSON.
    fn json_of(reply: Result<Reply>) -> Result<Value> {
        let reply = reply?;
        if !reply.status.is_success() {
            return Err(Self::error_of(&reply));
        }
        if reply.status == reqwest::StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let body = reply.decompressed().and_then(|body| if body.is_cut { Err(reply.too_large()) } else { Ok(body) });
        let value = body.and_then(|body| {
            let message = "the reply is not JSON: check the base URL, and the proxies on the way";
            // The cause would quote a piece of the reply.
            let value: Option<Value> = serde_json::from_slice(&body.bytes).ok().filter(Value::is_object);
            value.ok_or_else(|| Error::new(ErrorKind::Protocol, message))
        });
        value.map_err(|error| reply.about(error))
    }

    fn error_of(reply: &Reply) -> Error {
        let error = reply.about(failure::error_without_texts(reply));
        headers::rate_limit_status(&reply.headers).into_iter().fold(error, Error::with_rate_limit_status)
    }

    /// Says in an error what was being done, and removes what must not be shown. The request itself is free of charge:
    /// what a batch costs is in its results.
    fn told(&self, error: Error, what: impl fmt::Display) -> Error {
        let is_hidden = |words: &str| !failure::is_known_code(words) && redaction::quotes_secret(words, &self.headers);
        error.without_charges().without_words(is_hidden).while_doing(what)
    }

    /// Reads the batch that was asked for.
    fn batch_of(&self, value: Value, id: &str, what: &str) -> Result<BatchObject> {
        let batch = BatchObject::read(&value).ok_or_else(|| self.told(unusable("batch"), what))?;
        if batch.id != id {
            let error = Error::new(ErrorKind::Protocol, "the reply is about another batch").with_status(200);
            return Err(self.told(error, what));
        }
        Ok(batch)
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        url
    }

    /// Returns a URL that has an id in its path.
    fn url_of(&self, segments: &[&str], id: &str, what: &str) -> Result<Url> {
        if batch_object::is_id(id) {
            return Ok(self.url(segments));
        }
        Err(Error::new(ErrorKind::Config, "the id is empty, too long or no id at all").while_doing(what))
    }

    /// Returns an id as errors show it. One that the server made of a secret is not shown.
    pub(super) fn shown<'i>(&self, id: &'i str) -> &'i str {
        let is_shown = batch_object::is_id(id) && !redaction::quotes_secret(id, &self.headers);
        if is_shown { id } else { "(not shown)" }
    }
}

/// The content of a file on its way.
pub(super) struct Content<'a> {
    api: &'a Api,
    what: String,
    download: Download,
}

impl Content<'_> {
    /// Waits for the next piece; `None` at the end of the file.
    ///
    /// # Errors
    /// Those of a connection that ends too early, or brings nothing for too long.
    pub(super) async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + Send + use<>>> {
        self.download.next().await.map_err(|error| self.api.told(error, &self.what))
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("host", &self.base.host_str()).finish_non_exhaustive()
    }
}

/// Makes the error of a reply that has the status of success and is something else than was asked for.
fn unusable(wanted: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("the reply is no {wanted}: check the base URL")).with_status(200)
}

/// Reads a page of the list; `None` if it is none, or does not go on after `after`.
fn page_of(value: &Value, after: Option<&str>) -> Option<BatchPage> {
    let items = value.get("data")?.as_array()?;
    // A batch that is left out could be one that is looked for. But one of somebody else may have any form.
    let may_be_ours = |item: &Value| item.to_string().contains("docvector_token");
    let batches = items.iter().map(|item| match BatchObject::read(item) {
        None if !may_be_ours(item) => Ok(None),
        batch => batch.map(Some).ok_or(()),
    });
    let batches: Vec<BatchObject> =
        batches.collect::<std::result::Result<Vec<_>, ()>>().ok()?.into_iter().flatten().collect();
    let last_id = value.get("last_id").and_then(batch_object::id).or_else(|| Some(batches.last()?.id.clone()));
    let has_more = match value.get("has_more") {
        Some(Value::Bool(has_more)) => *has_more,
        _ => batches.len() >= PAGE,
    };
    if has_more && (last_id.is_none() || last_id.as_deref() == after) {
        return None;
    }
    Some(BatchPage { batches, has_more, last_id })
}

#[cfg(all(test, feature = "testing"))]
mod tests;
