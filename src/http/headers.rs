//! Reads and makes the headers that remote providers share: request ids, waits, rate limits, secrets.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::{Error, ErrorKind, RateLimitStatus, RateLimitWindow, Result};

/// Makes a header of a name and a secret value, which no error, log or `Debug` shows.
pub(crate) fn secret_header(name: &str, value: &SecretString) -> Result<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(name)
        .map_err(|_| Error::new(ErrorKind::Config, format!("{name:?} cannot be the name of a header")))?;
    let wrong = || {
        let message = format!("the value of the header {name} is empty or has characters that a header cannot have");
        Error::new(ErrorKind::Config, message)
    };
    let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| wrong())?;
    if value.is_empty() {
        return Err(wrong());
    }
    value.set_sensitive(true);
    Ok((name, value))
}

/// Refuses a string that cannot be a key, such as one with a line break from a file or quotes from a shell. `from` says
/// where a program gives the key.
pub(crate) fn check_key(key: &SecretString, from: &str) -> Result<()> {
    let what = match key.expose_secret() {
        "" => "is empty",
        key if key.trim() != key => "begins or ends with white space: remove it",
        key if key.contains(['"', '\'']) => "contains quotes: remove them",
        key if !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "contains characters that no key has: use visible ASCII characters only"
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Config, format!("the key ({from}) {what}")))
}

/// Returns the server's id of the request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = ["x-request-id", "apim-request-id", "request-id"].into_iter().find_map(|name| headers.get(name))?;
    let id = id.to_str().ok()?;
    let fits = (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| id.to_owned())
}

