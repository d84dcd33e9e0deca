//! Adds up what calls took and cost: [`Totals`]. Its sums at one moment are a [`TotalsSnapshot`].

#[cfg(feature = "serde")]
mod stored;

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Charges, ErrorKind, Usage,
    call_record::{CallOutcome, CallRecord, MetricsSink},
    sync::Mutex,
};

/// A sink that adds up all records. Clones share the sums: one clone can be read while others record.
///
/// ```
/// use docvector_embed::{EmbedderExt, Error, ErrorKind, provider::Fake, wrap::Totals};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let totals = Totals::new();
/// // One sum over two embedders.
/// let (first, second) = (Fake::new(8).metered(totals.clone()), Fake::new(16).metered(totals.clone()));
/// first.embed_query("of the first").await?;
/// second.get_ref().fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
/// second.embed_query("of the second").await.unwrap_err();
///
/// let sum = totals.snapshot();
/// assert_eq!(sum.calls, 2);
/// assert_eq!(sum.failed, [(ErrorKind::Unavailable, 1)]);
/// # Ok(()) }) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Totals(Arc<Mutex<TotalsSnapshot>>);

impl Totals {
    /// Makes a sink whose sums are all zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the sums so far, all of them from the same moment.
    pub fn snapshot(&self) -> TotalsSnapshot {
        self.0.with(|sum| sum.clone())
    }
}

impl MetricsSink for Totals {
    fn record(&self, call: &CallRecord<'_>) {
        self.0.with(|sum| sum.add(call));
    }
}

/// The number of latency buckets with an upper bound. The bounds are 10 ms and its doubles up to 81.92 s.
const BOUNDED: usize = 14;

/// Returns the upper bound of a bucket in milliseconds; `None` for the last bucket, which has none.
fn upper_millis(bucket: usize) -> Option<u64> {
    (bucket < BOUNDED).then(|| 10_u64 << bucket)
}

/// Returns the bucket of a latency. A bound belongs to the bucket below it.
fn bucket_of(latency: Duration) -> usize {
    let fits = |bucket: &usize| upper_millis(*bucket).is_none_or(|upper| latency <= Duration::from_millis(upper));
    (0..BOUNDED).find(fits).unwrap_or(BOUNDED)
}

/// The sums of [`Totals`] at one moment. `Display` shows them as a small table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct TotalsSnapshot {
    /// Calls that ended, in whatever way.
    pub calls: u64,
    /// Texts of all calls.
    pub texts: u64,
    /// Bytes of all texts.
    pub bytes: u64,
    /// The known cost of all calls.
    pub usage: Usage,
    /// The same cost, divided by payee.
    pub charges: Charges,
    /// Numbers of calls that failed, by kind, ascending by the kind's name.
    #[cfg_attr(feature = "serde", serde(with = "stored::by_kind"))]
    pub failed: Vec<(ErrorKind, u64)>,
    /// Calls that were dropped.
    pub dropped: u64,
    /// The time that all calls took together. A dropped call counts with the time until its drop, here and below. So a
    /// provider that hangs shows in the latencies, even if nobody waits to the end.
    #[cfg_attr(feature = "serde", serde(rename = "latency_sum_ns", with = "stored::nanoseconds"))]
    pub latency_sum: Duration,
    /// The time that the longest call took.
    #[cfg_attr(feature = "serde", serde(rename = "latency_max_ns", with = "stored::nanoseconds"))]
    pub latency_max: Duration,
    /// The number of calls in each latency bucket.
    #[cfg_attr(feature = "serde", serde(rename = "latency_buckets"))]
    buckets: [u64; BOUNDED + 1],
}

impl TotalsSnapshot {
    fn add(&mut self, call: &CallRecord<'_>) {
        self.calls += 1;
        self.texts = self.texts.saturating_add(call.texts as u64);
        self.bytes = self.bytes.saturating_add(call.bytes as u64);
        self.usage += call.usage;
        self.charges += call.charges;
        match call.outcome {
            CallOutcome::Done => {}
            CallOutcome::Failed(kind) => {
                match self.failed.binary_search_by_key(&kind.as_str(), |(kind, _)| kind.as_str()) {
                    Ok(at) => self.failed[at].1 += 1,
                    Err(at) => self.failed.insert(at, (kind, 1)),
                }
            }
            CallOutcome::Dropped => self.dropped += 1,
        }
        self.latency_sum = self.latency_sum.saturating_add(call.latency);
        self.latency_max = self.latency_max.max(call.latency);
        self.buckets[bucket_of(call.latency)] += 1;
    }

    /// Returns the calls by latency: for each bucket its upper bound in seconds, which belongs to it, and the number of
    /// calls in it. The bounds are those that OpenTelemetry advises for `gen_ai.client.operation.duration`: 0.01 s and
    /// its doubles up to 81.92 s. The last bucket has all longer calls; its bound is infinity.
    pub fn latency_histogram(&self) -> Vec<(f64, u64)> {
        let upper = |bucket| upper_millis(bucket).map_or(f64::INFINITY, |upper| upper as f64 / 1e3);
        self.buckets.iter().enumerate().map(|(bucket, &calls)| (upper(bucket), calls)).collect()
    }

