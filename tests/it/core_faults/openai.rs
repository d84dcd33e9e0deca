//! What a provider on a network says: a damaged row costs that row, and a broken server is not the caller's mistake.
#![cfg(feature = "openai")]
