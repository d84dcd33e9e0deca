//! Checks and quotes the names of the tables: [`Names`].

use crate::{Error, ErrorKind, Result};

/// The most bytes of a name. PostgreSQL would truncate longer ones without an error.
const MAX_NAME_BYTES: usize = 63;

/// The longest ending that is added to the name of the table.
const LONGEST_ENDING: &str = "_spaces";

pub(super) const DEFAULT_TABLE: &str = "docvector_cache";

/// The names of the three tables, quoted, as they stand in statements.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) entries: String,
    pub(super) spaces: String,
    pub(super) meta: String,
    /// The name of the table as people write it.
    pub(super) shown: String,
}

impl Names {
    /// Checks the names. Without a schema, the search path of the connection says where the tables are.
    pub(super) fn new(schema: Option<&str>, table: &str) -> Result<Self> {
        check("table", table, MAX_NAME_BYTES - LONGEST_ENDING.len())?;
        if let Some(schema) = schema {
            check("schema", schema, MAX_NAME_BYTES)?;
        }
        let before = schema.map(|schema| format!("{}.", quoted(schema))).unwrap_or_default();
        let name = |ending: &str| format!("{before}{}", quoted(&format!("{table}{ending}")));
        let shown = schema.map_or_else(|| table.to_owned(), |schema| format!("{schema}.{table}"));
        Ok(Self { entries: name(""), spaces: name(LONGEST_ENDING), meta: name("_meta"), shown })
    }
}

fn check(what: &str, name: &str, most: usize) -> Result<()> {
    let wrong = |why: String| Err(Error::new(ErrorKind::Config, format!("the name of the {what} {why}")));
    if name.is_empty() {
        return wrong("is empty: give one, or leave it out".into());
    }
    if name.len() > most {
        return wrong(format!("has {} bytes: the limit is {most}", name.len()));
    }
    // Control characters are valid in PostgreSQL except for NUL, but they would break the lines of messages.
    if name.chars().any(char::is_control) {
        return wrong("has a control character: leave it out".into());
    }
    Ok(())
}

/// Quotes a name, so that any characters in it are part of it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_so_that_they_stay_names() {
        let names = Names::new(Some("My schema"), "a\"; DROP TABLE x; --").expect("it is valid");
        assert_eq!(names.entries, r#""My schema"."a""; DROP TABLE x; --""#);
        assert_eq!(names.spaces, r#""My schema"."a""; DROP TABLE x; --_spaces""#);
        assert_eq!(Names::new(None, DEFAULT_TABLE).expect("it is valid").meta, r#""docvector_cache_meta""#);
    }

    #[test]
    fn names_that_postgresql_would_change_are_refused() {
        let longest = "x".repeat(56);
        assert_eq!(Names::new(None, &longest).expect("it fits").spaces.len(), 63 + 2);
        for (schema, table) in
            [(None, ""), (Some(""), "t"), (None, "a\0b"), (None, "a\nb"), (None, &*format!("{longest}x"))]
        {
            let error = Names::new(schema, table).expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}
