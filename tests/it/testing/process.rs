//! The simulator in a process of its own, which outlives those that use it.

use std::{path::Path, sync::mpsc, thread, time::Duration};

use docvector_embed::testing::Simulator;
use serde_json::json;

use super::{client::Client, lines};
use crate::support::processes::{Running, alone, inner};

#[test]
fn it_can_run_in_a_process_of_its_own() {
    if let Some(words) = inner() {
        // A process that is killed leaves its folder, so it lies in one that the test removes.
        tempfile::env::override_temp_dir(Path::new(&words[0])).expect("nobody chose another");
        let simulator = Simulator::start().expect("starts");
        // The test's name stands on the line before.
        println!("\naddress {}", simulator.address());
        // Longer than any run of the tests, and not for ever: nobody may be left to kill it.
        thread::sleep(Duration::from_secs(1800));
        return;
    }
    let (send, told) = mpsc::channel();
    let folder = tempfile::tempdir().expect("a folder");
    let words = [folder.path().to_str().expect("UTF-8")];
    let mut process = Running::start(alone(module_path!(), "it_can_run_in_a_process_of_its_own"), &words, 0, send);
    let next = || told.recv_timeout(Duration::from_secs(60)).expect("it tells").1;
    let line = std::iter::repeat_with(next).find(|line| line.starts_with("address ")).expect("no end");
    let client = Client::new(line["address ".len()..].parse().expect("an address"));
    let id = client.submit(&lines(2));
    client.post("/_simulator/advance", &json!({"seconds": 3600}));
    assert_eq!(client.status(&id), "completed");
    process.kill();
    assert!(client.try_get("/v1/files").is_err());
    let left = folder.path().read_dir().expect("it is there").count();
    assert_eq!(left, 1, "what the killed process left is removed with the test's folder");
}
