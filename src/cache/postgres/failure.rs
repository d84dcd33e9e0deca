//! Turns failures of statements and connections into errors that say what failed, and what to do: [`Failure`].

use std::{error::Error as StdError, io, time::Duration};

use tokio_postgres::{
    Error as PostgresError,
    error::{Severity, SqlState},
};

use crate::{Error, ErrorKind};

/// Why a statement or a connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server reported an error, or the connection broke.
    Server(PostgresError),
    /// The server did not answer within this time.
    Late(Duration),
    /// We refuse what the server has.
    Refused(Error),
}

impl Failure {
    /// Returns the code that the server gave.
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server(error) => error.code(),
            Self::Late(_) | Self::Refused(_) => None,
        }
    }

    /// Returns `true` if the connection cannot be used any more, and another one may work.
    pub(super) fn is_broken(&self) -> bool {
        let Self::Server(error) = self else { return false };
        match error.as_db_error() {
            Some(db) => {
                let ends = matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
                // Class 08 is that of connections, 57P01 to 57P05 are shutdowns and ends of sessions.
                ends || db.code().code().starts_with("08") || db.code().code().starts_with("57P0")
            }
            None => error.is_closed() || error.source().is_some_and(|source| source.is::<io::Error>()),
        }
    }

    /// Returns `true` if the server did not answer in time.
    pub(super) const fn is_late(&self) -> bool {
        matches!(self, Self::Late(_))
    }

    /// Returns `true` if the server takes no writes.
    pub(super) fn is_read_only(&self) -> bool {
        self.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Returns `true` if another transaction was in the way, so that the same statement may succeed now.
    pub(super) fn is_conflict(&self) -> bool {
        let codes = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        self.code().is_some_and(|code| codes.contains(code))
    }

    /// Returns `true` if another process was just creating the same tables.
    pub(super) fn is_duplicate(&self) -> bool {
        let codes = [SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT, SqlState::UNIQUE_VIOLATION];
        self.code().is_some_and(|code| codes.contains(code))
    }

    /// Makes the error for the caller.
    pub(super) fn into_error(self, server: &str) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Late(limit) => {
                let message = format!(
                    "the PostgreSQL server {server} did not answer within {limit:?}: check it and the network, or set \
                     a longer `PostgresBuilder::with_timeout`"
                );
                Error::new(ErrorKind::Cache, message)
            }
            Self::Server(error) => {
                let message = match error.as_db_error() {
                    Some(db) => of_code(server, db.code(), db.message()),
                    None => of_connection(server, &error),
                };
                Error::new(ErrorKind::Cache, message).with_source(error)
            }
        }
    }
}

/// Says what an error means that the server reported. The messages of the server name tables and users, and hold no
/// values: all values are parameters.
fn of_code(server: &str, code: &SqlState, told: &str) -> String {
    let what = match code.code() {
        "28P01" | "28000" => {
            "refuses the user: check the user and the password of the connection string, and pg_hba.conf"
        }
        "3D000" => "has no such database: create it, or name another one",
        "3F000" => "has no such schema: create it (`CREATE SCHEMA`), or name another one",
        "42501" => {
            "does not give this user the rights: grant CREATE on the schema, or let an owner open the store once and \
             grant SELECT, INSERT and DELETE on its three tables"
        }
        "53300" => {
            "has no connection left: raise its `max_connections`, or set fewer with `PostgresBuilder::with_connections`"
        }
        "53100" => "has a full disk: free some space there; the entries stored before are intact",
        "53200" => "is out of memory: give it more, or make smaller calls",
        "25006" => {
            "takes no writes, because it is a standby or its transactions are read-only: name the primary, or open the \
             store with `PostgresBuilder::read_only`"
        }
        "42P01" => "does not have the table any more: open the store again, which creates it",
        "57014" => {
            "ended a statement that took too long, or that somebody cancelled: check its load, or set a longer \
             `PostgresBuilder::with_timeout`"
        }
        "57P01" | "57P02" | "57P05" => "closed the connection, and did so again: check why it shuts down",
        "57P03" => "takes no connections yet, because it is starting or stopping: try again soon",
        "40001" | "40P01" => "met other transactions again and again: try again when fewer write the same entries",
        "22021" | "22P05" => "cannot store the characters of a note: use a database with the encoding UTF8",
        "54000" => "takes no statement of this size: make smaller calls",
        _ => "reported an error",
    };
    format!("the PostgreSQL server {server} {what} ({}: {})", code.code(), one_line(told))
}

/// Says what an error of the connection means.
fn of_connection(server: &str, error: &PostgresError) -> String {
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    let why = if source.is_empty() { error.to_string() } else { format!("{error}: {source}") };
    of_kind(server, &error.to_string(), &one_line(&why))
}

/// The kind of such an error is only to be had as the words with which it begins.
fn of_kind(server: &str, kind: &str, why: &str) -> String {
    if kind.contains("TLS") {
        return format!(
            "there is no encrypted connection to the PostgreSQL server {server} ({why}): its certificate must be valid \
             for this host and come from an authority that this system trusts; set `sslmode=disable` only if the \
             network can be trusted"
        );
    }
    if kind.contains("authentication") || kind.contains("configuration") {
        return format!("cannot log in to the PostgreSQL server {server} ({why}): check the connection string");
    }
    if kind.contains("connecting") {
        return format!(
            "the PostgreSQL server {server} cannot be reached ({why}): check that it runs, its host and its port"
        );
    }
    if kind.contains("closed") || kind.contains("communicating") {
        return format!(
            "the connection to the PostgreSQL server {server} broke, and did so again ({why}): check that the server \
             runs and can be reached"
        );
    }
    format!("the PostgreSQL server {server} cannot be used ({why}): check that it is PostgreSQL, version 13 or newer")
}

/// Keeps a message on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_say_what_to_do() {
        for (code, advice) in [
            ("28P01", "check the user and the password"),
            ("3D000", "create it"),
            ("42501", "grant"),
            ("53300", "max_connections"),
            ("53100", "free some space"),
            ("25006", "name the primary"),
            ("42P01", "open the store again"),
            ("57014", "with_timeout"),
            ("XX000", "reported an error"),
        ] {
            let message = of_code("db:5432/vectors", &SqlState::from_code(code), "so\nit is");
            assert!(message.starts_with("the PostgreSQL server db:5432/vectors "), "{message}");
            assert!(message.contains(advice) && message.ends_with(&format!("({code}: so it is)")), "{message}");
        }
    }

    #[test]
    fn errors_of_connections_are_told_apart() {
        for (kind, advice) in [
            ("error performing TLS handshake", "sslmode=disable"),
            ("authentication error", "check the connection string"),
            ("invalid configuration", "check the connection string"),
            ("error connecting to server", "its host and its port"),
            ("connection closed", "broke, and did so again"),
            ("unexpected message from server", "check that it is PostgreSQL"),
        ] {
            let message = of_kind("db:5432/vectors", kind, kind);
            assert!(message.contains(advice) && message.contains("db:5432/vectors"), "{message}");
        }
    }

    #[test]
    fn a_statement_that_is_late_names_the_limit() {
        let failure = Failure::Late(Duration::from_secs(31));
        assert!(failure.is_late() && !failure.is_broken() && !failure.is_conflict());
        let error = failure.into_error("db:5432/vectors");
        assert_eq!(error.kind(), ErrorKind::Cache);
        assert!(error.message().contains("31s") && error.message().contains("with_timeout"), "{error}");
    }
}