    /// Returns a latency that the share `q` of the calls did not exceed (0.5: the median). It is the upper bound of a
    /// bucket, so it is less than twice the exact value; if the exact value is below 10 ms, it is 10 ms. It is never
    /// more than the longest latency.
    ///
    /// Returns `None` if there were no calls, or if `q` is not from 0 to 1.
    pub fn latency_quantile(&self, q: f64) -> Option<Duration> {
        if self.calls == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = ((q * self.calls as f64).ceil() as u64).clamp(1, self.calls);
        let mut up_to_here = 0_u64;
        let bucket = self.buckets.iter().position(|calls| {
            up_to_here = up_to_here.saturating_add(*calls);
            up_to_here >= rank
        });
        let upper = upper_millis(bucket.unwrap_or(BOUNDED)).map(Duration::from_millis);
        Some(upper.map_or(self.latency_max, |upper| upper.min(self.latency_max)))
    }
}

impl fmt::Display for TotalsSnapshot {
    /// Shows one line per number. Events that did not happen have no line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
        let mut rows: Vec<(String, String)> = vec![("calls".into(), self.calls.to_string())];
        for (kind, calls) in &self.failed {
            rows.push((format!("  {kind}"), calls.to_string()));
        }
        let happened = |what: &str, count: u64| (count > 0).then(|| (what.to_owned(), count.to_string()));
        rows.extend(happened("  dropped", self.dropped));
        rows.push(("texts, all attempts".into(), self.texts.to_string()));
        rows.push(("bytes".into(), self.bytes.to_string()));
        rows.push(("tokens".into(), self.usage.tokens.to_string()));
        rows.push(("requests".into(), self.usage.requests.to_string()));
        rows.extend(happened("  of unknown tokens", self.usage.unreported));
        rows.extend(happened("unanswered", self.usage.unanswered));
        rows.extend(happened("cached", self.usage.cached));
        rows.extend(happened("deduplicated", self.usage.deduplicated));
        if self.calls > 0 {
            rows.push(("latency, mean".into(), seconds(self.latency_sum.div_f64(self.calls as f64))));
            for (what, q) in [("latency, p50 at most", 0.5), ("latency, p99 at most", 0.99)] {
                rows.extend(self.latency_quantile(q).map(|latency| (what.to_owned(), seconds(latency))));
            }
            rows.push(("latency, longest".into(), seconds(self.latency_max)));
        }
        let label = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let value = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
        for (i, (what, number)) in rows.iter().enumerate() {
            let end_of_last = if i == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{what:<label$}  {number:>value$}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let nanosecond = Duration::from_nanos(1);
        assert_eq!(bucket_of(Duration::ZERO), 0);
        for bucket in 0..BOUNDED {
            let upper = Duration::from_millis(upper_millis(bucket).expect("bounded"));
            assert_eq!((bucket_of(upper), bucket_of(upper + nanosecond)), (bucket, bucket + 1));
        }
        assert_eq!(bucket_of(Duration::MAX), BOUNDED);
    }

    #[test]
    fn the_bounds_are_those_of_the_conventions() {
        let bounds: Vec<f64> = TotalsSnapshot::default().latency_histogram().iter().map(|&(upper, _)| upper).collect();
        let advised =
            [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, f64::INFINITY];
        assert_eq!(bounds, advised);
    }

    #[test]
    fn makes_a_table() {
        let mut buckets = [0; BOUNDED + 1];
        (buckets[4], buckets[7], buckets[8]) = (8, 3, 1);
        let sum = TotalsSnapshot {
            calls: 12,
            texts: 340,
            bytes: 51_234,
            usage: Usage { tokens: 12_345, requests: 11, unanswered: 2, ..Usage::ZERO },
            charges: Charges::NONE,
            failed: vec![(ErrorKind::RateLimited, 2), (ErrorKind::Timeout, 1)],
            dropped: 1,
            latency_sum: Duration::from_secs(6),
            latency_max: Duration::from_secs(2),
            buckets,
        };
        let table = "\
calls                      12
  rate limited              2
  timed out                 1
  dropped                   1
texts, all attempts       340
bytes                   51234
tokens                  12345
requests                   11
unanswered                  2
latency, mean         0.500 s
latency, p50 at most  0.160 s
latency, p99 at most  2.000 s
latency, longest      2.000 s";
        assert_eq!(sum.to_string(), table);
        let nothing = TotalsSnapshot::default();
        assert_eq!(
            nothing.to_string(),
            "calls                0\ntexts, all attempts  0\nbytes                0\ntokens               0\nrequests             0"
        );
        let unknown = TotalsSnapshot { usage: Usage::of_request(None), ..nothing };
        let shown = unknown.to_string();
        let lines: Vec<&str> = shown.lines().skip(3).collect();
        assert_eq!(lines, ["tokens               0", "requests             1", "  of unknown tokens  1"]);
    }
}
