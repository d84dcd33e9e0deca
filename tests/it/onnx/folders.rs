//! Folders that are broken in every way give an error that says what and where, and never a wrong vector.

use std::{fs, path::Path};

use docvector_embed::{EmbedderExt, ErrorKind, provider::Onnx};
use serde_json::{Value, json};

use crate::support::{golden, json as read_json, minilm};

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    walk(from, to, &|from, to| {
        fs::copy(from, to).expect("copied");
    });
}

/// Makes a folder of links to the files of another. To change a file, remove it first.
pub(crate) fn copy_linked(from: &Path, to: &Path) {
    walk(from, to, &|from, to| {
        if fs::hard_link(from, to).is_err() {
            fs::copy(from, to).expect("copied");
        }
    });
}

fn walk(from: &Path, to: &Path, file: &dyn Fn(&Path, &Path)) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry").path();
        let target = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() { walk(&entry, &target, file) } else { file(&entry, &target) }
    }
}

pub(super) fn edit(folder: &Path, file: &str, change: &dyn Fn(&mut Value)) {
    let file = folder.join(file);
    let mut value = read_json(&file);
    change(&mut value);
    fs::write(&file, value.to_string()).expect("written");
}

/// Loads a copy of a tiny model after a change; gives the error's text with its causes.
pub(super) fn refused(model: &str, change: &dyn Fn(&Path)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&golden("tiny").join(model), folder.path());
    change(folder.path());
    let error = match Onnx::load(folder.path()) {
        Ok(_) => panic!("{model} loads in spite of the change"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text.replace(&folder.path().display().to_string(), "DIR")
}

pub(super) fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_folder_that_is_not_there() {
    let error = Onnx::load("no/such/folder").expect_err("nothing there");
    assert_says(&error.to_string(), &["no/such/folder does not exist"]);
    let error = Onnx::load(golden("README.md")).expect_err("a file");
    assert_says(&error.to_string(), &["README.md is not a folder"]);
}

/// The folder that a hub's cache keeps a repository in is not the model's.
#[test]
fn a_folder_that_is_no_model_says_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = || Onnx::load(folder.path()).expect_err("no model").to_string();
    assert_says(&refused(), &["is no folder of a model", "model.safetensors", "tokenizer.json", "it is empty"]);
    for name in ["blobs", "refs", "snapshots"] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    assert_says(&refused(), &["it has 3 entries: blobs/, refs/, snapshots/", "a folder below snapshots"]);
}

/// Weights of a family that is not known here, beside an `.onnx` file.
#[tokio::test]
async fn a_file_is_taken_in_place_of_weights_that_cannot_be_loaded() {
    for (field, value) in [("model_type", "nomic_bert"), ("position_embedding_type", "alibi")] {
        let folder = tempfile::tempdir().expect("a folder");
        copy_linked(&crate::support::minilm_int8(), folder.path());
        fs::copy(golden("tiny/bert-cls/model.safetensors"), folder.path().join("model.safetensors")).expect("copied");
        fs::create_dir(folder.path().join("onnx")).expect("a folder");
        fs::rename(folder.path().join("model.onnx"), folder.path().join("onnx/model.onnx")).expect("moved");
        let mut config = read_json(&folder.path().join("config.json"));
        config[field] = json!(value);
        fs::remove_file(folder.path().join("config.json")).expect("removed");
        fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
        let embedder = Onnx::load(folder.path()).expect("loads");
        assert_eq!(embedder.info().model, folder.path().join("onnx/model.onnx"));
        assert!(!embedder.info().built_graph);
        embedder.embed_query("a text").await.expect("embeds");
        let error = Onnx::builder(folder.path()).with_file("model.safetensors").build().expect_err("not known");
        assert_says(&error.to_string(), &["model.safetensors: weights", value, "onnx/model.onnx is there"]);
        // There is no table of positions if they are computed.
        let longer = Onnx::builder(folder.path()).with_max_tokens(600).build();
        assert_eq!(longer.is_ok(), field == "position_embedding_type", "{longer:?}");
    }
}

