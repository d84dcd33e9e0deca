//! Answers requests for vectors at once.

use hyper::body::Incoming;

use crate::{
    Tier,
    testing::{
        account::Account,
        api_error::ApiError,
        body_check::{check, parse},
        reply::{self, Reply},
        upload::{NoUpload, read_whole},
        vectors::{HEAD, ROW_TAIL, row_head, tail, vector},
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
    let mut written = HEAD.as_bytes().to_vec();
    for (index, text) in accepted.texts.iter().enumerate() {
        written.extend_from_slice(row_head(index, index).as_bytes());
        accepted.encoding.write(&vector(&accepted.model, accepted.dimensions, text), &mut written);
        written.extend_from_slice(ROW_TAIL.as_bytes());
    }
    written.extend_from_slice(tail(Some(&accepted.model), accepted.tokens).as_bytes());
    Ok(reply::answer(200, "application/json", written))
}
