//! The scheduler on a stand-in tokenizer and a stand-in model, which write down what they are asked to do.

mod harness;
mod long_texts;

use std::{
    ops::Range,
    task::{Context, Wake, Waker},
    time::Duration,
};

use proptest::prelude::*;

use self::harness::{
    Answer, Ask, Asked, CONFUSING, Event, Harness, LARGE, LIMIT, OVER, POISON, SHOCK, SLOW, TEST_TIMEOUT, UNKNOWN,
    WIDTH, answer, apart, both, ids, ids_of, one_by_one, padded, patiently, sorted, text,
};
use super::{
    packing::BatchPart,
    pieces::{GIANT_BYTES, PIECE_BYTES, SLICE_BYTES, StretchSize, TEXT_BYTES, TextPiece},
    run_stage::halves,
    *,
};
use crate::{BadTextReason, InputKind, Lane, Truncation};

/// Interactive batches after which waiting bulk work gets one.
const MAX_INTERACTIVE_RUN: usize = 8;

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![40 => 1_usize..40, 40 => 1_usize..600, 1 => 8_000_usize..30_000]
}

/// Calls of good texts, some to be truncated.
fn good_calls() -> impl Strategy<Value = Vec<Ask>> {
    let texts = prop::collection::vec((lengths(), 0_usize..26, any::<bool>()), 1..30);
    let call = (texts, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(texts, query, bulk, truncate)| {
        let texts = texts.into_iter().map(|(length, salt, over)| {
            let mut text = text(length, salt);
            if salt % 2 == 0 {
                // A long text is split there.
                text = text.replace('j', " ");
            }
            if truncate && over {
                text.insert(length / 2, OVER);
            }
            text
        });
        Ask {
            kind: if query { InputKind::Query } else { InputKind::Document },
            lane: if bulk { Lane::Bulk } else { Lane::Interactive },
            truncation: if truncate { Truncation::Truncate } else { Truncation::Error },
            ..Ask::documents(texts)
        }
    });
    prop::collection::vec(call, 1..9)
}

fn roles(packing: &Packing, tokenize: usize, embed: usize, are_apart: bool) -> Vec<WorkerRole> {
    if are_apart { apart(packing, tokenize, embed) } else { vec![both(packing); embed] }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_text_is_embedded_once_in_a_batch_that_suits_it(
        calls in good_calls(),
        (tokenize, embed, are_apart, plugged) in (1_usize..3, 1_usize..4, any::<bool>(), any::<bool>()),
        (budget, overhead, most) in (1_usize..2000, 0_usize..100, prop::option::of(1_usize..9)),
    ) {
        let packing = Packing::new(budget, overhead, most);
        let harness = Harness::start(roles(&packing, tokenize, embed, are_apart));
        if plugged {
            harness.log.close();
        }
        let asked: Vec<Asked> = calls.iter().map(|call| harness.ask(call)).collect();
        harness.log.open();
        asked.into_iter().for_each(Asked::end_well);

        let batches = harness.log.batches();
        let all: Vec<Vec<u32>> = calls.iter().flat_map(Ask::ids).collect();
        for batch in &batches {
            prop_assert!(batch.len() == 1 || padded(batch) <= budget, "{} tokens", padded(batch));
            prop_assert!(batch.len() <= most.unwrap_or(usize::MAX), "{} texts", batch.len());
            let lengths = || batch.iter().map(Vec::len);
            prop_assert!(lengths().max() <= lengths().min().map(|shortest| shortest + overhead), "too unlike");
        }
        let stats = harness.scheduler.stats();
        prop_assert_eq!(stats.batches as usize, batches.len());
        prop_assert_eq!(stats.texts as usize, all.len());
        prop_assert_eq!(stats.tokens as usize, all.iter().map(Vec::len).sum::<usize>());
        prop_assert_eq!(stats.padded_tokens as usize, batches.iter().map(|batch| padded(batch)).sum::<usize>());
        prop_assert_eq!(sorted(batches.concat()), sorted(all), "embedded are other texts");
        let texts = calls.into_iter().flat_map(|call| call.texts).collect();
        prop_assert_eq!(sorted(lock(&harness.log.state).texts()), sorted(texts), "tokenized are other texts");
        harness.wait_until_drained();
    }

    /// If some texts fail and some calls are dropped, every other call gets its rows.
    #[test]
    fn every_call_ends_as_its_own_texts_do(
        mut calls in good_calls(),
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_usize..5), 0..6),
        dropped in prop::collection::vec(0_usize..10, 8),
        (tokenize, embed, are_apart, plugged) in (1_usize..3, 1_usize..4, any::<bool>(), any::<bool>()),
        (budget, overhead, room) in (1_usize..2000, 0_usize..100, 20_usize..1500),
    ) {
        for (call, at, fault) in faults {
            let texts = &mut call.get_mut(&mut calls).texts;
            at.get_mut(texts).push([OVER, UNKNOWN, CONFUSING, POISON, SHOCK][fault]);
        }
        let harness = Harness::with_room(roles(&Packing::new(budget, overhead, None), tokenize, embed, are_apart), room);
        if plugged {
            harness.log.close();
        }
        let asked: Vec<(Asked, usize)> = calls.iter().map(|call| harness.ask(call)).zip(dropped).collect();
        // Some go at once, some in the middle.
        let asked: Vec<(Asked, usize)> = asked.into_iter().filter(|(_, when)| *when > 0).collect();
        harness.log.open();
        for (asked, when) in asked {
            if when == 1 {
                continue;
            }
            let good = asked.ask.texts.iter().all(|text| {
                ids_of(text, asked.ask.truncation).is_some_and(|ids| {
                    ids.len() <= room && !ids.iter().any(|&id| [POISON, SHOCK].map(u32::from).contains(&id))
                })
            });
            if good {
                asked.end_well();
            } else {
                asked.end_badly();
            }
        }
        for batch in harness.log.batches() {
            prop_assert!(batch.len() == 1 || padded(&batch) <= budget, "{} tokens", padded(&batch));
        }
        harness.wait_until_drained();
    }
}