#[test]
fn weights_that_are_missing_cut_or_something_else() {
    let weights = |folder: &Path| folder.join("model.safetensors");
    let text = refused("bert-cls", &|folder| fs::remove_file(weights(folder)).expect("removed"));
    assert_says(&text, &["DIR has neither model.safetensors nor model.onnx", "it has 12 entries: 1_Pooling/, "]);
    let text = refused("bert-cls", &|folder| {
        fs::create_dir_all(folder.join("onnx")).expect("a folder");
        fs::rename(weights(folder), folder.join("onnx/model_quantized.onnx")).expect("renamed");
    });
    assert_says(&text, &["with_file (--file) onnx/model_quantized.onnx"]);
    let full = fs::read(weights(&golden("tiny/bert-cls"))).expect("read");
    for (length, parts) in [
        (0, ["DIR/model.safetensors is cut short", "(0 bytes)"]),
        (7, ["DIR/model.safetensors is cut short", "(7 bytes)"]),
        (100, ["DIR/model.safetensors is cut short in its header", "(100 bytes)"]),
        (full.len() - 1, ["DIR/model.safetensors has", "bytes of data, its header says"]),
    ] {
        let text = refused("bert-cls", &|folder| fs::write(weights(folder), &full[..length]).expect("written"));
        assert_says(&text, &parts);
    }
    let text = refused("bert-cls", &|folder| fs::write(weights(folder), [b'x'; 5000]).expect("written"));
    assert_says(&text, &["DIR/model.safetensors is not a safetensors file"]);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5000\n";
    let text = refused("bert-cls", &|folder| fs::write(weights(folder), pointer).expect("written"));
    assert_says(&text, &["DIR/model.safetensors is a pointer of Git LFS", "git lfs pull"]);
    let text = refused("bert-cls", &|folder| {
        let mut bytes = full.clone();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        // The last tensor may be one that is not used, so all tensors are made NaN.
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize + 8;
        bytes[header..].chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&f32::NAN.to_le_bytes()));
        fs::write(weights(folder), bytes).expect("written");
    });
    assert_says(&text, &["DIR/model.safetensors tensor", "has NaN"]);
    let text = refused("bert-cls", &|folder| {
        fs::copy(golden("tiny/distilbert/model.safetensors"), weights(folder)).expect("copied");
    });
    assert_says(&text, &["DIR/model.safetensors", "tensor"]);
    let text = refused("bert-cls", &|folder| {
        fs::remove_file(weights(folder)).expect("removed");
        fs::write(folder.join("pytorch_model.bin"), "").expect("written");
    });
    assert_says(&text, &["pytorch_model.bin", "convert it"]);
}

#[test]
fn configurations_that_make_no_sense() {
    let set = |file: &'static str, field: &'static str, value: Value| {
        refused("bert-cls", &move |folder| edit(folder, file, &|json| json[field] = value.clone()))
    };
    for (text, parts) in [
        (set("config.json", "model_type", json!("gpt9")), ["DIR/config.json", "model_type is gpt9"]),
        (set("config.json", "model_type", Value::Null), ["DIR/config.json", "has no field model_type"]),
        (set("config.json", "hidden_act", json!("sine")), ["DIR/config.json", "hidden_act sine is not known"]),
        (set("config.json", "hidden_size", json!("x")), ["DIR/config.json", "hidden_size is not a number"]),
        (set("config.json", "hidden_size", json!(-1)), ["DIR/config.json", "hidden_size is -1"]),
        (set("config.json", "hidden_size", json!(17)), ["DIR/config.json", "attention heads do not divide 17"]),
        (set("config.json", "num_hidden_layers", json!(3)), ["DIR/model.safetensors", "no tensor encoder.layer.2"]),
        (set("config.json", "vocab_size", json!(9)), ["DIR/model.safetensors", "word_embeddings"]),
        (set("config.json", "position_embedding_type", json!("relative_key")), ["DIR/config.json", "relative_key"]),
        (set("1_Pooling/config.json", "pooling_mode", json!("median")), ["1_Pooling/config.json", "median"]),
        (set("1_Pooling/config.json", "pooling_mode", json!(["cls", "cls"])), ["1_Pooling/config.json", "twice"]),
        (
            set("config_sentence_transformers.json", "model_type", json!("SparseEncoder")),
            ["config_sentence", "SparseEncoder"],
        ),
        (
            set("config_sentence_transformers.json", "prompts", json!(["x"])),
            ["config_sentence", "prompts is not an object"],
        ),
        (
            set("config_sentence_transformers.json", "prompts", json!({"query": 5})),
            ["config_sentence", "prompts.query is not a string"],
        ),
        (set("config_sentence_transformers.json", "truncate_dim", json!(17)), ["16 dimensions", "truncated to 17"]),
        (
            set("config_sentence_transformers.json", "default_prompt_name", json!("none")),
            ["config_sentence", "default_prompt_name is none"],
        ),
        (set("config.json", "is_decoder", json!(true)), ["DIR/config.json", "is_decoder is true"]),
        (
            set("sentence_bert_config.json", "query_length", json!(8)),
            ["sentence_bert_config.json", "query_length is 8"],
        ),
        (
            set("sentence_bert_config.json", "transformer_task", json!("fill-mask")),
            ["sentence_bert_config.json", "fill-mask"],
        ),
        (
            set("sentence_bert_config.json", "processing_kwargs", json!({"text": {}})),
            ["sentence_bert_config.json", "processing_kwargs"],
        ),
        (
            set("2_Normalize/config.json", "module_input_name", json!("token_embeddings")),
            ["2_Normalize/config.json", "token_embeddings"],
        ),
        (set("sentence_bert_config.json", "max_seq_length", json!(2)), ["tokenizer.json", "leave no room"]),
    ] {
        assert_says(&text, &parts);
    }
    let text = refused("bert-cls", &|folder| fs::write(folder.join("config.json"), "{\n\"a\": }").expect("written"));
    assert_says(&text, &["DIR/config.json is not JSON: line 2"]);
    let text = refused("bert-cls", &|folder| fs::remove_file(folder.join("config.json")).expect("removed"));
    assert_says(&text, &["DIR is no folder of a model: it has no config.json", "it has 12 entries: 1_Pooling/, "]);
}

