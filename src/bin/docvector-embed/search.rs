//! Runs `search`: finds the rows of a file of vectors that are nearest to a question.

use std::io::{self, IsTerminal, Write};

use docvector_embed::{EmbedderExt, Space};
use serde_json::value::RawValue;

use crate::{
    cli::search::SearchArgs,
    cosine::cosine,
    embed_model::EmbedModel,
    failure::Failure,
    json_fields::Fields,
    nearest::{Nearest, Scored},
    report::Report,
    runtime::runtime,
    vectors_file::VectorsFile,
    wording::without_controls,
};

/// The most characters of a text in the table on a terminal.
const SHOWN_CHARS: usize = 100;

/// Searches the file, and prints the nearest rows.
pub(crate) fn run(args: &SearchArgs) -> Result<(), Failure> {
    // Open the file first, so that an error in it shows before the model is loaded.
    let file = VectorsFile::open(&args.vectors)?;
    let model = EmbedModel::load(&args.model, &args.load, &args.openai)?;
    let space = model.embedder.space()?.clone();
    check(&file, &space)?;
    let question = runtime()?.block_on(model.embedder.embed_query_in(&space, &args.question))?;
    let mut nearest = Nearest::new(args.top as usize);
    let (name, mut rows) = (file.name().to_owned(), 0_u64);
    for row in file {
        let row = row?;
        if row.vector.len() != question.len() {
            return Err(Failure::new(format!(
                "{name}, line {}: the vector has {} components, and those of the model have {}: name the model that made it",
                row.place,
                row.vector.len(),
                question.len()
            )));
        }
        rows += 1;
        // Only what is shown of a row is kept.
        let shown = |object: Option<String>| match (object, args.json) {
            (Some(object), true) => without_vector(&object),
            (Some(object), false) => text_of(&object).unwrap_or_default(),
            (None, _) => String::new(),
        };
        nearest.offer(cosine(&question, &row.vector) as f32, row.place, || shown(row.object));
    }
    let nearest = nearest.into_sorted();
    if rows == 0 {
        // A failed warning does not change the exit status.
        let _ = writeln!(io::stderr().lock(), "warning: the file has no vectors");
    }
    if args.json { print_json(&nearest) } else { print_table(&nearest) }
}

/// Makes sure that the vectors are the model's.
fn check(file: &VectorsFile, space: &Space) -> Result<(), Failure> {
    if file.is_other {
        let name = file.name();
        return Err(Failure::new(format!(
            "{name} was not written with {name}.space, which tells the size of another file: nothing shows which model made \
             these vectors. Embed the texts again, or remove {name}.space if you are sure"
        )));
    }
    match &file.space {
        Some(own) if own.id() == space.id() => Ok(()),
        Some(own) => Err(Failure::new(format!(
            "the vectors in {} lie in the space {own}, and those of the model in {space}: they cannot be compared. Name the \
             model that made them, with the same options",
            file.name()
        ))),
        None => {
            // A failed warning does not change the exit status.
            let _ = writeln!(
                io::stderr().lock(),
                "warning: there is no {}.space, so nothing shows whether these vectors are this model's",
                file.name()
            );
            Ok(())
        }
    }
}

fn print_table(nearest: &[Scored<String>]) -> Result<(), Failure> {
    let mut report = Report::new(io::stdout().lock());
    let chars = if io::stdout().is_terminal() { SHOWN_CHARS } else { usize::MAX };
    let width = nearest.iter().map(|scored| scored.place.to_string().len()).max().unwrap_or(0);
    for Scored { score, place, row } in nearest {
        let text: String = without_controls(row).chars().take(chars).collect();
        report.text(format!("{score:6.3}  {place:>width$}  {text}").trim_end())?;
    }
    Ok(())
}

/// Returns what a row is about: its field `text`, else its longest string.
fn text_of(object: &str) -> Option<String> {
    let fields = Fields::of(object).ok()?;
    let is_string = |value: &&RawValue| value.get().starts_with('"');
    let longest = || fields.iter().map(|field| field.value).filter(is_string).max_by_key(|value| value.get().len());
    let text = fields.get("text").filter(is_string).or_else(longest)?;
    serde_json::from_str(text.get()).ok()
}

/// Prints rows as JSON lines.
fn print_json(nearest: &[Scored<String>]) -> Result<(), Failure> {
    let mut report = Report::new(io::stdout().lock());
    nearest.iter().try_for_each(|scored| report.text(json_of(scored)))
}

/// Returns a row as JSON. The fields of its object are in a place of their own, whatever their names are.
fn json_of(Scored { score, place, row }: &Scored<String>) -> String {
    let object = if row.is_empty() { String::new() } else { format!(",\"object\":{row}") };
    format!("{{\"score\":{score},\"row\":{place}{object}}}")
}

/// Returns an object without its vector, with all else as it was written.
fn without_vector(object: &str) -> String {
    let Ok(fields) = Fields::of(object) else { return "{}".to_owned() };
    let others = fields.iter().filter(|field| field.name != "embedding");
    let others: Vec<String> = others.map(|field| format!("{}:{}", field.written_name, field.value)).collect();
    format!("{{{}}}", others.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_shown_without_its_vector() {
        let object = "{\"id\":1e400,\"text\":\"a \\\"b\\\"\",\"embedding\":[1.0],\"score\":7}\n";
        let row = without_vector(object);
        assert_eq!(row, "{\"id\":1e400,\"text\":\"a \\\"b\\\"\",\"score\":7}");
        let scored = Scored { score: 0.25, place: 3, row };
        assert_eq!(
            json_of(&scored),
            "{\"score\":0.25,\"row\":3,\"object\":{\"id\":1e400,\"text\":\"a \\\"b\\\"\",\"score\":7}}"
        );
        assert_eq!(json_of(&Scored { score: -1.0, place: 1, row: String::new() }), "{\"score\":-1,\"row\":1}");
    }

    #[test]
    fn a_row_is_about_its_text() {
        assert_eq!(text_of("{\"title\":\"longer\",\"text\":\"a\"}").as_deref(), Some("a"));
        assert_eq!(text_of("{\"id\":\"1\",\"body\":\"a body\",\"embedding\":[1.0,2.0]}").as_deref(), Some("a body"));
        assert_eq!(text_of("{\"text\":7}"), None);
    }
}