#[test]
fn calls_that_wait_share_a_batch_whatever_their_kind() {
    let harness = Harness::start([both(&Packing::new(1000, 8, None))]);
    let plug = harness.plug();
    let calls: Vec<Asked> = (0..20)
        .map(|i| {
            let kind = if i % 3 == 0 { InputKind::Query } else { InputKind::Document };
            harness.ask(&Ask { kind, ..Ask::documents([text(10, i)]) })
        })
        .collect();
    harness.log.open();
    plug.end_well();
    calls.into_iter().for_each(Asked::end_well);
    assert_eq!(harness.log.batches().iter().map(Vec::len).collect::<Vec<_>>(), [1, 20]);
}

/// Texts that are a little longer than the text of the call whose turn it is share it too, where padding is cheaper than
/// another batch.
#[test]
fn calls_that_wait_share_a_batch_whoever_came_first() {
    for (calls, overhead, sizes) in [
        // Of 4 texts of 10, 11 and 12 tokens, another batch would cost more than the padding.
        (4, 8, &[1, 4][..]),
        // Of 20, one batch would cost 20 x 12 + 8 tokens; those of 12 and 11, and those of 10, cost 4 less.
        (20, 8, &[1, 14, 6]),
        (20, 100, &[1, 20]),
    ] {
        let harness = Harness::start([both(&Packing::new(1000, overhead, None))]);
        let plug = harness.plug();
        let calls: Vec<Asked> = (0..calls).map(|i| harness.ask(&Ask::documents([text(10 + i % 3, i)]))).collect();
        harness.log.open();
        plug.end_well();
        calls.into_iter().for_each(Asked::end_well);
        assert_eq!(harness.log.batches().iter().map(Vec::len).collect::<Vec<_>>(), sizes);
    }
}

#[test]
fn a_call_is_filled_up_with_others_of_like_length_only() {
    let harness = Harness::start([both(&Packing::new(100, 8, None))]);
    let plug = harness.plug();
    let [a, b, c, d] = [text(20, 0), text(12, 1), text(11, 2), text(20, 3)];
    let calls = [Ask::documents([&a, &c]), Ask::documents([&b]), Ask::documents([&d])].map(|call| harness.ask(&call));
    harness.log.open();
    plug.end_well();
    calls.into_iter().for_each(Asked::end_well);
    let batches: Vec<_> = harness.log.batches().into_iter().skip(1).map(sorted).collect();
    // The second and the third are shorter, and share a batch of their own.
    assert_eq!(batches[0], sorted(ids(&[&a, &d])));
    assert_eq!(batches[1], sorted(ids(&[&b, &c])));
}

