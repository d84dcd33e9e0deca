//! Answers requests for vectors at once.

use hyper::body::Incoming;
use serde_json::json;

use crate::{
    Tier,
    testing::{
        account::Account,
        api_error::ApiError,
        body_check::{check, parse},
        reply::{self, Reply},
        upload::{NoUpload, read_whole},
        vectors::vector,
    },
};

/// The most bytes of a request: more than any that can be accepted.
const LONGEST_BODY: usize = 16 << 20;

pub(super) async fn create(account: &Account, body: &mut Incoming) -> Result<Reply, NoUpload> {
    let body = read_whole(body, LONGEST_BODY).await?;
    let accepted = check(&parse(&body)?, &account.settings)?;
    account.with(|state| {
        if !state.pay(accepted.tokens) {
            return Err(ApiError::no_credit());
        }
        state.counts.embeddings += 1;
        state.ledger.bill(Tier::Standard, &accepted.texts, accepted.tokens);
        Ok(())
    })?;
    let mut written = br#"{"object":"list","data":["#.to_vec();
    for (index, text) in accepted.texts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        written.extend_from_slice(format!(r#"{comma}{{"object":"embedding","index":{index},"embedding":"#).as_bytes());
        accepted.encoding.write(&vector(&accepted.model, accepted.dimensions, text), &mut written);
        written.push(b'}');
    }
    let usage = json!({"prompt_tokens": accepted.tokens, "total_tokens": accepted.tokens});
    written.extend_from_slice(format!(r#"],"model":{},"usage":{usage}}}"#, json!(accepted.model)).as_bytes());
    Ok(reply::answer(200, "application/json", written))
}
