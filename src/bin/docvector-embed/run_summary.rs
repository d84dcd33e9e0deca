//! Counts the results of a run of `embed`, and sums them up in a line.

use std::time::Duration;

use docvector_embed::{
    Charges, Tier,
    price::{self, PicoDollars},
    wrap::CacheCounts,
};

use crate::{bad_lines::BadLines, failure::Failure, window::Rows, wording::Counted};

/// The results of a run.
#[derive(Debug, Default)]
pub(crate) struct RunSummary {
    /// Lines that are done, good or bad.
    pub(crate) lines: u64,
    /// Texts with a vector.
    texts: u64,
    /// The truncated ones of these texts.
    cut: u64,
    /// Lines that were recorded as errors.
    recorded: u64,
    charges: Charges,
    /// The counts of the cache, if there is one.
    pub(crate) cache: Option<CacheCounts>,
    /// Lines that make the run fail.
    pub(crate) bad_lines: BadLines,
}

impl RunSummary {
    /// Counts rows before they are written.
    pub(crate) fn add(&mut self, rows: &Rows) {
        let texts = rows.embeddings.as_ref().map_or(0, docvector_embed::Embeddings::len);
        self.texts += texts as u64;
        self.recorded += (rows.lines.len() - texts.min(rows.lines.len())) as u64;
        self.cut += rows.embeddings.as_ref().map_or(0, |embeddings| embeddings.truncated().len()) as u64;
        self.charges += rows.charges.clone();
    }

    /// Returns the number of texts with a vector.
    pub(crate) const fn texts(&self) -> u64 {
        self.texts
    }

    /// Returns the whole run in a line.
    pub(crate) fn summary(&self, dimensions: usize, max_tokens: Option<usize>, time: Duration) -> String {
        let seconds = time.as_secs_f64();
        let mut line = format!("{}, {dimensions} dimensions", Counted(self.texts, "text"));
        if let Some(tokens) = self.charges.usage().exact_tokens() {
            line += &format!(", {}", Counted(tokens, "token"));
        }
        if let Some(cost) = cost(&self.charges) {
            line += &format!(", {cost}");
        }
        line += &format!(", {seconds:.1} s");
        if self.texts > 0 && seconds > 0.0 {
            line += &format!(" ({:.0} texts/s)", self.texts as f64 / seconds);
        }
        if self.cache.is_some() {
            line += &format!("; {} of {} from the cache", self.charges.usage().cached, Counted(self.texts, "text"));
        }
        for note in self.notes(max_tokens) {
            line += &format!("; {note}");
        }
        line
    }

    /// Returns how a run ends that wrote all it should.
    pub(crate) const fn outcome(&self) -> Result<(), Failure> {
        if self.recorded > 0 { Err(Failure::Recorded) } else { Ok(()) }
    }

    /// Returns the notes that are printed even with `--quiet`.
    pub(crate) fn notes(&self, max_tokens: Option<usize>) -> Vec<String> {
        let mut notes = Vec::new();
        if self.cut > 0 {
            let were = if self.cut == 1 { "was" } else { "were" };
            let to = max_tokens.map(|tokens| format!(" to {}", Counted(tokens as u64, "token"))).unwrap_or_default();
            notes.push(format!("{} {were} truncated{to}", Counted(self.cut, "text")));
        }
        if self.recorded > 0 {
            let have = if self.recorded == 1 { "has" } else { "have" };
            notes.push(format!(
                "{} of {} {have} no embedding, but an error in its place",
                Counted(self.recorded, "line"),
                self.texts + self.recorded
            ));
        }
        let CacheCounts { damaged, failures, .. } = self.cache.unwrap_or_default();
        match damaged {
            0 => {}
            1 => notes.push("1 cache entry was damaged, and its text was embedded again".to_owned()),
            _ => notes.push(format!("{damaged} cache entries were damaged, and their texts were embedded again")),
        }
        if failures > 0 {
            notes.push(format!("the cache failed {}: it may lack some of these vectors", Counted(failures, "time")));
        }
        notes
    }
}

/// Returns what the provider bills; `None` if nobody is billed, or if not all of it is known.
fn cost(charges: &Charges) -> Option<PicoDollars> {
    let is_billed = charges.iter().any(|charge| charge.payee.tier() != Tier::Local);
    is_billed.then(|| price::total(charges, &[])).flatten()
}

#[cfg(test)]
mod tests {
    use docvector_embed::{Payee, Usage};

    use super::*;

    #[test]
    fn a_run_in_a_line() {
        let charges = Charges::from(Usage::of_request(Some(1_234_567)));
        let summary = RunSummary { texts: 100_000, charges, ..RunSummary::default() };
        let time = Duration::from_millis(12_300);
        assert_eq!(
            summary.summary(384, Some(256), time),
            "100000 texts, 384 dimensions, 1234567 tokens, 12.3 s (8130 texts/s)"
        );
        assert!(summary.outcome().is_ok());
        let cut = RunSummary { cut: 2, recorded: 1, ..summary };
        assert!(cut.summary(384, Some(256), time).ends_with(
            "; 2 texts were truncated to 256 tokens; 1 line of 100001 has no embedding, but an error in its place"
        ));
        assert!(matches!(cut.outcome(), Err(Failure::Recorded)));
        let none = RunSummary::default().summary(384, None, Duration::ZERO);
        assert_eq!(none, "0 texts, 384 dimensions, 0 tokens, 0.0 s");
        let charges = Charges::from(Usage::of_request(None));
        let one = RunSummary { texts: 1, cut: 1, charges, ..RunSummary::default() };
        assert_eq!(
            one.summary(2, Some(8), Duration::from_secs(1)),
            "1 text, 2 dimensions, 1.0 s (1 texts/s); 1 text was truncated to 8 tokens"
        );
    }

    #[test]
    fn a_bill_is_told_where_all_of_it_is_known() {
        let of = |provider: &str, tier, tokens| {
            let payee = Payee::new(provider, "text-embedding-3-small", tier);
            Charges::of(&payee, Usage::of_request(tokens))
        };
        let paid = |charges: Charges| cost(&charges).map(|cost| cost.to_string());
        assert_eq!(paid(of("openai", Tier::Standard, Some(1_000_000))).as_deref(), Some("$0.02"));
        assert_eq!(paid(of("openai", Tier::Standard, None)), None);
        assert_eq!(paid(of("another", Tier::Standard, Some(5))), None);
        assert_eq!(paid(of("local", Tier::Local, Some(5))), None);
        assert_eq!(paid(Charges::from(Usage::of_request(Some(5)))), None);
    }

    #[test]
    fn a_cache_is_spoken_of_where_there_is_one() {
        let mut counts = CacheCounts::default();
        let run = |counts| {
            let charges = Charges::from(Usage::ZERO.with_cached(12));
            let summary = RunSummary { texts: 40, charges, cache: Some(counts), ..RunSummary::default() };
            summary.summary(384, None, Duration::from_secs(1))
        };
        let sound = "40 texts, 384 dimensions, 0 tokens, 1.0 s (40 texts/s); 12 of 40 texts from the cache";
        assert_eq!(run(counts), sound);
        (counts.damaged, counts.failures) = (1, 1);
        let one = "; 1 cache entry was damaged, and its text was embedded again; the cache failed 1 time: ";
        assert!(run(counts).starts_with(&format!("{sound}{one}")), "{}", run(counts));
        (counts.damaged, counts.failures) = (2, 3);
        let more = "; 2 cache entries were damaged, and their texts were embedded again; the cache failed 3 times: ";
        assert!(run(counts).starts_with(&format!("{sound}{more}")), "{}", run(counts));
    }
}