#[test]
fn a_query_overtakes_bulk_batches() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.close();
    let bulk = harness.ask(&Ask::documents(["bulk"; 6]));
    harness.log.wait_until(|state| state.batches().len() == 1);
    let query = harness.ask(&Ask::queries(["query"]));
    harness.log.open();
    query.end_well();
    bulk.end_well();
    assert_eq!(harness.log.batches()[..3], ["bulk", "query", "bulk"].map(|text| ids(&[text])));
}

/// Most batches between two of this text.
fn longest_gap(batches: &[Vec<Vec<u32>>], of: &str) -> usize {
    let last = batches.iter().rposition(|batch| *batch == ids(&[of])).expect("some");
    let gaps = batches[..=last].split(|batch| *batch == ids(&[of])).map(<[_]>::len);
    gaps.max().expect("a gap")
}

#[test]
fn a_flood_of_queries_does_not_starve_bulk_texts() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.close();
    let bulk = harness.ask(&Ask::documents(["bulk"; 6]));
    harness.log.wait_until(|state| state.batches().len() == 1);
    let queries: Vec<Asked> = (0..100).map(|_| harness.ask(&Ask::queries(["query"]))).collect();
    harness.log.open();
    queries.into_iter().for_each(Asked::end_well);
    bulk.end_well();
    let batches = harness.log.batches();
    assert!((1..=MAX_INTERACTIVE_RUN).contains(&longest_gap(&batches, "bulk")), "{}", longest_gap(&batches, "bulk"));
    assert!(batches[1..MAX_INTERACTIVE_RUN].iter().all(|batch| *batch == ids(&["query"])), "queries do not go first");
}

/// Tokenizing for the bulk lane does not count as embedding for it.
#[test]
fn a_flood_of_queries_does_not_starve_bulk_texts_of_a_device() {
    let harness = Harness::start(apart(&one_by_one(), 1, 1));
    harness.log.close();
    let bulk = harness.ask(&Ask::documents(["bulk"; 4]));
    harness.log.wait_until(|state| state.batches().len() == 1);
    let queries = harness.ask(&Ask::queries(["query"; 40]));
    harness.log.wait_until(|state| state.texts().len() == 44);
    let mut more = Vec::new();
    for done in 0..30 {
        // The tokenizer has given its turn to the bulk lane before every batch.
        more.push(harness.ask(&Ask::documents(["more"])));
        harness.log.wait_until(|state| state.texts().len() == 45 + done);
        harness.log.set(|state| state.batches = Some(1));
        harness.log.wait_until(|state| state.batches().len() == 2 + done);
    }
    let bulk_batches = harness.log.batches()[1..].iter().filter(|batch| **batch != ids(&["query"])).count();
    assert!(bulk_batches >= 2, "{bulk_batches} of 30");
    harness.log.open();
    [bulk, queries].into_iter().chain(more).for_each(Asked::end_well);
}

/// A thread that does nothing but tokenize has no batches to count.
#[test]
fn many_small_queries_do_not_starve_bulk_texts_of_a_tokenizer() {
    let harness = Harness::start(apart(&one_by_one(), 1, 1));
    harness.log.set(|state| state.texts = Some(0));
    let mut queries = vec![harness.ask(&Ask::queries([format!("{SLOW}first")]))];
    harness.log.wait_until(|state| state.texts().len() == 1);
    queries.extend((0..40).map(|i| harness.ask(&Ask::queries([format!("query {i}")]))));
    let bulk = harness.ask(&Ask::documents(["bulk"]));
    harness.log.open();
    bulk.end_well();
    queries.into_iter().for_each(Asked::end_well);
    let texts = lock(&harness.log.state).texts();
    let before = texts.iter().position(|text| text == "bulk").expect("tokenized");
    assert!(before <= 2 * MAX_INTERACTIVE_RUN, "after {before} texts");
}

#[test]
fn tokenizing_many_queries_does_not_starve_bulk_texts() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.set(|state| state.texts = Some(0));
    // Each a piece of its own.
    let pieces = |count: usize| (0..count).map(|i| format!("{SLOW}{}", text(LARGE, i)));
    let queries = harness.ask(&Ask::queries(pieces(40)));
    harness.log.wait_until(|state| state.texts().len() == 1);
    let bulk = harness.ask(&Ask::documents(["bulk"]));
    harness.log.open();
    bulk.end_well();
    queries.end_well();
    let texts = lock(&harness.log.state).texts();
    let before = texts.iter().position(|text| text == "bulk").expect("tokenized");
    assert!(before <= 2 * MAX_INTERACTIVE_RUN, "after {before} pieces");
}

