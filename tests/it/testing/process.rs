//! The simulator in a process of its own, which outlives those that use it.

use std::{sync::mpsc, thread, time::Duration};

use docvector_embed::testing::Simulator;
use serde_json::json;

use super::{client::Client, lines};
use crate::support::processes::{Running, alone, inner};

#[test]
fn it_can_run_in_a_process_of_its_own() {
    if inner().is_some() {
        let simulator = Simulator::start().expect("starts");
        // The test's name stands on the line before.
        println!("\naddress {}", simulator.address());
        loop {
            thread::park();
        }
    }
    let (send, told) = mpsc::channel();
    let words = ["serve"];
    let mut process = Running::start(alone(module_path!(), "it_can_run_in_a_process_of_its_own"), &words, 0, send);
    let next = || told.recv_timeout(Duration::from_secs(60)).expect("it tells").1;
    let line = std::iter::repeat_with(next).find(|line| line.starts_with("address ")).expect("no end");
    let client = Client::new(line["address ".len()..].parse().expect("an address"));
    let id = client.submit(&lines(2));
    client.post("/_simulator/advance", &json!({"seconds": 3600}));
    assert_eq!(client.status(&id), "completed");
    process.kill();
    assert!(client.try_get("/v1/files").is_err());
}
