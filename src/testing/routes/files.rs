//! Answers the routes of files.

use hyper::body::Incoming;
use serde_json::json;

use crate::testing::{
    account::Account,
    api_error::ApiError,
    files::StoredFile,
    query::Query,
    reply::{self, Reply},
    upload::{NoUpload, Upload, receive},
};

pub(super) async fn create(
    account: &Account,
    body: &mut Incoming,
    content_type: Option<&str>,
    cut_after: Option<u64>,
) -> Result<Reply, NoUpload> {
    let Upload { name, content, keeps } = receive(body, content_type, account, cut_after).await?;
    Ok(reply::json(200, &account.with(|state| state.add_upload(name, content, keeps))))
}

pub(super) fn list(account: &Account, query: &str) -> Result<Reply, ApiError> {
    let query = Query::read(query, 10_000, 10_000)?;
    account.with(|state| {
        let is_wanted = |file: &&StoredFile| query.purpose.as_deref().is_none_or(|purpose| purpose == file.purpose);
        let files = state.files().filter(is_wanted);
        let to_json = |file: &StoredFile| file.to_json(&state.clock);
        let page = if query.ascends {
            query.page(files, |file| &file.id, to_json)?
        } else {
            query.page(files.rev(), |file| &file.id, to_json)?
        };
        Ok(reply::json(200, &page))
    })
}

pub(super) fn get(account: &Account, id: &str) -> Result<Reply, ApiError> {
    let file = account.with(|state| state.file(id).map(|file| file.to_json(&state.clock)));
    Ok(reply::json(200, &file.ok_or_else(|| ApiError::no_file(id))?))
}

pub(super) fn content(account: &Account, id: &str) -> Result<Reply, ApiError> {
    let found = account.with(|state| {
        let found = state.file(id).map(|file| (file.content.clone(), file.bytes));
        state.counts.downloads += u64::from(found.is_some());
        found
    });
    let (content, bytes) = found.ok_or_else(|| ApiError::no_file(id))?;
    let reader = content.reader().map_err(|error| ApiError::broken(&error))?;
    Ok(reply::content(reader, bytes))
}

pub(super) fn delete(account: &Account, id: &str) -> Result<Reply, ApiError> {
    let deleted = account.with(|state| {
        let deleted = state.delete_file(id);
        state.counts.deletes += u64::from(deleted.is_some());
        deleted
    });
    // Dropped outside of the lock, because that removes it from the disk.
    deleted.ok_or_else(|| ApiError::no_file(id))?;
    Ok(reply::json(200, &json!({"id": id, "object": "file", "deleted": true})))
}
