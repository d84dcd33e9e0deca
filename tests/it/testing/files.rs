//! The routes of files.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    time::Duration,
};

use docvector_embed::testing::Simulator;
use serde_json::json;

use super::{
    DAY,
    client::{Client, text},
    jsonl, lines, start,
};

const BATCH: &[(&str, &str)] = &[("purpose", "batch")];

#[test]
fn a_file_is_kept_byte_for_byte_until_it_is_deleted() {
    let (simulator, client) = start();
    let content = b"anything: a file is judged when a batch is made of it\n\n\r\n\0end".repeat(3000);
    let reply = client.try_upload("my input.jsonl", BATCH, &content).expect("an answer");
    let file = reply.json();
    let id = text(&file["id"]);
    assert!(id.starts_with("file-"));
    let now = simulator.unix_time();
    let wanted = json!({
        "id": id, "object": "file", "bytes": content.len(), "created_at": now, "expires_at": now + 30 * 24 * 3600,
        "filename": "my input.jsonl", "purpose": "batch", "status": "processed", "status_details": null,
    });
    assert_eq!(file, wanted);
    assert!(reply.header("x-request-id").is_some());
    assert_eq!(client.get_json(&format!("/v1/files/{id}")), wanted);
    assert_eq!(client.content(&json!(id)), content);

    let path = format!("/v1/files/{id}");
    let deleted = client.send("DELETE", &path, "", b"").expect("an answer").json();
    assert_eq!(deleted, json!({"id": id, "object": "file", "deleted": true}));
    for path in [path.clone(), format!("{path}/content")] {
        assert_eq!(client.get(&path).refusal().0, 404);
    }
    let counts = simulator.counts();
    assert_eq!((counts.uploads, counts.downloads, counts.deletes, counts.refused), (1, 1, 1, 2));
}

#[test]
fn files_are_listed_in_pages_from_either_end() {
    let (_simulator, client) = start();
    let mut ids: Vec<String> = (0..5).map(|i| client.upload(&jsonl(&lines(i)))).collect();
    let page = |query: &str| {
        let page = client.get_json(&format!("/v1/files?{query}"));
        let ids: Vec<String> = page["data"].as_array().expect("data").iter().map(|file| text(&file["id"])).collect();
        assert_eq!(page["first_id"].as_str(), ids.first().map(String::as_str));
        assert_eq!(page["last_id"].as_str(), ids.last().map(String::as_str));
        (ids, page["has_more"].as_bool().expect("has_more"))
    };
    assert_eq!(page("order=asc&limit=3"), (ids[..3].to_vec(), true));
    assert_eq!(page(&format!("order=asc&limit=3&after={}", ids[2])), (ids[3..].to_vec(), false));
    ids.reverse();
    assert_eq!(page("purpose=batch"), (ids.clone(), false));
    assert_eq!(page("purpose=batch_output"), (Vec::new(), false));
    assert_eq!(client.get("/v1/files?limit=0").refusal().0, 400);
    assert_eq!(client.get("/v1/files?after=file-unknown").refusal().0, 400);
}

#[test]
fn an_upload_that_is_not_acceptable_is_refused_after_it_was_read() {
    let simulator = Simulator::builder().with_max_file_bytes(1_000_000).start().expect("starts");
    let client = Client::new(simulator.address());
    let upload = |name: &str, fields: &[(&str, &str)], bytes: usize| {
        client.try_upload(name, fields, &vec![b'\n'; bytes]).expect("an answer").refusal().0
    };
    assert_eq!(upload("a.jsonl", &[], 10), 400);
    assert_eq!(upload("a.jsonl", &[("purpose", "fine-tune")], 10), 400);
    assert_eq!(upload("a.txt", BATCH, 10), 400);
    let (anchor, seconds) = ("expires_after[anchor]", "expires_after[seconds]");
    let expiries: [(&[(&str, &str)], &str); 4] = [
        (&[(seconds, "3600")], anchor),
        (&[(anchor, "last_active_at"), (seconds, "3600")], anchor),
        (&[(anchor, "created_at")], seconds),
        (&[(anchor, "created_at"), (seconds, "60")], seconds),
    ];
    for (expiry, param) in expiries {
        let reply = client.try_upload("a.jsonl", &[BATCH, expiry].concat(), b"").expect("an answer");
        assert_eq!((reply.refusal().0, &reply.json()["error"]["param"]), (400, &json!(param)), "{expiry:?}");
    }
    assert_eq!(upload("a.jsonl", BATCH, 8_000_000), 413);
    let no_form = client.send("POST", "/v1/files", "application/json", &vec![b' '; 1 << 20]);
    assert_eq!(no_form.expect("an answer").refusal().0, 400);
    let broken = client.send("POST", "/v1/files", "multipart/form-data; boundary=x", b"--x\r\nnothing");
    assert_eq!(broken.expect("an answer").refusal().0, 400);
    let counts = simulator.counts();
    assert_eq!((counts.uploads, counts.refused), (0, 10));
    assert_eq!(client.get_json("/v1/files")["data"], json!([]));
}

#[test]
fn the_key_and_the_path_are_checked() {
    let simulator = Simulator::builder().with_api_key("sk-right").start().expect("starts");
    let mut client = Client::new(simulator.address());
    assert_eq!(client.get("/v1/files").refusal(), (401, Some("invalid_api_key".to_owned())));
    client.key = "sk-right".to_owned();
    assert_eq!(client.get("/v1/files").status, 200);
    assert_eq!(client.get("/v1/other").refusal().0, 404);
    let any = start();
    assert_eq!(any.1.get("/v1/files").status, 200);
}

#[test]
fn files_expire_when_they_say() {
    let (simulator, client) = start();
    let fields = [("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")];
    let short = text(&client.try_upload("a.jsonl", &fields, b"").expect("an answer").json()["id"]);
    let usual = client.upload(b"");
    let status = |id: &str| client.get(&format!("/v1/files/{id}")).status;
    simulator.advance(Duration::from_secs(3599));
    assert_eq!((status(&short), status(&usual)), (200, 200));
    simulator.advance(Duration::from_secs(1));
    assert_eq!((status(&short), status(&usual)), (404, 200));
    simulator.advance(30 * DAY);
    assert_eq!(status(&usual), 404);
}

#[test]
fn an_upload_that_the_client_leaves_is_no_file() {
    let (simulator, client) = start();
    let mut stream = TcpStream::connect(simulator.address()).expect("connects");
    let head = "POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 1000000\r\n\
                Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; \
                name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{\"half\":";
    stream.write_all(head.as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Both).expect("closed");
    assert_eq!(client.get_json("/v1/files")["data"], json!([]));
    assert_eq!(simulator.counts().uploads, 0);
}
