//! Reads the query of a list: [`Query`].

use serde_json::{Value, json};

use super::api_error::ApiError;

/// The parameters of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) limit: usize,
    pub(super) after: Option<String>,
    pub(super) purpose: Option<String>,
    /// Whether the oldest comes first.
    pub(super) ascends: bool,
}

impl Query {
    /// Reads a query whose limit may be from 1 to `most`.
    pub(super) fn read(query: &str, usual: usize, most: usize) -> Result<Self, ApiError> {
        let mut read = Self { limit: usual, after: None, purpose: None, ascends: false };
        // The values that are known have no characters that would be escaped.
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "limit" => match value.parse() {
                    Ok(limit) if (1..=most).contains(&limit) => read.limit = limit,
                    _ => {
                        let message = format!("Invalid 'limit': it must be from 1 to {most}.");
                        return Err(ApiError::bad_request(message).with_param("limit"));
                    }
                },
                "after" => read.after = Some(value.to_owned()),
                "purpose" => read.purpose = Some(value.to_owned()),
                "order" => read.ascends = value == "asc",
                _ => {}
            }
        }
        Ok(read)
    }

    /// Returns one page of a list as the API shows it. `id_of` names the items.
    ///
    /// # Errors
    /// A refusal if the page is to begin after an item that is not there.
    pub(super) fn page<'a, T: 'a>(
        &self,
        mut items: impl Iterator<Item = &'a T>,
        id_of: impl Fn(&T) -> &str,
        to_json: impl Fn(&T) -> Value,
    ) -> Result<Value, ApiError> {
        if let Some(after) = &self.after
            && !items.any(|item| id_of(item) == after)
        {
            let message = format!("No item found with id '{after}'.");
            return Err(ApiError::bad_request(message).with_param("after"));
        }
        let page: Vec<&T> = items.by_ref().take(self.limit).collect();
        Ok(json!({
            "object": "list",
            "data": page.iter().map(|item| to_json(item)).collect::<Vec<_>>(),
            "first_id": page.first().map(|item| id_of(item)),
            "last_id": page.last().map(|item| id_of(item)),
            "has_more": items.next().is_some(),
        }))
    }
}
