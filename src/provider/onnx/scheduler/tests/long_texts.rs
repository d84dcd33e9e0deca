//! Long texts: read in turns with others, on threads of their own if they cannot be split, and not in vain.

use super::{
    harness::{SLOW, slow_words},
    *,
};

/// One thread tokenizes and embeds. A text that cannot be split is read elsewhere, also one that is no giant.
#[test]
fn a_text_that_cannot_be_split_holds_up_no_query() {
    for bytes in [PIECE_BYTES, GIANT_BYTES - 1, GIANT_BYTES] {
        let harness = Harness::start([both(&Packing::new(100, 8, None))]);
        harness.log.set(|state| state.texts = Some(0));
        let bulk = harness.ask(&Ask::documents([format!("{}{SLOW}", text(bytes, 0))]));
        harness.log.wait_until(|state| state.texts().len() == 1);
        harness.ask(&Ask::queries(["query"])).end_well();
        harness.log.open();
        bulk.end_well();
    }
}

/// A query waits for one slice of a long text, and the other slices come after it.
#[test]
fn a_long_text_takes_turns_with_others() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.set(|state| state.texts = Some(0));
    let bulk = harness.ask(&Ask::documents([slow_words(20 * SLICE_BYTES)]));
    harness.log.wait_until(|state| state.texts().len() == 1);
    let query = harness.ask(&Ask::queries(["query"]));
    harness.log.open();
    query.end_well();
    bulk.end_well();
    let events = harness.log.events();
    let embedded = events.iter().position(|event| *event == Event::Batch(ids(&["query"]))).expect("embedded");
    let is_stretch = |event: &&Event| matches!(event, Event::Stretch(_));
    let (before, after) = (&events[..embedded], &events[embedded..]);
    assert!(before.iter().filter(is_stretch).count() < 4, "{before:?}");
    assert!(after.iter().filter(is_stretch).count() > 30, "{}", after.len());
}

#[test]
fn a_long_text_whose_caller_has_gone_is_not_read_on() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.set(|state| state.texts = Some(0));
    let call = harness.ask(&Ask::documents([slow_words(20 * SLICE_BYTES)]));
    harness.log.wait_until(|state| state.texts().len() == 1);
    drop(call);
    harness.log.open();
    harness.ask(&Ask::documents(["next"])).end_well();
    let events = harness.log.events();
    assert!(events.iter().filter(|event| matches!(event, Event::Stretch(_))).count() < 4, "{}", events.len());
    harness.wait_until_drained();
}

/// The text cannot be split, and its tokenizing ends only after the caller has the error.
#[test]
fn a_deadline_is_kept_while_a_text_is_tokenized() {
    for bytes in [PIECE_BYTES, GIANT_BYTES] {
        let harness = Harness::start([both(&one_by_one())]);
        harness.log.set(|state| state.texts = Some(0));
        let deadline = Some(Instant::now() + Duration::from_millis(50));
        let late = harness.ask(&Ask { deadline, ..Ask::documents([format!("{}{SLOW}", text(bytes, 0))]) });
        assert_eq!(late.end_badly().kind(), ErrorKind::DeadlinePassed);
        harness.log.open();
        harness.ask(&Ask::documents(["next"])).end_well();
        assert_eq!(harness.log.batches(), [ids(&["next"])]);
        harness.wait_until_drained();
    }
}

/// Neither a long stretch nor a giant text that can be split waits for a giant stretch of another call.
#[test]
fn a_giant_text_does_not_wait_for_another_one() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.set(|state| state.texts = Some(0));
    let slow = harness.ask(&Ask::documents([format!("{}{SLOW}", text(2 * GIANT_BYTES, 0))]));
    harness.log.wait_until(|state| state.texts().len() == 1);
    for other in [text(PIECE_BYTES + 1, 0), "word ".repeat(GIANT_BYTES / 4)] {
        harness.ask(&Ask::documents([other])).end_well();
    }
    harness.log.open();
    slow.end_well();
}

/// A call with many giant texts does not make another call wait for all of them.
#[test]
fn calls_take_turns_by_giant_stretches() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.set(|state| state.texts = Some(0));
    let slow = harness.ask(&Ask::documents([format!("{}{SLOW}", text(GIANT_BYTES, 0))]));
    harness.log.wait_until(|state| state.texts().len() == 1);
    let many = harness.ask(&Ask::documents((1..5).map(|i| text(GIANT_BYTES, i))));
    let shared = &harness.scheduler.shared;
    patiently(|| lock(&shared.queue).waiting(StretchSize::Giant) == 4);
    let other = harness.ask(&Ask::documents([text(GIANT_BYTES, 9)]));
    patiently(|| lock(&shared.queue).waiting(StretchSize::Giant) == 5);
    harness.log.open();
    [slow, many, other].into_iter().for_each(Asked::end_well);
    let texts = lock(&harness.log.state).texts();
    let place = texts.iter().position(|one| *one == text(GIANT_BYTES, 9)).expect("tokenized");
    assert!(place <= 2, "{place}");
}
