//! Reads the names of the columns of CSV, and makes an object of each row: [`Header`].

use std::collections::HashSet;

use csv::StringRecord;

use crate::{
    cli::input::InputOptions,
    window::RESERVED_FIELDS,
    wording::{Counted, without_controls},
};

/// The most columns that an error lists, and the most characters of each.
const MAX_LISTED: usize = 10;
const MAX_CHARS: usize = 40;

const GIVE_A_NAME: &str = "give it one in the first row (with index=False, pandas leaves out the column of its index)";

/// The columns of a table.
#[derive(Debug)]
pub(super) struct Header {
    /// The names as strings in JSON.
    names: Vec<String>,
    /// The index of the column with the texts.
    text: usize,
}

impl Header {
    /// Finds the columns in the first row, or says what is wrong with them.
    pub(super) fn of(names: &StringRecord, options: &InputOptions) -> Result<Self, String> {
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(format!("column {} has no name: {GIVE_A_NAME}", index + 1));
            }
            if !seen.insert(name) {
                return Err(format!("two columns have the name {}: rename one", quoted(name)));
            }
            if RESERVED_FIELDS.contains(&name) {
                return Err(format!("the column {} has the name of a field of the output: rename it", quoted(name)));
            }
        }
        let text = names.iter().position(|name| name == options.column).ok_or_else(|| missing(names, options))?;
        let names = names.iter().map(serde_json::to_string).collect::<serde_json::Result<Vec<String>>>();
        Ok(Self { names: names.map_err(|error| error.to_string())?, text })
    }

    /// Returns the text of a row and the row as an object, or why it has none.
    pub(super) fn read<'c>(&self, cells: &'c StringRecord) -> Result<(&'c str, String), String> {
        let (have, want) = (cells.len() as u64, self.names.len() as u64);
        if have != want {
            let (have, want) = (Counted(have, "cell"), Counted(want, "column"));
            return Err(format!("the row has {have}, and the header has {want}"));
        }
        let object = self.object(cells).map_err(|error| error.to_string())?;
        Ok((cells.get(self.text).unwrap_or_default(), object))
    }

    fn object(&self, cells: &StringRecord) -> serde_json::Result<String> {
        let mut object = String::new();
        for (name, cell) in self.names.iter().zip(cells.iter()) {
            object.push(if object.is_empty() { '{' } else { ',' });
            object += name;
            object.push(':');
            object += &serde_json::to_string(cell)?;
        }
        object.push('}');
        Ok(object)
    }
}

/// Says which columns there are, and how to name the one with the texts.
fn missing(names: &StringRecord, options: &InputOptions) -> String {
    let mut listed: Vec<String> = names.iter().take(MAX_LISTED).map(quoted).collect();
    if names.len() > MAX_LISTED {
        listed.push(format!("{} more", names.len() - MAX_LISTED));
    }
    let last = listed.pop().unwrap_or_default();
    let columns = match listed.as_slice() {
        [] => format!("the only column is {last}"),
        before => format!("the columns are {} and {last}", before.join(", ")),
    };
    let otherwise = if options.is_named { "" } else { ", and --input-format lines embeds whole lines" };
    let column = quoted(&options.column);
    // Tables of spreadsheets in many countries.
    let semicolons = match names.get(0) {
        Some(only) if names.len() == 1 && only.contains(';') => {
            "; semicolons divide this one: convert it to commas or tabs"
        }
        _ => "",
    };
    format!("there is no column {column}: {columns}; --column names the one with the texts{otherwise}{semicolons}")
}

/// Returns a name as it can be shown.
fn quoted(name: &str) -> String {
    let mut shown: String = name.chars().take(MAX_CHARS).collect();
    if shown.len() < name.len() {
        shown.push_str("..");
    }
    format!("`{}`", without_controls(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::InputFormat;

    fn options() -> InputOptions {
        InputOptions::by_name(InputFormat::Csv)
    }

    fn refused(names: &[&str], options: &InputOptions) -> String {
        Header::of(&StringRecord::from(names.to_vec()), options).expect_err("refused")
    }

    #[test]
    fn rows_become_objects_of_strings() {
        let names = StringRecord::from(vec!["id", "a \"b\"", "text"]);
        let header = Header::of(&names, &options()).expect("valid");
        let cells = StringRecord::from(vec!["1.50", "", "two\n\"lines\"\u{1}"]);
        let object = r#"{"id":"1.50","a \"b\"":"","text":"two\n\"lines\"\u0001"}"#.to_owned();
        assert_eq!(header.read(&cells), Ok(("two\n\"lines\"\u{1}", object)));
        let short = "the row has 1 cell, and the header has 3 columns";
        assert_eq!(header.read(&StringRecord::from(vec!["x"])), Err(short.to_owned()));
        let header = Header::of(&names, &options().with_column("id")).expect("valid");
        assert!(header.read(&cells).is_ok_and(|(text, _)| text == "1.50"));
    }

    #[test]
    fn columns_must_have_names_of_their_own() {
        assert!(refused(&["", "text"], &options()).starts_with("column 1 has no name: "));
        let twice = refused(&["a", "text", "a"], &options());
        assert_eq!(twice, "two columns have the name `a`: rename one");
        let reserved = refused(&["text", "error"], &options());
        assert_eq!(reserved, "the column `error` has the name of a field of the output: rename it");
    }

    #[test]
    fn a_missing_column_lists_those_that_there_are() {
        let both = refused(&["id", "Text"], &options());
        let end = "--column names the one with the texts, and --input-format lines embeds whole lines";
        assert_eq!(both, format!("there is no column `text`: the columns are `id` and `Text`; {end}"));
        let named = refused(&["body"], &options().named().with_column("title"));
        assert_eq!(
            named,
            "there is no column `title`: the only column is `body`; --column names the one with the texts"
        );
        let odd = refused(&["a\u{1b}[2J", &"x".repeat(1000)], &options());
        assert!(odd.contains("`a\u{fffd}[2J`") && odd.contains(&format!("`{}..`", "x".repeat(40))), "{odd}");
        let names: Vec<String> = (0..14).map(|column| format!("c{column}")).collect();
        let many = refused(&names.iter().map(String::as_str).collect::<Vec<_>>(), &options());
        assert!(many.contains("the columns are `c0`, `c1`, ") && many.contains(", `c9` and 4 more; "), "{many}");
    }
}