#[test]
fn a_small_call_is_not_stuck_behind_a_large_one() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.close();
    let large = harness.ask(&Ask::documents(["large"; 100]));
    harness.log.wait_until(|state| state.batches().len() == 1);
    let small = harness.ask(&Ask::documents(["small"; 3]));
    harness.log.open();
    small.end_well();
    large.end_well();
    let batches = harness.log.batches();
    // The batches of the two calls take turns.
    let last = batches.iter().rposition(|batch| *batch == ids(&["small"])).expect("embedded");
    assert!(last <= 6, "{last}");
}

#[test]
fn a_small_call_is_not_stuck_behind_the_tokenizing_of_a_large_one() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.set(|state| state.texts = Some(0));
    let large = harness.ask(&Ask::documents((0..40).map(|i| format!("{SLOW}{}", text(LARGE, i)))));
    harness.log.wait_until(|state| state.texts().len() == 1);
    let small = harness.ask(&Ask::documents(["small"]));
    harness.log.open();
    small.end_well();
    large.end_well();
    let events = harness.log.events();
    let embedded = events.iter().position(|event| *event == Event::Batch(ids(&["small"]))).expect("embedded");
    assert!(embedded <= 8, "after {embedded} pieces of work");
}

#[test]
fn all_bad_texts_of_all_pieces_are_named_and_nothing_is_embedded() {
    let harness = Harness::start(vec![both(&Packing::new(256, 8, None)); 2]);
    let with = |character: char| format!("{}{character}", text(PIECE_BYTES, 0));
    let giant = format!("{}{OVER}", text(GIANT_BYTES, 0));
    let texts = [with(OVER), with('a'), with(UNKNOWN), "a".into(), giant.clone(), with('b'), with(OVER)];
    let error = harness.ask(&Ask::documents(&texts)).end_badly();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let too_long = |text: &str| BadTextReason::TooLong { tokens: text.len(), limit: LIMIT };
    let bad = [
        BadText::new(0, too_long(&texts[0])),
        BadText::new(2, BadTextReason::Rejected),
        BadText::new(4, too_long(&giant)),
        BadText::new(6, too_long(&texts[6])),
    ];
    assert_eq!(error.bad_texts(), bad);
    assert!(harness.log.batches().is_empty());
    harness.ask(&Ask::documents(["next"])).end_well();
    harness.wait_until_drained();
}

#[test]
fn texts_known_to_be_bad_are_named_with_the_others() {
    let harness = Harness::start([both(&Packing::new(256, 8, None))]);
    let bad = vec![BadText::new(1, BadTextReason::Empty)];
    for (last, named) in [("good", vec![1]), ("long!", vec![1, 2])] {
        let error = harness.ask(&Ask { bad: bad.clone(), ..Ask::documents(["good", "", last]) }).end_badly();
        assert_eq!(error.bad_texts().iter().map(|bad| bad.index).collect::<Vec<_>>(), named);
    }
    assert!(harness.log.batches().is_empty());
}

/// Four calls wait, one of which has this text.
fn one_of_four_fails(text: &str) -> (Harness, Error) {
    let harness = Harness::start([both(&Packing::new(1000, 1000, None))]);
    let plug = harness.plug();
    let good = ["good", "fine", "well"].map(|good| harness.ask(&Ask::documents([good, "long enough"])));
    let bad = harness.ask(&Ask::documents(["okay", text]));
    harness.log.open();
    plug.end_well();
    let error = bad.end_badly();
    good.into_iter().for_each(Asked::end_well);
    harness.ask(&Ask::documents(["next"])).end_well();
    harness.wait_until_drained();
    (harness, error)
}

#[test]
fn a_text_that_fails_the_model_fails_its_own_call_only() {
    for text in ["bad X", "bad P"] {
        let (harness, error) = one_of_four_fails(text);
        assert_eq!(error.kind(), ErrorKind::Inference, "{error}");
        let shared = harness.log.batches().iter().filter(|batch| batch.len() == 8).count();
        assert_eq!(shared, 1, "they did not share a batch");
        // None of the others are counted twice: plug, three calls of two texts, and the next.
        assert_eq!(harness.scheduler.stats().texts, 8);
    }
}

