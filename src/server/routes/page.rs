//! Answers `/` and `/docs`: pages for people that fetch nothing from elsewhere.

use std::hash::{BuildHasher, RandomState};

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};

const PAGE: &str = include_str!("../page.html");
const DOCS: &str = include_str!("../docs.html");
/// Stands in the pages for the nonce of the reply.
const NONCE: &str = "{{NONCE}}";

pub(super) async fn page() -> Response<Body> {
    html(PAGE)
}

pub(super) async fn docs() -> Response<Body> {
    html(DOCS)
}

/// Makes a reply of a page that may run its own script and style, and nothing else.
fn html(page: &str) -> Response<Body> {
    // The keys of the hash are random, of the system: nobody can guess the nonce.
    let nonce = format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut reply = Response::new(Body::from(page.replace(NONCE, &nonce)));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_all_they_need() {
        for page in [PAGE, DOCS] {
            assert!(page.contains(NONCE));
            for elsewhere in
                ["http://", "https://", "src=\"//", "url('", "url(\"", "@import", "innerHTML", " style=\"", "eval("]
            {
                // Names of XML are no addresses that are fetched.
                let page = page.replace("http://www.w3.org/2000/svg", "");
                assert!(!page.contains(elsewhere), "{elsewhere}");
            }
        }
    }
}
