//! Answers which models there are.

use serde_json::{Value, json};

use crate::testing::{
    account::Account,
    api_error::ApiError,
    reply::{self, Reply},
    settings::Model,
};

pub(super) fn get(account: &Account, id: &str) -> Result<Reply, ApiError> {
    let model =
        |model: &Model| json!({"id": model.name, "object": "model", "created": 1_705_948_997, "owned_by": "system"});
    if id.is_empty() {
        let models: Vec<Value> = account.settings.models.iter().map(model).collect();
        return Ok(reply::json(200, &json!({"object": "list", "data": models})));
    }
    match account.settings.model(id) {
        Some(found) => Ok(reply::json(200, &model(found))),
        None => {
            let message = format!("The model '{id}' does not exist");
            Err(ApiError::new(404, message).with_param("model").with_code("model_not_found"))
        }
    }
}