/// Returns the wait that the server asks for: `retry-after-ms` in milliseconds, else `retry-after` in seconds or as a
/// date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let read = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    // The cap of 1e9 seconds is longer than any sensible wait, and far below the maximum of a `Duration`.
    let duration = |seconds: f64| Duration::from_secs_f64(seconds.min(1e9));
    if let Some(wait) = read("retry-after-ms").and_then(number) {
        return Some(duration(wait / 1e3));
    }
    let text = read("retry-after")?;
    if let Some(wait) = number(text) {
        return Some(duration(wait));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date in the past asks for a wait of zero.
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Returns the rate limits and what remains of them, from the headers that OpenAI uses.
pub(crate) fn rate_limit_status(headers: &HeaderMap) -> Option<RateLimitStatus> {
    let read = |what: &str, of: &str| {
        let value = headers.get(format!("x-ratelimit-{what}-{of}"))?;
        value.to_str().ok().map(str::trim)
    };
    let window = |of: &str| {
        // Azure has sent -1 and 0, which are no limits.
        let limit: u64 = read("limit", of)?.parse().ok().filter(|&limit| limit > 0)?;
        let mut window = RateLimitWindow::new(limit);
        window.remaining = read("remaining", of).and_then(|left| left.parse().ok());
        window.reset = read("reset", of).and_then(go_duration);
        Some(window)
    };
    let rate_limit_status = RateLimitStatus { requests: window("requests"), tokens: window("tokens") };
    (rate_limit_status != RateLimitStatus::default()).then_some(rate_limit_status)
}

/// Returns the wait until a limit that was reached is free again, as far as the headers of a refusal tell it. `named` is
/// the limit that the refusal is about, `requests` or `tokens`, if it says so.
///
/// The reset of a limit of which something is left does not matter. But a request takes one of the requests and any
/// number of tokens: if something is left of both, it was too little of the tokens.
pub(crate) fn reset_wait(headers: &HeaderMap, named: &str) -> Option<Duration> {
    let read = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let limits = ["requests", "tokens"].map(|of| {
        let left = read(&format!("x-ratelimit-remaining-{of}")).and_then(|left| left.parse::<u64>().ok());
        (of, left, read(&format!("x-ratelimit-reset-{of}")).and_then(go_duration))
    });
    let longest = |applies: &dyn Fn(&str, Option<u64>) -> bool| {
        limits.iter().filter(|(of, left, _)| applies(of, *left)).filter_map(|limit| limit.2).max()
    };
    let reached = longest(&|of, left| of == named || left == Some(0));
    if reached.is_some() || limits.iter().any(|limit| limit.0 == named) {
        return reached;
    }
    let unknown = longest(&|_, left| left.is_none()).or_else(|| longest(&|of, _| of == "tokens"));
    unknown.or_else(|| until_unix_time(read("x-ratelimit-reset")?))
}

/// Returns the wait until a moment, given as seconds or milliseconds since 1970. A moment in the past is a wait of zero.
fn until_unix_time(text: &str) -> Option<Duration> {
    // Smaller numbers are not such moments: they lie before 2001.
    let since = match text.parse().ok()? {
        seconds @ 1_000_000_000..=99_999_999_999 => Duration::from_secs(seconds),
        millis @ 1_000_000_000_000..=99_999_999_999_999 => Duration::from_millis(millis),
        _ => return None,
    };
    (SystemTime::UNIX_EPOCH + since).duration_since(SystemTime::now()).ok().or(Some(Duration::ZERO))
}

/// Reads a duration as Go writes it: `1s`, `6m0s`, `12ms`, `1h2m3.5s`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn reads_every_form_of_retry_after() {
        let wait = |pairs: &[(&'static str, &str)]| retry_after(&headers(pairs));
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after", "0.25")]), Some(Duration::from_millis(250)));
        assert_eq!(wait(&[("retry-after-ms", "1500.5"), ("retry-after", "9")]), Some(Duration::from_micros(1_500_500)));
        // If one cannot be read, the next one counts.
        assert_eq!(wait(&[("retry-after-ms", "soon"), ("retry-after", "9")]), Some(Duration::from_secs(9)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let left = wait(&[("retry-after", &date)]).expect("a date");
        assert!((98..=100).contains(&left.as_secs()), "{left:?}");
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), Some(Duration::ZERO));
        for nothing in ["", "-1", "NaN", "inf", "tomorrow"] {
            assert_eq!(wait(&[("retry-after", nothing)]), None, "{nothing:?}");
        }
        assert!(wait(&[("retry-after", "1e300")]).is_some());
    }

    #[test]
    fn reads_durations_as_go_writes_them() {
        for (text, millis) in [("1s", 1000), ("6m0s", 360_000), ("12ms", 12), ("1h2m3.5s", 3_723_500), ("0s", 0)] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1", "s", "1x", "1.2.3s", "-1s", "99999999h"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_reset_of_the_limit_that_was_reached_is_the_wait() {
        let (requests, tokens) = (Some(Duration::from_secs(20)), Some(Duration::from_millis(1500)));
        let resets = [("x-ratelimit-reset-requests", "20s"), ("x-ratelimit-reset-tokens", "1.5s")];
        let left = |requests: &'static str, tokens: &'static str| {
            [("x-ratelimit-remaining-requests", requests), ("x-ratelimit-remaining-tokens", tokens)]
        };
        for (left, named, wait) in [
            // The limit that the refusal names, and those that are used up.
            (left("0", "0"), "", requests),
            (left("0", "500"), "", requests),
            (left("5", "0"), "", tokens),
            (left("0", "0"), "tokens", requests),
            (left("5", "500"), "requests", requests),
            (left("5", "500"), "tokens", tokens),
            // If something is left of both, there were too few tokens.
            (left("5", "500"), "", tokens),
            // If it is not known what is left, the longer one is safe.
            (left("", "-1"), "", requests),
            (left("5", ""), "", tokens),
            (left("", "500"), "invalid_request_error", requests),
        ] {
            let all: Vec<(&'static str, &str)> = resets.into_iter().chain(left).collect();
            assert_eq!(reset_wait(&headers(&all), named), wait, "{left:?} {named}");
        }
        // The named limit tells no reset: that of the other one is not its own.
        assert_eq!(reset_wait(&headers(&resets[1..]), "requests"), None);
        assert_eq!(reset_wait(&headers(&resets[..1]), ""), requests);
        assert_eq!(reset_wait(&headers(&[("x-ratelimit-reset-tokens", "soon")]), ""), None);
        assert_eq!(reset_wait(&headers(&[]), "tokens"), None);
    }

    #[test]
    fn a_moment_of_reset_is_a_wait() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        for moment in [(now.as_secs() + 100).to_string(), (now.as_millis() + 100_000).to_string()] {
            let wait = reset_wait(&headers(&[("x-ratelimit-reset", &moment)]), "").expect("a moment");
            assert!((98..=100).contains(&wait.as_secs()), "{moment}: {wait:?}");
        }
        assert_eq!(reset_wait(&headers(&[("x-ratelimit-reset", "1600000000")]), ""), Some(Duration::ZERO));
        for nothing in ["", "7", "-1", "soon", "18446744073709551615", "1e10"] {
            assert_eq!(reset_wait(&headers(&[("x-ratelimit-reset", nothing)]), ""), None, "{nothing}");
        }
    }

    #[test]
    fn reads_what_is_allowed_and_ignores_what_means_nothing() {
        let allowed = rate_limit_status(&headers(&[
            ("x-ratelimit-limit-requests", "3000"),
            ("x-ratelimit-remaining-requests", "2999"),
            ("x-ratelimit-reset-requests", "20ms"),
            ("x-ratelimit-limit-tokens", "-1"),
            ("x-ratelimit-remaining-tokens", "0"),
        ]))
        .expect("a status");
        let requests = RateLimitWindow::new(3000).with_remaining(2999).with_reset(Duration::from_millis(20));
        assert_eq!(allowed, RateLimitStatus::default().with_requests(requests));
        assert_eq!(rate_limit_status(&headers(&[("x-ratelimit-limit-tokens", "0")])), None);
    }

    #[test]
    fn a_bad_header_is_not_quoted() {
        let error = secret_header("authorization", &SecretString::from("planted\nkey")).expect_err("a line break");
        assert!(!format!("{error:?}").contains("planted"), "{error:?}");
    }
}
