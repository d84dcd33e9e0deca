//! Tests of spaces: fingerprints and names that never change.

use super::*;
use crate::named::check_names;

fn builder() -> SpaceBuilder {
    Space::builder("a-model", 384)
}

fn id(builder: SpaceBuilder) -> String {
    builder.build().expect("a space").id().to_string()
}

/// Collections and caches are named by these ids: if one changes, they are lost. Add to the table; change nothing in
/// it.
#[test]
fn ids_stay_as_they_are() {
    let pooled = |pooling: &[Pooling]| builder().with_pooling(pooling.iter().copied());
    let all = [Pooling::Mean, Pooling::Cls, Pooling::Max];
    for (what, builder, expected) in [
        ("nothing", builder(), "f5cee18fa372b5c62e6af5ceb54e1f52"),
        ("revision", builder().with_revision("1"), "059a56d91028bf4f1a7dbf2182e924f0"),
        ("label", builder().with_label("a label"), "f5cee18fa372b5c62e6af5ceb54e1f52"),
        ("l2", builder().with_normalization(Normalization::L2), "ada1bf10714ea43cc8963bb443036054"),
        ("int8", builder().with_precision(Precision::Int8), "65b5f8ced76908396a710672238cd959"),
        ("cls", pooled(&[Pooling::Cls]), "b845341cc1f6be9c1b31efed437499d4"),
        ("max", pooled(&[Pooling::Max]), "2c36d7788431bd37c2dbdbab74cd61b4"),
        ("mean", pooled(&[Pooling::Mean]), "98a9d09b389570180e40094f118a25ac"),
        ("mean sqrt", pooled(&[Pooling::MeanSqrtLen]), "998e6c163f7b64ee1d275251e6ab1615"),
        ("weighted", pooled(&[Pooling::WeightedMean]), "f203e898411bc19e20b47d70445164ec"),
        ("last", pooled(&[Pooling::LastToken]), "2815d6fce197f928be130e1863af555c"),
        ("several", pooled(&all), "8d332294945e81cb8e1651fab53c75ad"),
        ("client", builder().with_prompts(Prompts::new("d: ", "q: ")), "0469e001f0737479170845d8ff70708c"),
        ("server", builder().with_prompts(Prompts::by_server("d: ", "q: ")), "de0528bb9f283c7520795f76b5480ff3"),
        ("no prompts", builder().with_prompts(Prompts::by_server("", "")), "f5cee18fa372b5c62e6af5ceb54e1f52"),
    ] {
        assert_eq!(id(builder), expected, "{what}");
    }
}

/// Files and other machines hold these names, and ids are made from them. Add to the tables; change nothing in them.
#[test]
fn names_stay_as_they_are() {
    let pooling = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"];
    assert_eq!(Pooling::ALL.iter().map(|pooling| pooling.as_str()).collect::<Vec<_>>(), pooling);
    assert_eq!((Normalization::None.as_str(), Normalization::L2.as_str()), ("none", "l2"));
    assert_eq!((Precision::Full.as_str(), Precision::Int8.as_str()), ("full", "int8"));
    assert_eq!((PromptsBy::Client.as_str(), PromptsBy::Server.as_str()), ("client", "server"));
}

#[test]
fn names_are_read_back() {
    check_names(Pooling::ALL);
    check_names(Normalization::ALL);
    check_names(Precision::ALL);
    check_names(PromptsBy::ALL);
}
