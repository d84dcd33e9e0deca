//! `embed_query_each`: one query in every space at once, each with a result of its own.

use docvector_embed::{
    Embedder, EmbedderExt, Error, ErrorKind, InputKind, Space, cache::Memory, provider::Fake, wrap::AbSplit,
};
use futures_util::FutureExt;

fn split(models: &[&str]) -> (Vec<Fake>, AbSplit) {
    let fake = |(model, width): (&&str, usize)| {
        Fake::builder().with_model(*model).with_dimensions(width).build().expect("valid")
    };
    let fakes: Vec<Fake> = models.iter().zip([4, 8, 12]).map(fake).collect();
    let arms = models.iter().zip(fakes.clone());
    let split = arms.fold(AbSplit::builder("salt"), |builder, (model, fake)| builder.with_arm(*model, 0, fake));
    let split = split.with_arm("twin of the first", 1, fakes[0].clone()).build().expect("valid");
    (fakes, split)
}

#[tokio::test]
async fn a_query_is_embedded_in_each_space_in_order() {
    let (fakes, split) = split(&["a", "b", "c"]);
    let each = split.embed_query_each("which text?").await;
    let spaces: Vec<&Space> = each.iter().map(|(space, _)| space).collect();
    assert_eq!(spaces, split.spaces().iter().collect::<Vec<_>>());
    assert_eq!(each.len(), 3, "the twin has the first one's space");
    for ((space, query), fake) in each.into_iter().zip(&fakes) {
        assert_eq!(
            (&space, query.expect("embeds")),
            (&fake.spaces()[0], fake.vector_of(InputKind::Query, "which text?"))
        );
        assert_eq!(fake.calls().len(), 1);
        assert!(fake.calls().iter().all(|call| call.kind == InputKind::Query && call.space == Some(space.id())));
    }
}

#[tokio::test]
async fn one_that_fails_does_not_fail_the_others() {
    let (fakes, split) = split(&["a", "b", "c"]);
    fakes[1].fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
    let each = split.embed_query_each("which text?").await;
    let kinds: Vec<_> = each.iter().map(|(_, query)| query.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Unavailable), None]);
    let empty = split.embed_query_each("").await;
    assert!(empty.iter().all(|(_, query)| query.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidInput)));
}

#[tokio::test]
async fn all_spaces_are_asked_at_once() {
    let (fakes, split) = split(&["a", "b", "c"]);
    let holds: Vec<_> = fakes.iter().map(Fake::hold).collect();
    let mut each = Box::pin(split.embed_query_each("held"));
    assert!(each.as_mut().now_or_never().is_none());
    assert!(fakes.iter().all(|fake| fake.calls().len() == 1), "one waits for another");
    drop(holds);
    assert!(each.await.iter().all(|(_, query)| query.is_ok()));
}

#[tokio::test]
async fn every_embedder_has_it() {
    let fake = Fake::new(4);
    let expected = fake.vector_of(InputKind::Query, "which text?");
    let boxed: Box<dyn Embedder> = Box::new(fake.clone().dedup().cached(Memory::new(1 << 20)).expect("one space"));
    for embedder in [boxed, Box::new(fake)] {
        let mut each = embedder.embed_query_each("which text?").await;
        let (space, query) = each.pop().expect("one space");
        assert_eq!((space, query.expect("embeds")), (embedder.spaces()[0].clone(), expected.clone()));
        assert!(each.is_empty());
    }
}
