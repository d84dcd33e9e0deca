//! Makes the ids of jobs, which are names of folders and begin with the time: [`new_id`].

use std::{
    path::{Component, Path},
    time::{Duration, SystemTime},
};

const PREFIX: &str = "batch-";
/// The last second of the year 9999. Later ones would have longer ids.
const LAST_SECOND: u64 = 253_402_300_799;

/// Returns an id that nobody else has: `batch-20261128-143501-` and 8 hex digits. Ids are in the order of their times.
///
/// The first 4 of the digits are the part of the second, so that jobs of the same second are in order, too; the others
/// are random.
pub(super) fn new_id(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs().min(LAST_SECOND);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let part = u64::from(since.subsec_nanos()) * 65_536 / 1_000_000_000;
    let random = fastrand::u16(..);
    format!("{PREFIX}{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{part:04x}{random:04x}")
}

/// Returns the year, the month and the day after this many days since 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// Returns whether an id looks like those of [`new_id`].
pub(super) fn is_like_ours(id: &str) -> bool {
    let Some(rest) = id.strip_prefix(PREFIX) else {
        return false;
    };
    let fits = |(i, byte): (usize, u8)| match i {
        8 | 15 => byte == b'-',
        0..15 => byte.is_ascii_digit(),
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    };
    rest.len() == 24 && rest.bytes().enumerate().all(fits)
}

/// Returns whether an id can be the name of a job's folder: whether it is a name, is not hidden, and leads nowhere else.
pub(super) fn is_plain(id: &str) -> bool {
    let refused = |c: char| c == '/' || c == '\\' || c.is_control();
    let mut components = Path::new(id).components();
    let is_name = matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none();
    is_name && !id.starts_with('.') && !id.contains(refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn an_id_begins_with_the_time() {
        let cases = [
            (0, "19700101-000000"),
            (86_399, "19700101-235959"),
            (951_782_400, "20000229-000000"),
            (1_709_251_199, "20240229-235959"),
            (1_709_251_200, "20240301-000000"),
            (1_795_876_501, "20261128-143501"),
            (4_107_542_400, "21000301-000000"),
            (LAST_SECOND, "99991231-235959"),
            (u64::from(u32::MAX) << 16, "99991231-235959"),
        ];
        for (seconds, time) in cases {
            let id = new_id(at(seconds, 0));
            assert_eq!((&id[..22], id.len()), (&*format!("batch-{time}-"), 30), "{seconds}");
        }
        // A clock that was never set.
        let id = new_id(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert!(id.starts_with("batch-19700101-000000-"), "{id}");
        let ids: std::collections::HashSet<String> = (0..20).map(|_| new_id(at(0, 0))).collect();
        assert!(ids.len() > 15, "{ids:?}");
    }

    #[test]
    fn ids_are_plain_names() {
        for id in ["a", "batch-1", "a job", "März", "a.b", "..a".trim_start_matches('.'), "C"] {
            assert!(is_plain(id), "{id:?}");
        }
        for id in ["", ".", "..", ".a", "/", "/a", "a/", "a/b", "../a", "a/../b", "a\\b", "a\0", "a\n", "a/.", "./a"] {
            assert!(!is_plain(id), "{id:?}");
        }
        let wrong = ["", "batch-", "batch-20261128-143501-0123456", "batch-20261128-143501-0123456G", "a"];
        for id in wrong {
            assert!(!is_like_ours(id), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn later_ids_come_later(a in 0..LAST_SECOND, between in 0..5_000_u64, nanos in 0..1_000_000_000_u32) {
            let (earlier, later) = (at(a, nanos), at(a, nanos) + Duration::from_millis(between));
            let (one, two) = (new_id(earlier), new_id(later));
            prop_assert!(between == 0 || one < two, "{one} {two}");
            prop_assert!(is_like_ours(&one) && is_plain(&one));
            // The same time as that of another crate, which writes `Sat, 28 Nov 2026 14:35:01 GMT`.
            let shown = httpdate::fmt_http_date(earlier);
            let parts: Vec<&str> = shown.split([' ', ':']).collect();
            prop_assert_eq!((&one[6..10], &one[12..14]), (parts[3], parts[1]));
            prop_assert_eq!(&one[15..21], parts[4..7].concat());
            let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
            prop_assert_eq!(month[one[10..12].parse::<usize>().expect("a month") - 1], parts[2]);
        }
    }
}