#[test]
fn modules_that_are_not_known() {
    let module = |index: usize, field: &'static str, value: &'static str| {
        refused("bert-dense", &move |folder| {
            edit(folder, "modules.json", &|json| json[index][field] = json!(value));
        })
    };
    assert_says(&module(2, "type", "my.own.Rotation"), &["DIR/modules.json module my.own.Rotation is not one of"]);
    assert_says(
        &module(0, "type", "sentence_transformers.models.CLIPModel"),
        &["DIR/modules.json module CLIPModel is not known"],
    );
    assert_says(&module(1, "path", "../elsewhere"), &["DIR/modules.json module path ../elsewhere leaves the folder"]);
    let text = refused("bert-dense", &|folder| fs::write(folder.join("modules.json"), "{}").expect("written"));
    assert_says(&text, &["DIR/modules.json is not a list of modules"]);
    let text = refused("bert-dense", &|folder| fs::write(folder.join("modules.json"), "[]").expect("written"));
    assert_says(&text, &["DIR/modules.json has no Transformer module"]);
    for (field, value, says) in [
        ("activation_function", json!("torch.nn.modules.activation.Hardtanh"), "Hardtanh is not known"),
        ("in_features", json!(99), "takes 99 components, but the module before it gives 16"),
        ("use_residual", json!(true), "use_residual"),
    ] {
        let text =
            refused("bert-dense", &|folder| edit(folder, "2_Dense/config.json", &|json| json[field] = value.clone()));
        assert_says(&text, &["2_Dense", says]);
    }
}

#[test]
fn tokenizers_that_do_not_fit() {
    let text = refused("bert-cls", &|folder| {
        fs::copy(minilm().join("tokenizer.json"), folder.join("tokenizer.json")).expect("copied");
    });
    assert_says(&text, &["DIR/tokenizer.json does not fit the model: its largest id is 30521"]);
    // sentence-transformers would take the one file's word, other loaders the other's.
    for (field, value) in [
        ("do_lower_case", json!(false)),
        ("strip_accents", json!(false)),
        ("tokenize_chinese_chars", json!(false)),
        ("cls_token", json!("[MASK]")),
        ("sep_token", json!({"content": "[PAD]"})),
    ] {
        let text = refused("bert-cls", &|folder| {
            edit(folder, "tokenizer_config.json", &|json| {
                json["tokenizer_class"] = json!("BertTokenizer");
                json[field] = value.clone();
            });
        });
        assert_says(&text, &["DIR/tokenizer_config.json says", field, "DIR/tokenizer.json", "make them agree"]);
    }
    let text = refused("bert-cls", &|folder| fs::write(folder.join("tokenizer.json"), "{}").expect("written"));
    assert_says(&text, &["DIR/tokenizer.json is not a tokenizer that is known here"]);
    let text = refused("bert-cls", &|folder| fs::write(folder.join("tokenizer.json"), "[").expect("written"));
    assert_says(&text, &["DIR/tokenizer.json is not JSON"]);
    let text = refused("bert-cls", &|folder| fs::remove_file(folder.join("tokenizer.json")).expect("removed"));
    assert_says(&text, &["DIR/tokenizer.json is not there"]);
}

