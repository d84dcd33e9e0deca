//! A small HTTP client that sees what comes over the connection: [`Client`].

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An open connection.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    /// Returns the body as f32.
    pub(crate) fn floats(&self) -> Vec<f32> {
        floats(&self.body)
    }
}

/// Reads little-endian f32.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    let (fours, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty(), "{} bytes are no f32", bytes.len());
    fours.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// Reads a vector of JSON, as numbers or as base64.
pub(crate) fn vector(json: &Value) -> Vec<f32> {
    match json {
        Value::String(base64) => floats(&BASE64_STANDARD.decode(base64).expect("base64")),
        numbers => serde_json::from_value(numbers.clone()).expect("numbers"),
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    /// Returns a client that sends this header too.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().expect("connects")
    }

    fn try_connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Returns the head of a request with a body of this length.
    pub(crate) fn head(&self, method: &str, path: &str, length: usize) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    }

    /// Sends one request over a connection of its own.
    pub(crate) fn try_send(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Reply> {
        let mut connection = self.try_connect()?;
        connection.send(&self.head(method, path, body.len()), body)?;
        connection.reply()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    pub(crate) fn post_bytes(&self, path: &str, body: &[u8]) -> Reply {
        self.try_send("POST", path, body).expect("an answer")
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.try_send("GET", path, b"").expect("an answer")
    }

    /// Embeds these texts in our own dialect.
    pub(crate) fn embed(&self, texts: &[&str]) -> Reply {
        self.post("/embed", &json!({"texts": texts}))
    }

    /// Fails unless a usual request is served.
    pub(crate) fn is_served(&self) {
        let reply = self.embed(&["a usual text"]);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

impl Connection {
    pub(crate) fn send(&mut self, head: &str, body: &[u8]) -> io::Result<()> {
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)
    }

    /// Says that nothing more is sent.
    pub(crate) fn half_close(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).expect("open");
    }

    /// Reads one reply.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        if let Some(length) = reply.number("content-length") {
            reply.body = vec![0; length as usize];
            self.0.read_exact(&mut reply.body)?;
        } else if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
                let start = reply.body.len();
                reply.body.resize(start + size, 0);
                self.0.read_exact(&mut reply.body[start..])?;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        }
        Ok(reply)
    }

    /// Reads one reply; `None` if the connection is closed without a byte of it.
    #[cfg(feature = "cli")]
    pub(crate) fn reply_or_closed(&mut self) -> io::Result<Option<Reply>> {
        if self.0.fill_buf()?.is_empty() { Ok(None) } else { self.reply().map(Some) }
    }

    /// Reads what is left until the other side closes.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest)?;
        Ok(rest)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}
