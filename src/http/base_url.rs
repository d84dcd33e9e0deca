//! Reads the address of a server as a program gives it: [`parse`], and whether it is [this machine](is_loopback).

use std::net::IpAddr;

use reqwest::Url;

/// Parses the address of a server. The error is the end of a sentence, and does not quote the address, which may hold a
/// password.
pub(crate) fn parse(address: &str) -> Result<Url, &'static str> {
    let url = Url::parse(address.trim()).map_err(|_| "cannot be parsed")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("does not begin with http:// or https:// and a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password, which belong in `with_header`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment");
    }
    Ok(url)
}

/// Whether the URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}
