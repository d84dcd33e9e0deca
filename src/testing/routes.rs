//! Finds the route of a request and answers it: [`answer`].

mod batches;
mod embeddings;
mod files;
mod models;

use std::fmt;

use hyper::{Method, Request, body::Incoming, header::CONTENT_TYPE};

use super::{
    account::Account,
    api_error::ApiError,
    fault::Route,
    reply::{Reply, refusal},
    upload::{NoUpload, drain},
};

/// The connection is closed without an answer.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is closed without an answer")
    }
}

impl std::error::Error for Cut {}

/// A route, and the id in the path.
pub(super) fn route_of(method: &Method, path: &str) -> Option<(Route, String)> {
    let path = path.strip_prefix("/v1/")?;
    let parts: Vec<&str> = path.split('/').collect();
    let get = method == Method::GET;
    let post = method == Method::POST;
    let (route, id) = match parts[..] {
        ["files"] if post => (Route::CreateFile, ""),
        ["files"] if get => (Route::ListFiles, ""),
        ["files", id] if get => (Route::GetFile, id),
        ["files", id] if method == Method::DELETE => (Route::DeleteFile, id),
        ["files", id, "content"] if get => (Route::FileContent, id),
        ["batches"] if post => (Route::CreateBatch, ""),
        ["batches"] if get => (Route::ListBatches, ""),
        ["batches", id] if get => (Route::GetBatch, id),
        ["batches", id, "cancel"] if post => (Route::CancelBatch, id),
        ["embeddings"] if post => (Route::Embeddings, ""),
        ["models"] if get => (Route::Models, ""),
        ["models", id] if get => (Route::Models, id),
        _ => return None,
    };
    Some((route, id.to_owned()))
}

/// Answers a request of a known route. An upload may be cut after so many bytes.
pub(super) async fn answer(
    account: &Account,
    route: Route,
    id: &str,
    request: Request<Incoming>,
    cut_upload: Option<u64>,
) -> Result<Reply, Cut> {
    let (head, mut body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let replied = match route {
        Route::CreateFile => {
            let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            files::create(account, &mut body, content_type, cut_upload).await
        }
        Route::CreateBatch => batches::create(account, &mut body).await,
        Route::Embeddings => embeddings::create(account, &mut body).await,
        other => {
            drain(&mut body).await;
            let replied = match other {
                Route::ListFiles => files::list(account, query),
                Route::GetFile => files::get(account, id),
                Route::FileContent => files::content(account, id),
                Route::DeleteFile => files::delete(account, id),
                Route::ListBatches => batches::list(account, query),
                Route::GetBatch => batches::get(account, id),
                Route::CancelBatch => batches::cancel(account, id),
                _ => models::get(account, id),
            };
            replied.map_err(NoUpload::Refused)
        }
    };
    match replied {
        Ok(reply) => Ok(reply),
        Err(NoUpload::Refused(error)) => Ok(refused(account, &error)),
        Err(NoUpload::Cut) => Err(Cut),
    }
}

/// Counts and answers a refusal.
pub(super) fn refused(account: &Account, error: &ApiError) -> Reply {
    account.with(|state| state.counts.refused += 1);
    refusal(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_told_apart_by_method_and_path() {
        let route = |method: &str, path: &str| route_of(&method.parse().expect("a method"), path);
        assert_eq!(route("GET", "/v1/files/file-1/content"), Some((Route::FileContent, "file-1".to_owned())));
        assert_eq!(route("DELETE", "/v1/files/file-1"), Some((Route::DeleteFile, "file-1".to_owned())));
        assert_eq!(route("POST", "/v1/batches/b/cancel"), Some((Route::CancelBatch, "b".to_owned())));
        for (method, path) in [("DELETE", "/v1/batches/b"), ("GET", "/files"), ("GET", "/v1/"), ("PUT", "/v1/files")] {
            assert_eq!(route(method, path), None, "{method} {path}");
        }
    }
}
