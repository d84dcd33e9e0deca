//! Reads the inputs and the output of an `.onnx` file.

use ort::{
    session::Session,
    value::{Outlet, TensorElementType, ValueType},
};

use super::inputs::{Input, InputRole};

/// Names of outputs that hold one vector per text.
const POOLED: [&str; 2] = ["sentence_embedding", "text_embeds"];

/// The inputs of a file, and the output that is taken.
#[derive(Debug)]
pub(super) struct FileSignature {
    pub(super) inputs: Vec<Input>,
    /// Texts that a batch must have, if the file fixes their number.
    pub(super) fixed_texts: Option<usize>,
    /// Tokens that a row must have, if the file fixes their number.
    pub(super) fixed_tokens: Option<usize>,
    pub(super) output: FileOutput,
}

/// The output that is taken from a file.
#[derive(Debug)]
pub(super) struct FileOutput {
    pub(super) name: String,
    /// Axes of its shape: 2 for one vector per text, 3 for one vector per token.
    pub(super) axes: usize,
    /// Components of a vector, if the file fixes their number.
    pub(super) width: Option<usize>,
}

impl FileOutput {
    /// Returns whether the output holds one vector per text.
    pub(super) const fn is_pooled(&self) -> bool {
        self.axes == 2
    }

    /// Returns whether the name says that the output holds one vector per text.
    pub(super) fn is_pooled_by_name(&self) -> bool {
        POOLED.contains(&self.name.as_str())
    }
}

impl FileSignature {
    /// Reads the signature of a session's file. `positions_after` is the padding's id in families that number positions
    /// from one above it. `by_token` asks for an output of one vector per token, if there is one. An error is the end of
    /// a sentence that begins with the file's path.
    pub(super) fn read(session: &Session, positions_after: Option<usize>, by_token: bool) -> Result<Self, String> {
        let (mut inputs, mut fixed_texts, mut fixed_tokens) = (Vec::new(), None, None);
        for outlet in session.inputs() {
            let (input, [texts, tokens]) = input(outlet, positions_after)?;
            fixed_texts = fixed_texts.or(texts);
            fixed_tokens = fixed_tokens.or(tokens);
            inputs.push(input);
        }
        if inputs.iter().all(|input| input.role != InputRole::Ids) {
            return Err("has no input input_ids".into());
        }
        Ok(Self { inputs, fixed_texts, fixed_tokens, output: output(session.outputs(), by_token)? })
    }
}

/// Reads an input, and the numbers of texts and tokens that it requires.
fn input(outlet: &Outlet, positions_after: Option<usize>) -> Result<(Input, [Option<usize>; 2]), String> {
    let name = outlet.name();
    let role = match name {
        "input_ids" => InputRole::Ids,
        "attention_mask" => InputRole::Mask,
        "token_type_ids" => InputRole::Types,
        "position_ids" => positions_after.map_or(InputRole::Places, |pad| InputRole::PlacesAfter(pad as u32)),
        name => return Err(format!("has an input {name}, which is not known")),
    };
    let wide = match outlet.dtype().tensor_type() {
        Some(TensorElementType::Int64) => true,
        Some(TensorElementType::Int32) => false,
        _ => return Err(format!("has an input {name} that is not of whole numbers")),
    };
    let shape = outlet.dtype().tensor_shape().filter(|shape| shape.len() == 2);
    let shape = shape.ok_or_else(|| format!("has an input {name} that is not texts by tokens"))?;
    let fixed = |size: i64| usize::try_from(size).ok().filter(|&size| size > 0);
    Ok((Input { name: name.to_owned(), role, wide }, [fixed(shape[0]), fixed(shape[1])]))
}

/// Chooses the output to take, by name and then by shape.
fn output(outlets: &[Outlet], by_token: bool) -> Result<FileOutput, String> {
    let mut names = [POOLED[0], POOLED[1], "last_hidden_state", "token_embeddings"];
    if by_token {
        names.rotate_left(POOLED.len());
    }
    let named = names.iter().find_map(|name| outlets.iter().find(|outlet| outlet.name() == *name));
    let outlet = match (named, outlets) {
        (Some(outlet), _) => outlet,
        (None, outlets) if outlets.iter().any(|outlet| outlet.name() == "logits") => {
            return Err(format!(
                "has the output logits, which are scores of words or classes and no vectors: it is a language model, a \
                 sparse model, a reranker or a classifier. Take a file of an embedder, with an output {}",
                names.join(" or ")
            ));
        }
        (None, [outlet]) => outlet,
        _ => {
            let have: Vec<&str> = outlets.iter().map(Outlet::name).collect();
            return Err(format!("has the outputs {}: none of {}", have.join(", "), names.join(", ")));
        }
    };
    let ValueType::Tensor { shape, .. } = outlet.dtype() else {
        return Err(format!("has an output {} that is not a tensor", outlet.name()));
    };
    let width = shape.last().and_then(|&width| usize::try_from(width).ok()).filter(|&width| width > 0);
    Ok(FileOutput { name: outlet.name().to_owned(), axes: shape.len(), width })
}
