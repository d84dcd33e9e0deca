//! Stores [`Payee`] and [`Charges`], with the feature `serde`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Charge, Charges, Payee, Tier};
use crate::Usage;

#[derive(Serialize, Deserialize)]
/// The stored form of [`Payee`].
struct StoredPayee {
    provider: String,
    model: String,
    tier: Tier,
}

#[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
impl Serialize for Payee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (provider, model) = (self.provider().to_owned(), self.model().to_owned());
        StoredPayee { provider, model, tier: self.tier() }.serialize(serializer)
    }
}

#[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
impl<'de> Deserialize<'de> for Payee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StoredPayee { provider, model, tier } = StoredPayee::deserialize(deserializer)?;
        Ok(Self::new(provider, model, tier))
    }
}

/// The stored form of [`Charges`]: the sum, and one item per payee.
#[derive(Serialize, Deserialize)]
struct StoredCharges {
    usage: Usage,
    #[serde(default)]
    by_payee: Vec<Charge>,
}

#[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
impl Serialize for Charges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StoredCharges { usage: self.usage(), by_payee: self.iter().cloned().collect() }.serialize(serializer)
    }
}

#[cfg_attr(docvector_docs, doc(cfg(feature = "serde")))]
impl<'de> Deserialize<'de> for Charges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StoredCharges { usage, by_payee } = StoredCharges::deserialize(deserializer)?;
        let mut charges = Self::NONE;
        for charge in &by_payee {
            if charge.usage != charge.usage.billable() {
                return Err(D::Error::custom(format!(
                    "{} is charged for texts that a cache or an equal text answered",
                    charge.payee
                )));
            }
            charges += &Self::of(&charge.payee, charge.usage);
        }
        // Every field by name: a new one cannot be forgotten here.
        let Usage { tokens, requests, unreported, unanswered, cached: _, deduplicated: _ } = charges.usage();
        let parts = [
            ("tokens", tokens, usage.tokens),
            ("requests", requests, usage.requests),
            ("unreported", unreported, usage.unreported),
            ("unanswered", unanswered, usage.unanswered),
        ];
        if let Some((what, parts, all)) = parts.into_iter().find(|(_, parts, all)| parts > all) {
            let message =
                format!("the payees of stored charges have {what} {parts} together, but all charges have {all}");
            return Err(D::Error::custom(message));
        }
        charges.usage = usage;
        Ok(charges)
    }
}
