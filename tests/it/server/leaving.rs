//! Clients that leave: their texts are withdrawn.

use docvector_embed::provider::{Fake, FakeOutcome};
use serde_json::json;

use super::{Running, running::until};

#[test]
fn a_client_that_hangs_up_withdraws_its_texts() {
    let fake = Fake::new(4);
    let running = Running::of(fake.clone());
    let client = running.client();
    let hold = fake.hold();
    let body = json!({"texts": ["a"]}).to_string();
    for close_half in [false, true] {
        let before = fake.calls().len();
        let mut connection = client.connect();
        connection.send(&client.head("POST", "/embed", body.len()), body.as_bytes()).expect("sent");
        until("the call begins", || fake.calls().len() == before + 1);
        if close_half {
            connection.half_close();
        } else {
            drop(connection);
        }
        until("the call is dropped", || fake.calls()[before].outcome == FakeOutcome::Dropped);
        until("nothing is under way", || running.server.requests_under_way() == 0);
    }
    drop(hold);
    client.is_served();
    let text = client.get("/metrics").text();
    assert!(text.contains("requests_total{dialect=\"native\",outcome=\"cancelled\"} 2"), "{text}");
    assert!(text.contains("queue_tokens{lane=\"bulk\"} 0"), "{text}");
}