/// The crate `tokenizers` panics on most of these.
#[test]
fn tokenizers_whose_parts_do_not_fit() {
    let with = |change: &dyn Fn(&mut Value)| refused("bert-cls", &|folder| edit(folder, "tokenizer.json", change));
    let template = json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {}, "single": [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[END]", "type_id": 0}},
    ]});
    let unknown = ["DIR/tokenizer.json names the token [END]", "special_tokens there lacks it"];
    assert_says(&with(&|json| json["post_processor"] = template.clone()), &unknown);
    let text = with(&|json| json["post_processor"] = json!({"type": "Sequence", "processors": [template]}));
    assert_says(&text, &unknown);
    let text = with(&|json| {
        let own = json["post_processor"].clone();
        json["post_processor"] = json!({"type": "Sequence", "processors": [own, own]});
    });
    assert_says(&text, &["DIR/tokenizer.json has two templates in its post-processor"]);
    let text = with(&|json| json["post_processor"]["single"][1] = json!({"Sequence": {"id": "B", "type_id": 0}}));
    assert_says(&text, &["DIR/tokenizer.json has a second text (B)"]);
    for kind in ["BertProcessing", "RobertaProcessing"] {
        let text = with(&|json| {
            json["post_processor"] = json!({"type": kind, "sep": ["[SEP]", 9000], "cls": ["[CLS]", 2],
                "trim_offsets": false, "add_prefix_space": false});
        });
        assert_says(&text, &["DIR/tokenizer.json does not fit the model", "9000", "for ids up to"]);
    }
    let text = refused("bert-cls", &|folder| edit(folder, "config.json", &|json| json["pad_token_id"] = json!(9000)));
    assert_says(&text, &["DIR/config.json", "pad_token_id is 9000"]);
    let text = with(&|json| {
        json["added_tokens"] = json!([]);
        json["model"]["vocab"] = json!({});
    });
    assert_says(&text, &["DIR/tokenizer.json"]);
    // Nothing that is looked for here.
    let text = with(&|json| json["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0}));
    assert_says(&text, &["DIR/tokenizer.json makes the tokenizer's library panic"]);
}

#[test]
fn onnx_files_that_are_not_models() {
    let with_file = |bytes: &[u8]| {
        refused("bert-cls", &|folder| {
            fs::remove_file(folder.join("model.safetensors")).expect("removed");
            fs::write(folder.join("model.onnx"), bytes).expect("written");
        })
    };
    assert_says(&with_file(b""), &["DIR/model.onnx is cut short or is not an ONNX model"]);
    assert_says(&with_file(b"not a model"), &["DIR/model.onnx is cut short or is not an ONNX model"]);
    let whole = fs::read(crate::support::minilm_int8().join("model.onnx")).expect("read");
    assert_says(&with_file(&whole[..whole.len() / 2]), &["DIR/model.onnx is cut short or is not an ONNX model"]);
    assert_says(&with_file(b"\x3a\x00"), &["DIR/model.onnx"]);
    let error = Onnx::builder(golden("tiny/bert-cls")).with_file("other.onnx").build().expect_err("not there");
    assert_says(&error.to_string(), &["other.onnx does not exist"]);
}

#[test]
fn options_that_make_no_sense() {
    let builder = || Onnx::builder(golden("tiny/bert-cls"));
    for (builder, says) in [
        (builder().with_threads(0), "at least 1"),
        (builder().with_batch_tokens(0), "at least 1"),
        (builder().with_threads(5_000_000), "5000000 threads are too many for this machine: set 1 to "),
        (
            builder().with_max_tokens(41),
            "with_max_tokens (--max-tokens) is 41, but the model has positions for 40 tokens: set at most 40",
        ),
        (builder().with_truncate_dim(0), "truncated to 0: set 1 to 16"),
        (
            builder().with_prompts(docvector_embed::Prompts::new("word ".repeat(50), "")),
            "the prompt for a document has",
        ),
    ] {
        assert_says(&builder.build().expect_err("makes no sense").to_string(), &[says]);
    }
}

/// A configured length beyond the positions of the model is lowered to these.
#[tokio::test]
async fn a_length_beyond_the_positions_is_lowered() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&golden("tiny/bert-cls"), folder.path());
    edit(folder.path(), "sentence_bert_config.json", &|json| json["max_seq_length"] = json!(4000));
    let embedder = Onnx::load(folder.path()).expect("loads");
    assert_eq!(embedder.info().max_tokens, Some(40));
    let error = embedder.embed_documents(&["a ".repeat(100)]).await.expect_err("too long");
    assert_eq!(error.bad_texts().len(), 1);
}
