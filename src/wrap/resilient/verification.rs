//! Proves by probe texts that members are one model: [`Inner::verify`].

use std::fmt;

use futures_util::future::join_all;

use super::{
    inner::Inner,
    member::{Call, Member},
    proof::Proof,
    reference::Reference,
};
use crate::{
    Batch, Charges, Error, ErrorKind, InputKind, Lane, Options, Result, Truncation, Usage, all::embed_all,
    checked::CostUnderWay, deadline::until, observer::EventKind, sync::Mutex, telemetry,
};

/// The texts whose vectors tell models apart: prose, a question, other scripts, code, a single word. The last one has more
/// than 1,000 tokens, and its second half another subject, so that a server that truncates at 256 or 512 is found out.
/// Nothing shows where longer texts are truncated. The texts must never change: vectors of them may be kept.
const PROBES: [&str; 6] = [
    "The quick brown fox jumps over the lazy dog; 0123456789, ÄÖÜ and 中文.",
    "how do I read a file line by line?",
    "Schafe geben Wolle und Milch. 羊は毛のために飼われる。",
    "fn main() { let rows: Vec<f32> = vec![0.5; 8]; println!(\"{rows:?}\"); }",
    "water",
    include_str!("long_probe.txt"),
];

impl Inner {
    /// Compares all members in the primary's space with the primary. What it costs is added to the ledger as it goes, also
    /// if this is dropped.
    pub(super) async fn verify(&self, teller: &(dyn fmt::Display + Sync), ledger: &Mutex<Charges>) -> Result<()> {
        let batch = Batch::documents(&[]);
        let batch = self.observer.as_ref().map_or(batch, |observer| batch.with_observer(observer));
        let call = Call { batch, teller };
        let primary = self.verify_primary(&call, ledger).await;
        let known = self.knows_primary();
        let fallbacks = self.members.iter().skip(1).filter(|member| known && self.is_comparable(member));
        let results = join_all(fallbacks.map(async |member| {
            // Calls that need the member wait for this proof, unless another one is under way.
            let turn = member.proving.take(member.open_for);
            let problem = self.verify_member(member, &call, ledger).await;
            if let (Some(turn), Some(error)) = (turn, &problem) {
                turn.fail(error);
            }
            problem
        }));
        let mut problems: Vec<Error> = primary.err().into_iter().chain(results.await.into_iter().flatten()).collect();
        // A wrong model is what the caller must hear of, whatever else was wrong.
        let worst = problems.iter().position(|problem| problem.kind() == ErrorKind::SpaceMismatch).unwrap_or(0);
        if problems.is_empty() { Ok(()) } else { Err(problems.swap_remove(worst)) }
    }

    /// Asks the primary for its vectors. If they are known, they must be the same.
    async fn verify_primary(&self, call: &Call<'_>, ledger: &Mutex<Charges>) -> Result<()> {
        let primary = &self.members[0];
        let probed = self.probe(primary, call, ledger).await?;
        let known = self.reference.with(|reference| reference.get_or_insert_with(|| probed.clone()).clone());
        let cosine = known.least_cosine(&probed);
        self.settle(primary, cosine, Proof::Stated, call)
    }

    /// Compares a member with the known vectors. What it costs is added to the ledger.
    pub(super) async fn verify_member(
        &self,
        member: &Member,
        call: &Call<'_>,
        ledger: &Mutex<Charges>,
    ) -> Option<Error> {
        let probed = self.probe(member, call, ledger).await;
        let known = self.reference.with(|reference| reference.clone());
        match (probed, known) {
            (Ok(probed), Some(known)) => self.settle(member, known.least_cosine(&probed), Proof::Verified, call).err(),
            (Err(error), _) => Some(error),
            (Ok(_), None) => None,
        }
    }

    /// Sets the proof of a member, and tells of it.
    fn settle(&self, member: &Member, cosine: f32, sound: Proof, call: &Call<'_>) -> Result<()> {
        let same = cosine >= self.min_cosine;
        member.proof.with(|proof| *proof = if same { sound } else { Proof::Refuted });
        call.tell(EventKind::Verified { member: &member.label, cosine, same });
        if same {
            return Ok(());
        }
        let message = format!(
            "{} states {}, but it is another model: the least cosine of a probe text is {cosine:.4}, and one model gives \
             at least {}; no calls go to it",
            member.label, member.space, self.min_cosine
        );
        tracing::warn!({ telemetry::EMBEDDER } = %member.embedder, { telemetry::WHY } = message, "a member is shut out");
        Err(Error::new(ErrorKind::SpaceMismatch, message).with_embedder(self))
    }

    /// Embeds the probe texts with a member, but not past the deadline of the call that needs it.
    async fn probe(&self, member: &Member, call: &Call<'_>, ledger: &Mutex<Charges>) -> Result<Reference> {
        let of_kind = async |kind| {
            // Somebody may wait for the member, so the probe does not wait behind bulk work.
            let (truncation, lane) = (Truncation::Truncate, Lane::Interactive);
            let options = Options { kind, truncation, lane, ..call.batch.options() };
            let batch = Batch::with_options(&PROBES, options);
            let batch = call.batch.observer().map_or(batch, |observer| batch.with_observer(observer));
            let shortened = self.shortened(&batch);
            let batch = shortened.as_ref().map_or(batch, |shortened| shortened.batch(&batch));
            let under_way = CostUnderWay::begin(ledger);
            let result = until(call.batch.deadline(), embed_all(&*member.embedder, batch)).await;
            let result = result.unwrap_or_else(|| {
                let late = Error::new(ErrorKind::DeadlinePassed, "while the member was compared with the primary");
                Err(late.with_embedder(&member.embedder).with_usage(Usage::of_given_up()))
            });
            under_way.end(&result);
            result.map_err(|error| error.without_partial().without_charges())
        };
        let documents = of_kind(InputKind::Document).await?;
        Ok(Reference::new(documents, of_kind(InputKind::Query).await?))
    }
}
