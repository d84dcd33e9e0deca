//! Lists the models that were trained with prompts, by exact name: what `build` advises if the caller says nothing.

use super::model_name;

/// Models that were trained with the same prompts, `""` for none.
pub(super) struct Family {
    /// The last part of each model's name, in lower case, without tag and quantization.
    names: &'static [&'static str],
    pub(super) document: &'static str,
    pub(super) query: &'static str,
    /// Whether the query's prompt is an instruction, whose words are the caller's to choose.
    pub(super) is_instructed: bool,
}

/// A retrieval instruction for English queries, shared by several families.
const SEARCHING: &str = "Represent this sentence for searching relevant passages: ";

/// The usual form of an instruction. The caller puts in what the search is for.
const INSTRUCTION: &str = "Instruct: <what the search is for>\nQuery: ";

/// The families. Each comment names the repository whose page states the prompts.
///
/// A model whose page asks for no prompt is not listed: gte-small, gte-base, gte-large and their v1.5, bge-m3,
/// all-MiniLM-L6-v2.
static FAMILIES: [Family; 11] = [
    // intfloat/e5-base-v2, intfloat/e5-base, intfloat/e5-base-unsupervised, and their sisters; both prompts are needed.
    plain(
        &[
            "e5-small",
            "e5-base",
            "e5-large",
            "e5-small-v2",
            "e5-base-v2",
            "e5-large-v2",
            "e5-small-unsupervised",
            "e5-base-unsupervised",
            "e5-large-unsupervised",
            "multilingual-e5-small",
            "multilingual-e5-base",
            "multilingual-e5-large",
        ],
        "passage: ",
        "query: ",
    ),
    // intfloat/multilingual-e5-large-instruct, intfloat/e5-mistral-7b-instruct, Alibaba-NLP/gte-Qwen2-7B-instruct: an
    // instruction before queries, nothing before documents.
    instructed(
        &[
            "multilingual-e5-large-instruct",
            "e5-mistral-7b-instruct",
            "gte-qwen1.5-7b-instruct",
            "gte-qwen2-1.5b-instruct",
            "gte-qwen2-7b-instruct",
        ],
        INSTRUCTION,
    ),
    // Qwen/Qwen3-Embedding-0.6B: the same, without a space at the end.
    instructed(
        &["qwen3-embedding", "qwen3-embedding-0.6b", "qwen3-embedding-4b", "qwen3-embedding-8b"],
        "Instruct: <what the search is for>\nQuery:",
    ),
    // BAAI/bge-base-en, BAAI/bge-base-en-v1.5 (v1.5 loses less without it). Ollama's bge-large is bge-large-en-v1.5.
    plain(
        &[
            "bge-small-en",
            "bge-base-en",
            "bge-large-en",
            "bge-small-en-v1.5",
            "bge-base-en-v1.5",
            "bge-large-en-v1.5",
            "bge-large",
        ],
        "",
        SEARCHING,
    ),
    // BAAI/bge-base-zh, BAAI/bge-base-zh-v1.5.
    plain(
        &["bge-small-zh", "bge-base-zh", "bge-large-zh", "bge-small-zh-v1.5", "bge-base-zh-v1.5", "bge-large-zh-v1.5"],
        "",
        "为这个句子生成表示以用于检索相关文章：",
    ),
    // Snowflake/snowflake-arctic-embed-m and its sisters, and -m-v1.5. Ollama's name has the size in its tag.
    plain(
        &[
            "snowflake-arctic-embed",
            "snowflake-arctic-embed-xs",
            "snowflake-arctic-embed-s",
            "snowflake-arctic-embed-m",
            "snowflake-arctic-embed-m-long",
            "snowflake-arctic-embed-l",
            "snowflake-arctic-embed-m-v1.5",
        ],
        "",
        SEARCHING,
    ),
    // Snowflake/snowflake-arctic-embed-m-v2.0, Snowflake/snowflake-arctic-embed-l-v2.0.
    plain(
        &["snowflake-arctic-embed2", "snowflake-arctic-embed-m-v2.0", "snowflake-arctic-embed-l-v2.0"],
        "",
        "query: ",
    ),
    // nomic-ai/nomic-embed-text-v1, nomic-ai/nomic-embed-text-v1.5, nomic-ai/nomic-embed-text-v2-moe.
    plain(
        &["nomic-embed-text", "nomic-embed-text-v1", "nomic-embed-text-v1.5", "nomic-embed-text-v2-moe"],
        "search_document: ",
        "search_query: ",
    ),
    // nomic-ai/modernbert-embed-base.
    plain(&["modernbert-embed-base"], "search_document: ", "search_query: "),
    // mixedbread-ai/mxbai-embed-large-v1, mixedbread-ai/mxbai-embed-2d-large-v1.
    plain(&["mxbai-embed-large", "mxbai-embed-large-v1", "mxbai-embed-2d-large-v1"], "", SEARCHING),
    // google/embeddinggemma-300m.
    plain(&["embeddinggemma", "embeddinggemma-300m"], "title: none | text: ", "task: search result | query: "),
];

const fn plain(names: &'static [&'static str], document: &'static str, query: &'static str) -> Family {
    Family { names, document, query, is_instructed: false }
}

const fn instructed(names: &'static [&'static str], query: &'static str) -> Family {
    Family { names, document: "", query, is_instructed: true }
}

