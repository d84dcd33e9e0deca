//! Reads the query of a list: [`Query`].

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

    /// Returns one page of a list, as `(items, has_more)`. `id_of` names the items.
    ///
    /// # Errors
    /// A refusal if the page is to begin after an item that is not there.
    pub(super) fn page<T>(
        &self,
        items: impl Iterator<Item = T>,
        id_of: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, bool), ApiError> {
        let mut items = items;
        if let Some(after) = &self.after
            && !items.by_ref().any(|item| id_of(&item) == *after)
        {
            let message = format!("No item found with id '{after}'.");
            return Err(ApiError::bad_request(message).with_param("after"));
        }
        let page: Vec<T> = items.by_ref().take(self.limit).collect();
        let has_more = items.next().is_some();
        Ok((page, has_more))
    }
}
