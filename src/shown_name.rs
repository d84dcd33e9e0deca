//! Reads the names that embedders display, which nest: [`innermost`].

/// Returns the name of the provider inside wrappers: `openai` of `Retry(Timeout(openai))`. A name of several parts stays
/// whole.
pub(crate) fn innermost(name: &str) -> &str {
    let mut name = name;
    while let Some(inside) = inside(name).filter(|inside| !has_parts(inside)) {
        name = inside;
    }
    name
}

/// Returns the name or the names inside a wrapper's, or `None` if it is no wrapper.
pub(crate) fn inside(name: &str) -> Option<&str> {
    let (wrapper, inside) = name.strip_suffix(')')?.split_once('(')?;
    (!wrapper.is_empty() && wrapper.chars().all(char::is_alphanumeric)).then_some(inside)
}

/// Returns whether a name lists several embedders: a comma stands outside of all brackets.
fn has_parts(name: &str) -> bool {
    let mut depth = 0_i32;
    name.chars().any(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_nest() {
        let cases = [
            ("openai/text-embedding-3-small", "openai/text-embedding-3-small"),
            ("Retry(Timeout(fake))", "fake"),
            ("Cached(Resilient(a, b))", "Resilient(a, b)"),
            ("Retry(onnx/a model (v2))", "onnx/a model (v2)"),
            ("(odd)", "(odd)"),
            ("a model (v2)", "a model (v2)"),
            ("", ""),
        ];
        for (name, provider) in cases {
            assert_eq!(innermost(name), provider, "{name}");
        }
        assert_eq!((inside("Metered(fake)"), inside("Resilient(a, b)")), (Some("fake"), Some("a, b")));
        assert_eq!((inside("fake"), inside("onnx/model(v2)"), inside("Open(fake")), (None, None, None));
    }
}