/// Returns the prompts that the model of this name was trained with; `None` if it is not known to need any.
///
/// Publishers (`intfloat/`), tags (`:latest`) and quantizations (`-Q8_0.gguf`) are no part of the name.
pub(super) fn usual_prompts(model: &str) -> Option<&'static Family> {
    let model = model.to_ascii_lowercase();
    let name = model_name::bare(&model);
    FAMILIES.iter().find(|family| family.names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the usual prompts before documents and queries, `""` for none.
    fn usual(model: &str) -> Option<(String, String)> {
        usual_prompts(model).map(|usual| (usual.document.into(), usual.query.into()))
    }

    #[test]
    fn each_name_has_the_prompts_of_its_model() {
        let instruct = "Instruct: <what the search is for>\nQuery: ";
        let searching = "Represent this sentence for searching relevant passages: ";
        let table = [
            ("intfloat/e5-small-v2", "passage: ", "query: "),
            ("intfloat/e5-base", "passage: ", "query: "),
            ("e5-large-unsupervised", "passage: ", "query: "),
            ("intfloat/multilingual-e5-large", "passage: ", "query: "),
            ("intfloat/multilingual-e5-large-instruct", "", instruct),
            ("intfloat/e5-mistral-7b-instruct", "", instruct),
            ("Alibaba-NLP/gte-Qwen2-7B-instruct", "", instruct),
            ("Qwen/Qwen3-Embedding-0.6B", "", "Instruct: <what the search is for>\nQuery:"),
            ("BAAI/bge-base-en-v1.5", "", searching),
            ("BAAI/bge-small-en", "", searching),
            ("@cf/baai/bge-large-en-v1.5", "", searching),
            ("BAAI/bge-large-zh-v1.5", "", "为这个句子生成表示以用于检索相关文章："),
            ("Snowflake/snowflake-arctic-embed-m-long", "", searching),
            ("Snowflake/snowflake-arctic-embed-xs", "", searching),
            ("Snowflake/snowflake-arctic-embed-m-v1.5", "", searching),
            ("Snowflake/snowflake-arctic-embed-l-v2.0", "", "query: "),
            ("Snowflake/snowflake-arctic-embed-m-v2.0", "", "query: "),
            ("nomic-ai/nomic-embed-text-v1", "search_document: ", "search_query: "),
            ("nomic-ai/nomic-embed-text-v1.5", "search_document: ", "search_query: "),
            ("mixedbread-ai/mxbai-embed-large-v1", "", searching),
            ("google/embeddinggemma-300m", "title: none | text: ", "task: search result | query: "),
        ];
        for (model, document, query) in table {
            assert_eq!(usual(model), Some((document.into(), query.into())), "{model}");
        }
        for (model, is_instructed) in [("e5-mistral-7b-instruct", true), ("qwen3-embedding", true), ("e5-base", false)]
        {
            assert_eq!(usual_prompts(model).map(|usual| usual.is_instructed), Some(is_instructed), "{model}");
        }
    }

    #[test]
    fn tags_and_quantizations_are_no_part_of_the_name() {
        for (served, model) in [
            ("nomic-embed-text", "nomic-embed-text-v1.5"),
            ("nomic-embed-text:latest", "nomic-embed-text-v1.5"),
            ("nomic-embed-text:137m-v1.5-fp16", "nomic-embed-text-v1.5"),
            ("hf.co/nomic-ai/nomic-embed-text-v1.5-GGUF:Q4_K_M", "nomic-embed-text-v1.5"),
            ("nomic-embed-text-v1.5.Q4_K_M.gguf", "nomic-embed-text-v1.5"),
            ("/models/nomic-embed-text-v1.5.f16.gguf", "nomic-embed-text-v1.5"),
            ("C:\\models\\nomic-embed-text-v1.5.IQ3_XS.gguf", "nomic-embed-text-v1.5"),
            ("text-embedding-nomic-embed-text-v1.5@q8_0", "nomic-embed-text-v1.5"),
            ("mxbai-embed-large:335m", "mxbai-embed-large-v1"),
            ("snowflake-arctic-embed:22m", "snowflake-arctic-embed-xs"),
            ("snowflake-arctic-embed2:568m", "snowflake-arctic-embed-l-v2.0"),
            ("qwen3-embedding:8b-q4_K_M", "Qwen3-Embedding-8B"),
            ("embeddinggemma-300m-qat-q8_0-unquantized", "embeddinggemma"),
            ("multilingual-e5-large-instruct-q8_0.gguf", "multilingual-e5-large-instruct"),
            ("bge-large:latest", "bge-large-en-v1.5"),
        ] {
            assert!(usual(model).is_some(), "{model}");
            assert_eq!(usual(served), usual(model), "{served}");
        }
    }

    /// A part of a name says nothing: other models are called alike.
    #[test]
    fn other_models_have_no_usual_prompts() {
        for model in [
            "code5-x",
            "acme-e5-like",
            "my-e5-base-v2",
            "e5-base-v2-finetuned",
            "nvidia/nv-embedqa-e5-v5",
            "multilingual-e5-huge",
            "BAAI/bge-m3",
            "bge-base-en-v2",
            "Alibaba-NLP/gte-large-en-v1.5",
            "thenlper/gte-base",
            "snowflake-arctic-embed-l-v3.0",
            "nomic-embed-text-v3",
            "nomic-embed-code",
            "all-minilm:latest",
            "text-embedding-3-small",
            "text-embedding-ada-002",
            "e5-base-v2/other",
            "",
            "/",
            ":latest",
            "-q8_0",
            "gguf",
        ] {
            assert_eq!(usual(model), None, "{model}");
        }
    }

    #[test]
    fn no_name_stands_in_two_families() {
        let mut names: Vec<&str> = FAMILIES.iter().flat_map(|family| family.names).copied().collect();
        names
            .iter()
            .for_each(|name| assert_eq!(model_name::bare(&name.to_ascii_lowercase()), *name, "is found by its name"));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
