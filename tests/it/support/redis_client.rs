//! Speaks to a Redis server without the code under test: [`command`].

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// A server, as far as this client needs to know it.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The user and the password.
    pub(crate) login: Option<(String, String)>,
    pub(crate) database: String,
}

impl Address {
    pub(crate) fn local(port: u16) -> Self {
        Self { host: "127.0.0.1".into(), port, login: None, database: "0".into() }
    }

    /// Reads `redis://[user:password@]host[:port][/database]`.
    pub(crate) fn of_url(url: &str) -> Self {
        let rest = url.strip_prefix("redis://").unwrap_or_else(|| panic!("not redis://HOST:PORT"));
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (place, database) = rest.split_once('/').unwrap_or((rest, "0"));
        let (host, port) = place.rsplit_once(':').unwrap_or((place, "6379"));
        let login = login.map(|login| login.split_once(':').expect("user:password"));
        Self {
            host: host.into(),
            port: port.parse().expect("a port"),
            login: login.map(|(user, password)| (user.into(), password.into())),
            database: if database.is_empty() { "0".into() } else { database.into() },
        }
    }
}

/// Sends one command on a connection of its own, and returns the reply as text: an array has one line per element, and
/// nothing is an empty text. An error of the server begins with a minus sign.
pub(crate) fn command(address: &Address, words: &[&str]) -> io::Result<String> {
    let mut connection = BufReader::new(TcpStream::connect((address.host.as_str(), address.port))?);
    connection.get_ref().set_read_timeout(Some(Duration::from_secs(60)))?;
    if let Some((user, password)) = &address.login {
        let user = if user.is_empty() { "default" } else { user };
        expect_ok(&ask(&mut connection, &["AUTH", user, password])?)?;
    }
    if address.database != "0" {
        expect_ok(&ask(&mut connection, &["SELECT", &address.database])?)?;
    }
    ask(&mut connection, words)
}

fn expect_ok(reply: &str) -> io::Result<()> {
    if reply == "OK" { Ok(()) } else { Err(io::Error::other(reply.to_owned())) }
}

fn ask(connection: &mut BufReader<TcpStream>, words: &[&str]) -> io::Result<String> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    connection.get_mut().write_all(&request)?;
    read(connection)
}

fn read(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    connection.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\r\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
    let kind = line.chars().next().unwrap_or_default();
    let number = || line[1..].parse::<i64>().map_err(io::Error::other);
    match kind {
        '$' => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(String::new()) };
            let mut bytes = vec![0; length + 2];
            connection.read_exact(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
        }
        '*' => {
            let count = number()?.max(0);
            let elements: io::Result<Vec<String>> = (0..count).map(|_| read(connection)).collect();
            Ok(elements?.join("\n"))
        }
        '+' | ':' => Ok(line[1..].to_owned()),
        _ => Ok(line),
    }
}
