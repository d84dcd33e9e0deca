//! `docvector-embed doctor`, and the places where the library is searched for. A process searches once, so each case has
//! its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{program, run, stderr, stdout};
use crate::support::{assets, golden, minilm, minilm_int8};

fn doctor(change: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut command = program();
    command.arg("doctor");
    change(&mut command);
    run(&mut command, b"")
}

fn library() -> PathBuf {
    let files = fs::read_dir(assets().join("onnxruntime")).expect("fetched").flatten().map(|entry| entry.path());
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.contains("onnxruntime") && !name.contains("providers")
    };
    files.into_iter().find(is_library).expect("a library")
}

/// Asserts that a run failed with an error, and returns what it printed.
fn failed(output: &Output) -> String {
    let said = format!("{}{}", stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[test]
fn all_is_well() {
    let done = doctor(|command| command.arg("--model").arg(minilm()));
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    for part in ["1.32.0", "the asset folder", "built from the weights", "max tokens       256", "120 texts", "PASS"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let done = doctor(|command| command.arg("--model").arg(minilm_int8()));
    assert!(done.status.success() && stdout(&done).contains("PASS"), "{}", stdout(&done));
    let done = doctor(|command| command.arg("--model").arg(golden("tiny/bert-cls")));
    assert!(done.status.success() && stdout(&done).contains("none for this model"), "{}", stdout(&done));
}

#[test]
fn the_laws_are_checked_on_request() {
    let done = doctor(|command| command.arg("--model").arg(golden("tiny/bert-cls")).arg("--laws"));
    assert!(done.status.success() && stdout(&done).contains("laws               PASS"), "{}", stdout(&done));
    let done = doctor(|command| command.arg("--model").arg(golden("tiny/bert-cls")));
    assert!(done.status.success() && !stdout(&done).contains("laws"), "{}", stdout(&done));
}

#[test]
fn says_what_runs_where_and_in_which_precision() {
    let done = doctor(|command| command.arg("--model").arg(minilm()).args(["--precision", "int8"]));
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    for part in ["precision        int8", "device           cpu", " on CPUExecutionProvider", "PASS"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let said = failed(&doctor(|command| command.arg("--model").arg(minilm()).args(["--device", "cuda:1"])));
    assert!(said.contains("cuda:1 cannot be used"), "{said}");
    let done = doctor(|command| command.arg("--model").arg(minilm()).args(["--device", "gpu"]));
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("use cpu, cuda or cuda:N"), "{}", stderr(&done));
}

#[test]
fn wrong_vectors_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("all-MiniLM-L6-v2");
    crate::onnx::folders::copy_linked(&minilm(), &model);
    let pooling = model.join("1_Pooling/config.json");
    let changed = fs::read_to_string(&pooling)
        .expect("read")
        .replace("\"pooling_mode_mean_tokens\": true", "\"pooling_mode_max_tokens\": true");
    fs::remove_file(&pooling).expect("removed");
    fs::write(&pooling, changed.replacen("\"pooling_mode_max_tokens\": false,", "", 1)).expect("written");
    let said = failed(&doctor(|command| command.arg("--model").arg(&model)));
    assert!(said.contains("FAIL"), "{said}");
}

#[test]
fn stated_pooling_is_not_compared_with_the_reference() {
    for argument in ["--pooling=cls", "--normalize=none"] {
        let done = doctor(|command| command.arg("--model").arg(minilm()).arg(argument));
        let said = format!("{}{}", stdout(&done), stderr(&done));
        assert!(done.status.success(), "{said}");
        assert!(said.contains("left out: --pooling or --normalize asks for others"), "{said}");
    }
}

#[test]
fn the_library_is_found_in_each_place() {
    let nowhere = tempfile::tempdir().expect("a folder");
    let package = nowhere.path().join("site/onnxruntime");
    fs::create_dir_all(package.join("capi")).expect("a folder");
    fs::write(package.join("__init__.py"), "").expect("written");
    fs::copy(library(), package.join("capi").join(library().file_name().expect("a name"))).expect("copied");
    let site = nowhere.path().join("site");

    for (what, done) in [
        ("the path given", doctor(|command| command.arg("--library").arg(library()))),
        (
            "the path given",
            doctor(|command| {
                command.arg("--library").arg(assets().join("onnxruntime")).arg("--model").arg(golden("tiny/bert-cls"))
            }),
        ),
        ("ORT_DYLIB_PATH", doctor(|command| command.env("ORT_DYLIB_PATH", library()))),
        ("the asset folder", doctor(|command| command)),
        (
            "the Python package onnxruntime",
            doctor(|command| command.env("DOCVECTOR_EMBED_ASSETS", nowhere.path()).env("PYTHONPATH", &site)),
        ),
    ] {
        assert!(done.status.success(), "{what}: {}", stderr(&done));
        assert!(stdout(&done).contains(&format!("found through    {what}")), "{what}: {}", stdout(&done));
    }
}

/// Copies the program to a folder, as if it were installed there, and runs it without any named place.
fn moved(folder: &Path, model: &Path) -> Output {
    let program = folder.join("docvector-embed");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_docvector-embed"), &program).expect("copied");
    }
    let mut command = Command::new(&program);
    command.env_remove("ORT_DYLIB_PATH").env_remove("DOCVECTOR_EMBED_ASSETS").env_remove("CARGO_MANIFEST_DIR");
    // No Python, and so no package. No user either, who may have run `setup`.
    command.env("PATH", folder).env("HOME", folder).env_remove("XDG_DATA_HOME").env("DOCVECTOR_EMBED_TUNING", "");
    run(command.args(["embed", "--model"]).arg(model), b"a\n")
}

/// A model's folder comes from elsewhere: whoever made it must not be able to run code.
#[test]
fn a_library_beside_the_model_is_not_loaded() {
    let (elsewhere, models) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let model = models.path().join("model");
    crate::onnx::folders::copy_linked(&golden("tiny/bert-cls"), &model);
    for place in [models.path(), &model] {
        crate::onnx::folders::copy_linked(&assets().join("onnxruntime"), &place.join("onnxruntime"));
    }
    let said = failed(&moved(elsewhere.path(), &model));
    for part in ["no usable ONNX Runtime library", "no folder assets/onnxruntime near the program"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!said.contains(&models.path().display().to_string()), "{said}");
}

#[cfg(unix)]
#[test]
fn a_library_near_the_program_is_loaded_unless_others_may_change_it() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("assets");
    crate::onnx::folders::copy(&assets().join("onnxruntime"), &place.join("onnxruntime"));
    let set = |mode| fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("set");
    set(0o755);
    let done = moved(folder.path(), &golden("tiny/bert-cls"));
    assert!(done.status.success(), "{}", stderr(&done));
    set(0o777);
    let said = failed(&moved(folder.path(), &golden("tiny/bert-cls")));
    let place = fs::canonicalize(&place).expect("there");
    let why = format!("passed over, because others than its owner may write to {} (mode 777)", place.display());
    for part in [why.as_str(), "libonnxruntime", "chmod go-w", "DOCVECTOR_EMBED_ASSETS"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn a_library_that_is_nowhere_is_an_error_that_lists_the_places() {
    let nowhere = tempfile::tempdir().expect("a folder");
    let done = doctor(|command| command.env("DOCVECTOR_EMBED_ASSETS", nowhere.path()).env("PATH", nowhere.path()));
    let said = failed(&done);
    for part in [
        "no usable ONNX Runtime library (1.23 or newer)",
        "the asset folder",
        "no library there",
        "no Python found",
        "docvector-embed setup",
        "scripts/fetch-assets",
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(said.contains(&nowhere.path().display().to_string()), "{said}");
}

/// If the library that the user names is wrong, no other one is used.
#[test]
fn a_wrong_library_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("libtext.so");
    fs::write(&text, "not a library").expect("written");
    fs::create_dir(folder.path().join("empty")).expect("a folder");
    let old = built(folder.path(), "old", "1.9.0", false);
    let odd = built(folder.path(), "odd", "1.32.0", true);
    let hollow = built(folder.path(), "hollow", "1.32.0", false);
    let other = folder.path().join("libother.so");
    compile(&folder.path().join("other.c"), "int other(void) { return 1; }\n", &other);
    for (file, says) in [
        (folder.path().join("missing.so"), "no such file"),
        (folder.path().join("empty"), "no library there"),
        (text, "failed to load"),
        (other, "does not export `OrtGetApiBase`"),
        (old, "got '1.9.0'"),
        (odd, "is not a usable ONNX Runtime"),
        (hollow, "is not a usable ONNX Runtime"),
    ] {
        for said in [
            failed(&doctor(|command| command.env("ORT_DYLIB_PATH", &file))),
            failed(&doctor(|command| command.arg("--library").arg(&file))),
            failed(&run(program().env("ORT_DYLIB_PATH", &file).args(["embed", "--model"]).arg(minilm()), b"a\n")),
        ] {
            assert!(said.contains(says) && said.contains(&file.display().to_string()), "{says:?} is not in: {said}");
        }
    }
}

/// Compiles a library that claims to be a version of ONNX Runtime, but has no interface.
fn built(folder: &Path, name: &str, version: &str, gives_null: bool) -> PathBuf {
    let base = if gives_null { "0" } else { "&base" };
    let code = format!(
        "struct Base {{ const void *(*get_api)(unsigned); const char *(*version)(void); }};\n\
         static const void *get_api(unsigned n) {{ (void)n; return 0; }}\n\
         static const char *version(void) {{ return \"{version}\"; }}\n\
         static const struct Base base = {{ get_api, version }};\n\
         const struct Base *OrtGetApiBase(void) {{ return {base}; }}\n"
    );
    let library = folder.join(format!("lib{name}.so"));
    compile(&folder.join(format!("{name}.c")), &code, &library);
    library
}

fn compile(source: &Path, code: &str, library: &Path) {
    fs::write(source, code).expect("written");
    let done =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(source).output().expect("a C compiler");
    assert!(done.status.success(), "{}", stderr(&done));
}

/// A folder that does not say how its model pools: the command line says it, and a known name is told.
#[test]
fn pooling_is_stated_or_its_assumption_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let bare = |name: &str| {
        let root = folder.path().join(name);
        crate::onnx::folders::copy(&golden("tiny/bert-cls"), &root);
        fs::remove_file(root.join("modules.json")).expect("removed");
        root
    };
    let (ours, known) = (bare("ours"), bare("bge-base-en-v1.5"));
    let said = failed(&doctor(|command| command.arg("--model").arg(&ours)));
    assert!(said.contains("has no modules.json") && said.contains("--pooling"), "{said}");
    for (arguments, parts) in [
        (&["--pooling", "cls", "--normalize"][..], ["pooling          cls\n", "normalization    to length 1"]),
        (&["--pooling", "max,cls", "--normalize=none"], ["pooling          max + cls", "normalization    none"]),
    ] {
        let said = stdout(&doctor(|command| command.arg("--model").arg(&ours).args(arguments)));
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in:\n{said}");
        }
        assert!(!said.contains("assumed"), "{said}");
    }
    let said = stdout(&doctor(|command| command.arg("--model").arg(&known)));
    assert!(said.contains("assumed          pooling cls and normalization l2"), "{said}");
    let mut embed = program();
    let done = run(embed.args(["embed", "--quiet", "--model"]).arg(&known), b"a text\n");
    assert!(done.status.success() && stderr(&done).starts_with("warning: pooling cls"), "{}", stderr(&done));
    let done = doctor(|command| command.arg("--model").arg(&ours).args(["--pooling", "median"]));
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("lasttoken"), "{}", stderr(&done));
}
