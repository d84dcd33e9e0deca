//! Names a server and its database in messages, without the password: [`address`].

use std::iter;

use tokio_postgres::{Config, config::Host};

/// The most hosts that a message names.
const MAX_HOSTS: usize = 4;

/// Returns the hosts with their ports, and the database: `db.example.com:5432/vectors`.
pub(super) fn address(config: &Config) -> String {
    let named = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(folder) => folder.display().to_string(),
    });
    let mut hosts: Vec<String> = named.collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let left_out = hosts.len().saturating_sub(MAX_HOSTS);
    let first = config.get_ports().first().copied().unwrap_or(5432);
    let ports = config.get_ports().iter().copied().chain(iter::repeat(first));
    let shown: Vec<String> =
        hosts.iter().zip(ports).take(MAX_HOSTS).map(|(host, port)| format!("{host}:{port}")).collect();
    let more = if left_out > 0 { format!(" and {left_out} more") } else { String::new() };
    // Without a name, the database is that of the user.
    let database = config.get_dbname().or_else(|| config.get_user()).unwrap_or("(the user's database)");
    format!("{}{more}/{database}", shown.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_hosts_and_database_and_no_password() {
        for (url, expected) in [
            ("postgres://u:secret@db.example.com/vectors", "db.example.com:5432/vectors"),
            ("postgres://u:secret@a:1,b:2/vectors", "a:1,b:2/vectors"),
            ("postgres://u:secret@a", "a:5432/u"),
            ("postgres://u:secret@[::1]:7/d", "[::1]:7/d"),
            ("postgres://u:secret@a,b,c,d,e,f/d", "a:5432,b:5432,c:5432,d:5432 and 2 more/d"),
            ("host=/run/postgresql user=u password=secret", "/run/postgresql:5432/u"),
        ] {
            assert_eq!(address(&url.parse().expect("it is valid")), expected);
        }
    }
}