#[test]
fn a_text_that_the_tokenizer_panics_on_fails_its_own_call_only() {
    let (_, error) = one_of_four_fails("~");
    assert_eq!(error.kind(), ErrorKind::Inference, "{error}");
}

#[test]
fn a_batch_that_has_no_room_is_halved_and_the_size_remembered() {
    let packing = Packing::new(160, 8, None);
    let harness = Harness::with_room([both(&packing)], 45);
    harness.ask(&Ask::documents((0..16).map(|i| text(10, i)))).end_well();
    assert_eq!(packing.budget(), 40);
    let first: Vec<usize> = harness.log.batches().iter().map(|batch| padded(batch)).collect();
    assert_eq!(first, [160, 80, 40, 40, 80, 40, 40]);
    harness.ask(&Ask::documents((0..16).map(|i| text(10, i)))).end_well();
    let then: Vec<usize> = harness.log.batches()[first.len()..].iter().map(|batch| padded(batch)).collect();
    assert_eq!(then, [40; 4]);
    // Failed batches are not counted.
    assert_eq!((harness.scheduler.stats().texts, harness.scheduler.stats().batches), (32, 8));
}

#[test]
fn a_single_text_without_room_fails_its_own_call_only() {
    let harness = Harness::with_room([both(&Packing::new(200, 8, None))], 45);
    let plug = harness.plug();
    let large = harness.ask(&Ask::documents([text(50, 0)]));
    let fits = [1, 2, 3].map(|i| harness.ask(&Ask::documents([text(44, i), text(5, i)])));
    harness.log.open();
    plug.end_well();
    assert_eq!(large.end_badly().kind(), ErrorKind::Inference);
    fits.into_iter().for_each(Asked::end_well);
    assert_eq!(harness.log.batches()[1].len(), 4, "they did not share a batch");
    harness.ask(&Ask::documents([text(45, 0)])).end_well();
}

#[test]
fn a_device_begins_before_all_is_tokenized() {
    let harness = Harness::start(apart(&Packing::new(100, 8, None), 2, 1));
    harness.log.set(|state| state.texts = Some(0));
    // Four pieces, the last of which waits until something was embedded.
    let mut texts: Vec<String> = (0..4).map(|i| text(LARGE, i)).collect();
    texts[3].push(SLOW);
    let call = harness.ask(&Ask::documents(&texts));
    harness.log.wait_until(|state| !state.batches().is_empty());
    harness.log.open();
    call.end_well();
    assert_eq!(sorted(harness.log.batches().concat()), sorted(Ask::documents(texts).ids()));
}

#[test]
fn truncated_texts_are_named_in_order_whichever_was_tokenized_first() {
    let harness = Harness::start(vec![both(&Packing::new(100, 8, None)); 2]);
    harness.log.set(|state| state.texts = Some(0));
    let mut texts: Vec<String> = (0..4).map(|i| format!("{}{OVER}", text(LARGE, i))).collect();
    texts[0].insert(0, SLOW);
    let call = harness.ask(&Ask { truncation: Truncation::Truncate, ..Ask::documents(texts) });
    // The other thread begins a piece when it is done with the one before.
    harness.log.wait_until(|state| state.texts().len() == 4);
    harness.log.open();
    call.end_well();
}

#[test]
fn a_giant_text_holds_up_its_own_call_only() {
    let harness = Harness::start([both(&Packing::new(100, 8, None))]);
    harness.log.set(|state| state.texts = Some(0));
    let giant = format!("{}{SLOW}", text(GIANT_BYTES, 0));
    let with_giant = harness.ask(&Ask::documents(["before", &giant, "behind"]));
    harness.ask(&Ask::documents(["other", "texts"])).end_well();
    harness.ask(&Ask::queries(["query"])).end_well();
    harness.log.open();
    with_giant.end_well();
}

