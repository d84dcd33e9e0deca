//! A small HTTP client that sees what comes over the connection: [`Client`].

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::jsonl;

const BOUNDARY: &str = "boundary-of-the-test";

pub(crate) struct Client {
    address: SocketAddr,
    pub(crate) key: String,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Returns the status and the code of a refusal in OpenAI's form.
    pub(crate) fn refusal(&self) -> (u16, Option<String>) {
        let error = &self.json()["error"];
        assert!(error["message"].is_string() && error["type"].is_string() && error.get("param").is_some(), "{error}");
        (self.status, error["code"].as_str().map(str::to_owned))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, key: "sk-test".to_owned(), patience: Duration::from_secs(60) }
    }

    /// Sends one request. An answer that does not come whole is an error.
    pub(crate) fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> io::Result<Reply> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(self.patience))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.key,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        let end = reply.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8(reply[..end].to_vec()).map_err(io::Error::other)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let reply = Reply { status, head, body: reply[end + 4..].to_vec() };
        let wanted: Option<usize> = reply.header("content-length").and_then(|length| length.parse().ok());
        if wanted == Some(reply.body.len()) { Ok(reply) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    pub(crate) fn try_post(&self, path: &str, body: &Value) -> io::Result<Reply> {
        self.send("POST", path, "application/json", body.to_string().as_bytes())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.try_post(path, body).expect("an answer")
    }

    pub(crate) fn try_get(&self, path: &str) -> io::Result<Reply> {
        self.send("GET", path, "text/plain", b"")
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.try_get(path).expect("an answer")
    }

    pub(crate) fn get_json(&self, path: &str) -> Value {
        let reply = self.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", String::from_utf8_lossy(&reply.body));
        reply.json()
    }

    /// Uploads a file with these fields beside it.
    pub(crate) fn try_upload(&self, name: &str, fields: &[(&str, &str)], content: &[u8]) -> io::Result<Reply> {
        let mut body = Vec::new();
        for (field, value) in fields {
            let part = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        let part = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(part.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        self.send("POST", "/v1/files", &format!("multipart/form-data; boundary={BOUNDARY}"), &body)
    }

    /// Uploads an input file and returns its id.
    pub(crate) fn upload(&self, content: &[u8]) -> String {
        let reply = self.try_upload("input.jsonl", &[("purpose", "batch")], content).expect("an answer");
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        text(&reply.json()["id"])
    }

    /// Creates a batch of an uploaded file.
    pub(crate) fn try_create(&self, file: &str) -> io::Result<Reply> {
        let body = json!({
            "input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h",
            "metadata": {"job": "a job"},
        });
        self.try_post("/v1/batches", &body)
    }

    pub(crate) fn create(&self, file: &str) -> String {
        let reply = self.try_create(file).expect("an answer");
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        text(&reply.json()["id"])
    }

    /// Uploads these lines and creates a batch of them.
    pub(crate) fn submit(&self, lines: &[Value]) -> String {
        self.create(&self.upload(&jsonl(lines)))
    }

    pub(crate) fn batch(&self, id: &str) -> Value {
        self.get_json(&format!("/v1/batches/{id}"))
    }

    pub(crate) fn status(&self, id: &str) -> String {
        text(&self.batch(id)["status"])
    }

    pub(crate) fn content(&self, file: &Value) -> Vec<u8> {
        let id = text(file);
        let reply = self.get(&format!("/v1/files/{id}/content"));
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        let listed = self.get_json(&format!("/v1/files/{id}"))["bytes"].as_u64();
        assert_eq!(listed, Some(reply.body.len() as u64), "the size that the file says");
        reply.body
    }

    /// Returns the lines of a file of results.
    pub(crate) fn lines(&self, file: &Value) -> Vec<Value> {
        let content = String::from_utf8(self.content(file)).expect("UTF-8");
        content.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

/// Returns the ids of lines.
pub(crate) fn ids(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| text(&line["custom_id"])).collect()
}

/// Returns the vectors of an answer by their index.
pub(crate) fn vectors(body: &Value) -> Vec<Vec<f32>> {
    let data = body["data"].as_array().expect("data");
    let mut vectors = vec![Vec::new(); data.len()];
    for row in data {
        assert_eq!(row["object"], "embedding");
        let index = usize::try_from(row["index"].as_u64().expect("an index")).expect("small");
        vectors[index] = match &row["embedding"] {
            Value::String(text) => {
                let bytes = BASE64_STANDARD.decode(text).expect("base64");
                bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().expect("whole"))).collect()
            }
            numbers => serde_json::from_value(numbers.clone()).expect("numbers"),
        };
    }
    vectors
}
