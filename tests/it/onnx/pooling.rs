//! Pooling and normalization come from the caller, from `modules.json`, or from a table of known models: nothing is
//! guessed.

use std::{fs, path::Path};

use docvector_embed::{
    Embedder, EmbedderExt, Normalization, Pooling, SpaceId,
    provider::{Onnx, OnnxBuilder},
};
use serde_json::json;

use super::folders::{assert_says, copy, edit, refused};
use crate::support::golden;

/// Copies `bert-cls`, whose `modules.json` says cls and L2, without that file.
fn copy_bare(to: &Path) {
    copy(&golden("tiny/bert-cls"), to);
    fs::remove_file(to.join("modules.json")).expect("removed");
}

fn id(builder: OnnxBuilder) -> SpaceId {
    builder.build().expect("loads").spaces()[0].id()
}

fn own() -> OnnxBuilder {
    Onnx::builder(golden("tiny/bert-cls"))
}

#[test]
fn a_folder_that_does_not_say_how_it_pools_is_refused() {
    let text = refused("bert-cls", &|folder| fs::remove_file(folder.join("modules.json")).expect("removed"));
    let parts = ["DIR has no modules.json", "their mean", "--pooling", "--normalize", "OnnxBuilder::with_pooling"];
    assert_says(&text, &parts);
}

#[tokio::test]
async fn the_caller_can_say_how_a_folder_pools() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_bare(folder.path());
    let bare = || Onnx::builder(folder.path());
    let stated = bare().with_pooling([Pooling::Cls]).with_normalization(Normalization::L2).build().expect("loads");
    assert_eq!(stated.spaces()[0].id(), id(own()), "it is the model of the folder with modules.json");
    assert_eq!(stated.info().assumed, None);
    let rows = stated.embed_documents(&["the old bridge"]).await.expect("embeds");
    let want = own().build().expect("loads").embed_documents(&["the old bridge"]).await.expect("embeds");
    assert_eq!(rows.row(0), want.row(0));
    let several = bare().with_pooling([Pooling::Max, Pooling::Cls]).build().expect("loads");
    let space = &several.spaces()[0];
    assert_eq!((space.dimensions(), space.normalization()), (32, Normalization::None));
    assert_eq!(space.pooling(), [Pooling::Max, Pooling::Cls]);
}

/// What the caller says goes before `modules.json`, and makes the space of a folder that says the same.
#[test]
fn the_caller_goes_before_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&golden("tiny/bert-cls"), folder.path());
    edit(folder.path(), "1_Pooling/config.json", &|json| json["pooling_mode"] = json!("mean"));
    let mean = id(own().with_pooling([Pooling::Mean]));
    assert_eq!(mean, id(Onnx::builder(folder.path())));
    assert_ne!(mean, id(own()));
    edit(folder.path(), "modules.json", &|json| drop(json.as_array_mut().expect("a list").pop()));
    let unscaled = own().with_pooling([Pooling::Mean]).with_normalization(Normalization::None);
    assert_eq!(id(unscaled), id(Onnx::builder(folder.path())));
    // To state what the folder says changes nothing.
    assert_eq!(id(own().with_pooling([Pooling::Cls]).with_normalization(Normalization::L2)), id(own()));
    for (pooling, says) in [(vec![], "names no pooling"), (vec![Pooling::Cls; 2], "names cls twice")] {
        let error = own().with_pooling(pooling).build().expect_err("makes no sense");
        assert_says(&error.to_string(), &[says]);
    }
}

#[test]
fn a_known_model_is_known_by_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = |path: &str| {
        let root = folder.path().join(path);
        copy_bare(&root);
        root
    };
    for root in [named("bge-base-en-v1.5"), named("models--BAAI--bge-base-en-v1.5/snapshots/0a1b")] {
        let embedder = Onnx::load(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        assert_eq!(embedder.spaces()[0].id(), id(own()), "{}", root.display());
        let assumed = embedder.info().assumed.as_deref().expect("assumed");
        assert_says(assumed, &["pooling cls", "normalization l2", "no modules.json", "BAAI/bge-base-en-v1.5"]);
    }
    // What the caller says of one thing leaves the other one.
    let root = folder.path().join("bge-base-en-v1.5");
    let unscaled = id(Onnx::builder(&root).with_normalization(Normalization::None));
    assert_eq!(unscaled, id(own().with_normalization(Normalization::None)));
    let pooled = Onnx::builder(&root).with_pooling([Pooling::Cls]).build().expect("loads");
    assert_eq!(pooled.spaces()[0].id(), id(own()));
    assert_says(pooled.info().assumed.as_deref().expect("assumed"), &["normalization l2", "BAAI/bge-base-en-v1.5"]);
    let unknown = named("another").to_owned();
    let pooled = Onnx::builder(unknown).with_pooling([Pooling::Cls]).build().expect("loads");
    assert_says(pooled.info().assumed.as_deref().expect("assumed"), &["normalization none", "nothing states it"]);
}

/// A model that was made from a known one may pool in another way.
#[test]
fn the_model_that_another_was_made_from_is_only_a_hint() {
    for (known, says) in [
        ("BAAI/bge-base-en-v1.5", "pools cls and normalizes: state it with --pooling cls --normalize if that is right"),
        (
            "sentence-transformers/paraphrase-MiniLM-L6-v2",
            "pools mean and does not normalize: state it with --pooling mean if that is right",
        ),
    ] {
        let text = refused("bert-cls", &|folder| {
            fs::remove_file(folder.join("modules.json")).expect("removed");
            edit(folder, "config.json", &|json| json["_name_or_path"] = json!(known));
        });
        assert_says(
            &text,
            &["has no modules.json", &format!("config.json says that it was made from {known}, which"), says],
        );
    }
}