#[test]
fn what_is_dropped_is_not_embedded() {
    let harness = Harness::start([both(&one_by_one())]);
    let plug = harness.plug();
    let giant = text(GIANT_BYTES, 0);
    let [first, dropped, last] = [["first", "first"], ["dropped", giant.as_str()], ["last", "last"]]
        .map(|two| harness.ask(&Ask::documents(two)));
    drop(dropped);
    assert_eq!(harness.queued(), 2, "it waits for a thread to take it out");
    harness.log.open();
    for call in [plug, first, last] {
        call.end_well();
    }
    assert_eq!(
        sorted(harness.log.batches().concat()),
        sorted(ids(&["plug", "first", "first", "last", "last"])),
        "embedded are other texts"
    );
    harness.wait_until_drained();

    // Dropped with one batch under way and others waiting.
    harness.log.close();
    let before = harness.log.batches().len();
    let call = harness.ask(&Ask::documents(["another"; 10]));
    harness.log.wait_until(|state| state.batches().len() == before + 1);
    drop(call);
    harness.log.open();
    harness.ask(&Ask::documents(["next"])).end_well();
    assert_eq!(harness.log.batches().len(), before + 2);
    harness.wait_until_drained();
}

/// Each of the callers who leave looks at its own call, and not at those of the others.
#[test]
fn leaving_costs_the_same_however_many_wait() {
    let harness = Harness::start([both(&one_by_one())]);
    let plug = harness.plug();
    let calls: Vec<Asked> = (0..2000).map(|_| harness.ask(&Ask::documents(["text"]))).collect();
    let before = lock(&harness.scheduler.shared.queue).looked_at();
    let left = calls.len();
    drop(calls);
    let looked_at = lock(&harness.scheduler.shared.queue).looked_at() - before;
    assert!((left..=2 * left).contains(&looked_at), "{looked_at} calls were looked at when {left} left");
    assert_eq!(harness.queued(), 0, "a call that nobody waits for is kept");
    harness.log.open();
    plug.end_well();
    assert_eq!(harness.log.batches(), [ids(&["plug"])]);
}

/// A thread may hold a call that nobody waits for, as long as it tokenizes a giant text of it.
#[test]
fn a_call_that_was_left_frees_its_memory() {
    let texts = ["a", "b"];
    let call = EmbedCall::new(&Batch::documents(&texts), Vec::new(), WIDTH, oneshot::channel().0);
    call.withdraw();
    let state = call.state();
    assert!(state.holds_nothing());
}

/// A call holds its texts, their ids and its rows in memory: nothing of that stays when the call is over.
#[test]
fn a_failed_call_leaves_nothing_in_the_queue() {
    let harness = Harness::start([both(&one_by_one())]);
    harness.log.close();
    let call = harness.ask(&Ask::documents(["X"; 10]));
    harness.log.wait_until(|state| state.batches().len() == 1);
    harness.log.open();
    call.end_badly();
    harness.wait_until_drained();
    assert_eq!(harness.log.batches().len(), 1);

    // One giant text is being tokenized, others wait behind it.
    harness.log.set(|state| state.texts = Some(0));
    let slow = harness.ask(&Ask::documents([format!("{}{SLOW}", text(GIANT_BYTES, 0))]));
    harness.log.wait_until(|state| state.texts().iter().any(|text| text.ends_with(SLOW)));
    let failing = harness.ask(&Ask::documents([text(GIANT_BYTES, 1), "~".to_owned()]));
    failing.end_badly();
    harness.wait_until_drained();
    harness.log.open();
    slow.end_well();
}

#[test]
fn a_deadline_that_has_passed_is_an_error() {
    let harness = Harness::start([both(&one_by_one())]);
    let late = harness.ask(&Ask { deadline: Some(Instant::now()), ..Ask::documents(["late"]) });
    assert_eq!(late.end_badly().kind(), ErrorKind::DeadlinePassed);
    assert!(harness.log.events().is_empty(), "it was begun");
    let later = Instant::now() + 2 * TEST_TIMEOUT;
    harness.ask(&Ask { deadline: Some(later), ..Ask::documents(["early"]) }).end_well();
}

#[test]
fn a_deadline_that_passes_in_the_queue_is_one_callers_own() {
    let harness = Harness::start(apart(&Packing::new(1000, 8, None), 1, 1));
    let plug = harness.plug();
    let deadline = Instant::now() + Duration::from_millis(50);
    let late = harness.ask(&Ask { deadline: Some(deadline), ..Ask::documents(["late", "too late"]) });
    let mate = harness.ask(&Ask::documents(["mate"]));
    patiently(|| Instant::now() > deadline);
    harness.log.open();
    assert_eq!(late.end_badly().kind(), ErrorKind::DeadlinePassed);
    [plug, mate].into_iter().for_each(Asked::end_well);
    assert_eq!(sorted(harness.log.batches().concat()), sorted(ids(&["plug", "mate"])));
    harness.wait_until_drained();
}

