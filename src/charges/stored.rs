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
        by_payee.iter().for_each(|charge| charges += &Self::of(&charge.payee, charge.usage));
        let paid = charges.usage();
        if paid.tokens > usage.tokens || paid.requests > usage.requests {
            let message = format!(
                "the payees of stored charges have {} tokens and {} requests, but the sum over all of them has {} \
                 tokens and {} requests: the sum must not be smaller",
                paid.tokens, paid.requests, usage.tokens, usage.requests
            );
            return Err(D::Error::custom(message));
        }
        charges.usage = usage;
        Ok(charges)
    }
}
