//! Reads the address of a service as people give it, with or without a route at its end: [`base_of`].

use reqwest::Url;

use crate::{Error, ErrorKind, Result, http::base_url};

/// Ends of an address that stand for the service itself: people copy them from examples of requests.
const ROUTES_TO_EMBED: [&str; 3] = ["embed", "embeddings", "v1"];

/// Routes of services that do something else. An address that ends so was copied from somewhere else, and may be another
/// service's.
const OTHER_ROUTES: [&str; 19] = [
    "decode",
    "docs",
    "embed_all",
    "embed_sparse",
    "health",
    "info",
    "invocations",
    "livez",
    "metrics",
    "models",
    "openapi.json",
    "predict",
    "readyz",
    "rerank",
    "similarity",
    "startupz",
    "status",
    "tokenize",
    "vertex",
];

/// Returns the address of the service without the routes at its end.
pub(super) fn base_of(address: &str) -> Result<Url> {
    let wrong = |what: &str| {
        let message = format!("the service's URL {what}: give one like http://host:port");
        Error::new(ErrorKind::Config, message)
    };
    let mut url = base_url::parse(address).map_err(wrong)?;
    let mut segments: Vec<String> = url.path_segments().into_iter().flatten().map(str::to_owned).collect();
    segments.retain(|segment| !segment.is_empty());
    if let Some(route) = OTHER_ROUTES.into_iter().find(|route| segments.last().is_some_and(|last| last == route)) {
        return Err(wrong(&format!("ends in /{route}, which is not where texts are embedded")));
    }
    if segments.ends_with(&["v1".to_owned(), "embeddings".to_owned()]) {
        segments.pop();
    }
    if segments.last().is_some_and(|last| ROUTES_TO_EMBED.contains(&last.as_str())) {
        segments.pop();
    }
    let mut path = url.path_segments_mut().map_err(|()| wrong("cannot have a path"))?;
    path.clear().extend(segments.iter().map(|segment| percent_decoded(segment)));
    drop(path);
    Ok(url)
}

/// Returns a segment as it was before the parser encoded it, so that it is not encoded twice.
fn percent_decoded(segment: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = segment.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| segment.to_owned())
}

/// Returns the URL of a route of the service.
pub(super) fn route(base: &Url, route: &str) -> Url {
    let mut url = base.clone();
    // Only a URL without a host, which `base_of` refuses, cannot have a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(route);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_at_the_end_are_no_part_of_the_address() {
        for (given, base) in [
            ("http://host:8080", "http://host:8080/embed"),
            (" http://host:8080/ ", "http://host:8080/embed"),
            ("http://host:8080/embed", "http://host:8080/embed"),
            ("http://host:8080/embed/", "http://host:8080/embed"),
            ("http://host:8080/v1", "http://host:8080/embed"),
            ("http://host:8080/v1/", "http://host:8080/embed"),
            ("http://host:8080/v1/embeddings", "http://host:8080/embed"),
            ("http://host:8080/embeddings", "http://host:8080/embed"),
            ("https://host/models/e5", "https://host/models/e5/embed"),
            ("https://host/models/e5/v1/", "https://host/models/e5/embed"),
            ("https://host/a%2Fb/v1", "https://host/a%2Fb/embed"),
            ("https://host/%C3%A9", "https://host/%C3%A9/embed"),
            ("http://[::1]:80/", "http://[::1]/embed"),
        ] {
            assert_eq!(route(&base_of(given).expect(given), "embed").as_str(), base, "{given}");
        }
    }

    #[test]
    fn other_addresses_are_refused_and_not_quoted() {
        for (given, why) in [
            ("", "cannot be parsed"),
            ("planted", "cannot be parsed"),
            ("ftp://planted", "does not begin with http:// or https://"),
            ("http://user:planted@host", "belong in `with_header`"),
            ("http://host?key=planted", "query"),
            ("http://host/planted/info", "ends in /info"),
            ("http://host/v1/models", "ends in /models"),
        ] {
            let error = base_of(given).expect_err(given);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(why) && error.message().contains("give one like"), "{error}");
            assert!(!error.message().contains("planted"), "{error}");
        }
    }
}
