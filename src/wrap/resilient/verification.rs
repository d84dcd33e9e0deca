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
    Batch, Charges, Error, ErrorKind, InputKind, Lane, Result, Truncation, all::embed_all, checked::cost_of,
    observer::EventKind, telemetry,
};

/// The texts whose vectors tell models apart: prose, a question, other scripts, code, a single word. The last one is long,
/// so that it shows where a server truncates. They must never change: vectors of them may be kept.
const PROBES: [&str; 6] = [
    "The quick brown fox jumps over the lazy dog; 0123456789, ÄÖÜ and 中文.",
    "how do I read a file line by line?",
    "Schafe geben Wolle und Milch. 羊は毛のために飼われる。",
    "fn main() { let rows: Vec<f32> = vec![0.5; 8]; println!(\"{rows:?}\"); }",
    "water",
    include_str!("long_probe.txt"),
];

impl Inner {
    /// Compares all members in the primary's space with the primary. Returns what it cost.
    pub(super) async fn verify(&self, teller: &(dyn fmt::Display + Sync)) -> Result<Charges> {
        let _held = self.verifying.lock().await;
        let call = Call { batch: Batch::documents(&[]), teller };
        let mut spent = Charges::NONE;
        let primary = self.verify_primary(&call, &mut spent).await;
        let known = self.reference.with(|reference| reference.is_some());
        let fallbacks = self.members.iter().skip(1).filter(|member| known && self.is_comparable(member));
        let results = join_all(fallbacks.map(|member| self.verify_member(member, &call))).await;
        let mut problems: Vec<Error> = primary.err().into_iter().collect();
        for (cost, problem) in results {
            spent += cost;
            problems.extend(problem);
        }
        // A wrong model is what the caller must hear of, whatever else was wrong.
        let worst = problems.iter().position(|problem| problem.kind() == ErrorKind::SpaceMismatch).unwrap_or(0);
        if problems.is_empty() {
            return Ok(spent);
        }
        Err(problems.swap_remove(worst).without_partial().without_charges().with_charges(&spent))
    }

    /// Compares a member with the primary's known vectors, for a call that needs the member now. Returns what it cost,
    /// or `None` if the vectors are not known.
    pub(super) async fn verify_for(&self, member: &Member, call: &Call<'_>) -> Option<Charges> {
        self.reference.with(|reference| reference.is_some()).then_some(())?;
        let _held = self.verifying.lock().await;
        // Another call may have done it meanwhile.
        if member.proof.with(|proof| *proof != Proof::Missing) {
            return Some(Charges::NONE);
        }
        let (cost, _) = self.verify_member(member, call).await;
        Some(cost)
    }

    /// Asks the primary for its vectors. If they are known, they must be the same.
    async fn verify_primary(&self, call: &Call<'_>, spent: &mut Charges) -> Result<()> {
        let primary = &self.members[0];
        let (cost, probed) = self.probe(primary, call).await;
        *spent += cost;
        let probed = probed?;
        let known = self.reference.with(|reference| reference.get_or_insert_with(|| probed.clone()).clone());
        let cosine = known.least_cosine(&probed);
        self.settle(primary, cosine, Proof::Stated, call)
    }

    /// Compares a member with the known vectors.
    async fn verify_member(&self, member: &Member, call: &Call<'_>) -> (Charges, Option<Error>) {
        let (cost, probed) = self.probe(member, call).await;
        let known = self.reference.with(|reference| reference.clone());
        let problem = match (probed, known) {
            (Ok(probed), Some(known)) => self.settle(member, known.least_cosine(&probed), Proof::Verified, call).err(),
            (Err(error), _) => Some(error),
            (Ok(_), None) => None,
        };
        (cost, problem)
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

    /// Embeds the probe texts with a member.
    async fn probe(&self, member: &Member, call: &Call<'_>) -> (Charges, Result<Reference>) {
        let mut spent = Charges::NONE;
        let mut of_kind = async |kind| {
            // Somebody may wait for the member, so the probe does not wait behind bulk work.
            let batch = Batch::new(kind, &PROBES).with_truncation(Truncation::Truncate).with_lane(Lane::Interactive);
            let batch = call.batch.deadline().map_or(batch, |deadline| batch.with_deadline(deadline));
            let batch = call.batch.observer().map_or(batch, |observer| batch.with_observer(observer));
            let shortened = self.shortened(&batch);
            let result = embed_all(&*member.embedder, shortened.as_ref().map_or(batch, |s| s.batch(&batch))).await;
            spent += cost_of(&result);
            result.map_err(|error| error.without_partial().without_charges())
        };
        let probed = async {
            let documents = of_kind(InputKind::Document).await?;
            Ok(Reference::new(documents, of_kind(InputKind::Query).await?))
        };
        let probed = probed.await;
        (spent, probed)
    }

    /// Returns whether a member states the space of the primary.
    pub(super) fn is_comparable(&self, member: &Member) -> bool {
        member.space == self.members[0].space
    }
}
