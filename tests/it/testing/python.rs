//! OpenAI's own client, from its Python package, which nobody here wrote: it and its types judge the simulator.

use std::{env, path::PathBuf, process::Command};

use docvector_embed::testing::Simulator;

use crate::support::root;

#[test]
fn openais_own_client_drives_all_routes() {
    let simulator = Simulator::start().expect("starts");
    let script = root().join("tests/it/testing/openai_client.py");
    let mut command = Command::new(python());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OPENAI_")) {
        command.env_remove(name);
    }
    // Without this, the client would use a proxy for loopback too.
    command.env("NO_PROXY", "*").env("no_proxy", "*").arg(script).arg(simulator.base_url());
    let run = command.output().expect("Python starts");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    println!("{said}");
    let counts = simulator.counts();
    assert_eq!((counts.creates, counts.cancels, counts.faults), (8, 1, 0));
}

/// Returns the path of a Python that has the package.
fn python() -> PathBuf {
    let python = env::var_os("DOCVECTOR_EMBED_OPENAI_PYTHON")
        .map_or_else(|| root().join("target/tools/bin/python"), PathBuf::from);
    assert!(python.is_file(), "{} is missing: run scripts/fetch-tools", python.display());
    python
}