/// Threads, and what they run on, end with the last caller.
#[test]
fn the_last_caller_may_be_one_that_waits() {
    let harness = Harness::start(vec![both(&one_by_one()); 2]);
    let calls: Vec<Asked> = (0..10).map(|_| harness.ask(&Ask::documents(["some", "texts"]))).collect();
    let Harness { log, opens, scheduler } = harness;
    drop((opens, scheduler));
    drop(calls);
    assert_eq!(Arc::strong_count(&log), 1, "a thread is left");
}

/// Drops the call that is woken.
struct DropsIt(Mutex<Option<Answer>>);

impl Wake for DropsIt {
    fn wake(self: Arc<Self>) {
        let answer = lock(&self.0).take();
        drop(answer);
    }
}

/// Then the scheduler is dropped on one of its own threads.
#[test]
fn the_last_caller_may_go_when_it_is_woken() {
    let harness = Harness::start(vec![both(&one_by_one()); 2]);
    harness.log.close();
    let drops_it = Arc::new(DropsIt(Mutex::default()));
    {
        let waker = Waker::from(Arc::clone(&drops_it));
        let mut slot = lock(&drops_it.0);
        let answer = slot.insert(answer(&harness.scheduler, &Ask::documents(["text"])));
        assert!(answer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let Harness { log, opens, scheduler } = harness;
    drop(scheduler);
    drop(opens);
    patiently(|| Arc::strong_count(&log) == 1);
}

#[test]
fn a_text_is_never_cut_into_two_pieces_nor_forgotten_between_them() {
    let piece = |first: usize, piece: &TextPiece| -> Vec<(usize, String)> {
        assert_eq!(piece.first, first);
        piece.texts().map(|(at, text)| (at, text.to_owned())).collect()
    };
    let large = text(PIECE_BYTES - 2 * TEXT_BYTES - 1, 0);
    let giant = text(GIANT_BYTES, 0);
    let texts = ["", &large, "one more", "next", &giant, &giant, "", "behind", &giant];
    let call = EmbedCall::new(&Batch::documents(&texts), Vec::new(), WIDTH, oneshot::channel().0);
    let pieces: Vec<TextPiece> = call.state().pieces.drain(..).collect();
    let firsts: Vec<usize> = pieces.iter().map(|piece| piece.first).collect();
    assert_eq!(firsts, [0, 3, 4, 5, 6, 8]);
    let all = pieces.iter().flat_map(|one| piece(one.first, one)).collect();
    assert_eq!(sorted(all), texts.iter().enumerate().map(|(at, &text)| (at, text.to_owned())).collect::<Vec<_>>());
}

/// Batches may be split in two any number of times, and lose or double nothing.
#[test]
fn halves_hold_all() {
    let call = |range: Range<usize>| {
        let texts: Vec<&str> = range.clone().map(|_| "a").collect();
        let call = EmbedCall::new(&Batch::documents(&texts), Vec::new(), WIDTH, oneshot::channel().0);
        BatchPart { call: Arc::new(call), texts: range.map(|at| (at, Box::default())).collect() }
    };
    for sizes in [[1, 1, 0], [2, 0, 0], [5, 1, 2], [1, 1, 7], [3, 3, 3]] {
        let parts: Vec<BatchPart> = sizes.iter().filter(|&&size| size > 0).map(|&size| call(0..size)).collect();
        let calls: Vec<Arc<EmbedCall>> = parts.iter().map(|part| Arc::clone(&part.call)).collect();
        let texts: usize = sizes.iter().sum();
        let halves = halves(parts, texts);
        let of = |half: &[BatchPart]| -> usize { half.iter().map(|part| part.texts.len()).sum() };
        assert_eq!((of(&halves[0]), of(&halves[1])), (texts / 2, texts - texts / 2), "{sizes:?}");
        for (call, size) in calls.iter().zip(sizes.into_iter().filter(|&size| size > 0)) {
            let own = halves.iter().flatten().filter(|part| Arc::ptr_eq(&part.call, call));
            let places = own.flat_map(|part| part.texts.iter().map(|&(at, _)| at)).collect();
            assert_eq!(sorted(places), (0..size).collect::<Vec<_>>(), "{sizes:?}");
        }
        assert!(halves.iter().flatten().all(|part| !part.texts.is_empty()), "{sizes:?}");
    }
}
