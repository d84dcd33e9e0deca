//! The scheduler on a stand-in tokenizer and a stand-in model, which write down what they are asked to do.

mod stage;

use std::{
    ops::Range,
    task::{Context, Wake, Waker},
    time::Duration,
};

use proptest::prelude::*;

use self::stage::{
    Answer, Ask, Asked, CONFUSING, Event, LIMIT, OVER, PATIENCE, POISON, SHOCK, SLOW, Stage, UNKNOWN, WIDTH, answer,
    apart, both, ids, ids_of, one_by_one, padded, patiently, sorted, text,
};
use super::{
    pieces::{GIANT_BYTES, PIECE_BYTES, TEXT_BYTES},
    *,
};
use crate::{BadTextReason, InputKind, Lane, Truncation};

/// Interactive batches after which waiting bulk work gets one.
const HEAD_START: usize = 8;

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..40, 1_usize..600]
}

/// Calls of good texts, some to be cut.
fn good_calls() -> impl Strategy<Value = Vec<Ask>> {
    let texts = prop::collection::vec((lengths(), 0_usize..26, any::<bool>()), 1..30);
    let call = (texts, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(texts, query, bulk, cut)| {
        let texts = texts.into_iter().map(|(length, salt, over)| {
            let mut text = text(length, salt);
            if cut && over {
                text.insert(length / 2, OVER);
            }
            text
        });
        Ask {
            kind: if query { InputKind::Query } else { InputKind::Document },
            lane: if bulk { Lane::Bulk } else { Lane::Interactive },
            truncation: if cut { Truncation::Truncate } else { Truncation::Error },
            ..Ask::documents(texts)
        }
    });
    prop::collection::vec(call, 1..9)
}

fn roles(packing: &Packing, tokenise: usize, embed: usize, are_apart: bool) -> Vec<Role> {
    if are_apart { apart(packing, tokenise, embed) } else { vec![both(packing); embed] }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_text_is_embedded_once_in_a_batch_that_suits_it(
        calls in good_calls(),
        (tokenise, embed, are_apart, plugged) in (1_usize..3, 1_usize..4, any::<bool>(), any::<bool>()),
        (budget, overhead, most) in (1_usize..2000, 0_usize..100, prop::option::of(1_usize..9)),
    ) {
        let packing = Packing::new(budget, overhead, most);
        let stage = Stage::start(roles(&packing, tokenise, embed, are_apart));
        if plugged {
            stage.log.close();
        }
        let asked: Vec<Asked> = calls.iter().map(|call| stage.ask(call)).collect();
        stage.log.open();
        asked.into_iter().for_each(Asked::end_well);

        let batches = stage.log.batches();
        let all: Vec<Vec<u32>> = calls.iter().flat_map(Ask::ids).collect();
        for batch in &batches {
            prop_assert!(batch.len() == 1 || padded(batch) <= budget, "{} tokens", padded(batch));
            prop_assert!(batch.len() <= most.unwrap_or(usize::MAX), "{} texts", batch.len());
            let lengths = || batch.iter().map(Vec::len);
            prop_assert!(lengths().max() <= lengths().min().map(|shortest| shortest + overhead), "too unlike");
        }
        let stats = stage.scheduler.stats();
        prop_assert_eq!(stats.batches as usize, batches.len());
        prop_assert_eq!(stats.texts as usize, all.len());
        prop_assert_eq!(stats.tokens as usize, all.iter().map(Vec::len).sum::<usize>());
        prop_assert_eq!(stats.padded_tokens as usize, batches.iter().map(|batch| padded(batch)).sum::<usize>());
        prop_assert_eq!(sorted(batches.concat()), sorted(all), "embedded are other texts");
        let texts = calls.into_iter().flat_map(|call| call.texts).collect();
        prop_assert_eq!(sorted(lock(&stage.log.state).texts()), sorted(texts), "tokenised are other texts");
        stage.wait_until_drained();
    }

    /// Whatever fails, and whoever goes away, every other call gets its rows.
    #[test]
    fn every_call_ends_as_its_own_texts_do(
        mut calls in good_calls(),
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_usize..5), 0..6),
        dropped in prop::collection::vec(0_usize..10, 8),
        (tokenise, embed, are_apart, plugged) in (1_usize..3, 1_usize..4, any::<bool>(), any::<bool>()),
        (budget, overhead, room) in (1_usize..2000, 0_usize..100, 20_usize..1500),
    ) {
        for (call, at, fault) in faults {
            let texts = &mut call.get_mut(&mut calls).texts;
            at.get_mut(texts).push([OVER, UNKNOWN, CONFUSING, POISON, SHOCK][fault]);
        }
        let stage = Stage::with_room(roles(&Packing::new(budget, overhead, None), tokenise, embed, are_apart), room);
        if plugged {
            stage.log.close();
        }
        let asked: Vec<(Asked, usize)> = calls.iter().map(|call| stage.ask(call)).zip(dropped).collect();
        // Some go at once, some in the middle.
        let asked: Vec<(Asked, usize)> = asked.into_iter().filter(|(_, when)| *when > 0).collect();
        stage.log.open();
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
        for batch in stage.log.batches() {
            prop_assert!(batch.len() == 1 || padded(&batch) <= budget, "{} tokens", padded(&batch));
        }
        stage.wait_until_drained();
    }
}

#[test]
fn calls_that_wait_share_a_batch_whatever_their_kind() {
    let stage = Stage::start([both(&Packing::new(1000, 8, None))]);
    let plug = stage.plug();
    let calls: Vec<Asked> = (0..20)
        .map(|i| {
            let kind = if i % 3 == 0 { InputKind::Query } else { InputKind::Document };
            stage.ask(&Ask { kind, ..Ask::documents([text(10, i)]) })
        })
        .collect();
    stage.log.open();
    plug.end_well();
    calls.into_iter().for_each(Asked::end_well);
    assert_eq!(stage.log.batches().iter().map(Vec::len).collect::<Vec<_>>(), [1, 20]);
}

/// Also those that are a little longer than the text of the call whose turn it is.
#[test]
fn calls_that_wait_share_a_batch_whoever_came_first() {
    let stage = Stage::start([both(&Packing::new(1000, 8, None))]);
    let plug = stage.plug();
    let calls: Vec<Asked> = (0..20).map(|i| stage.ask(&Ask::documents([text(10 + i % 3, i)]))).collect();
    stage.log.open();
    plug.end_well();
    calls.into_iter().for_each(Asked::end_well);
    assert_eq!(stage.log.batches().iter().map(Vec::len).collect::<Vec<_>>(), [1, 20]);
}

#[test]
fn a_call_is_filled_up_with_others_of_like_length_only() {
    let stage = Stage::start([both(&Packing::new(100, 8, None))]);
    let plug = stage.plug();
    let [a, b, c, d] = [text(20, 0), text(12, 1), text(11, 2), text(20, 3)];
    let calls = [Ask::documents([&a, &c]), Ask::documents([&b]), Ask::documents([&d])].map(|call| stage.ask(&call));
    stage.log.open();
    plug.end_well();
    calls.into_iter().for_each(Asked::end_well);
    let batches: Vec<_> = stage.log.batches().into_iter().skip(1).map(sorted).collect();
    // The second is not of the first call's like length, and the third is its own but not either.
    assert_eq!(batches[0], sorted(ids(&[&a, &b, &d])));
    assert_eq!(batches[1], ids(&[&c]));
}

#[test]
fn a_query_overtakes_bulk_batches() {
    let stage = Stage::start([both(&one_by_one())]);
    stage.log.close();
    let bulk = stage.ask(&Ask::documents(["bulk"; 6]));
    stage.log.wait_until(|state| state.batches().len() == 1);
    let query = stage.ask(&Ask::queries(["query"]));
    stage.log.open();
    query.end_well();
    bulk.end_well();
    assert_eq!(stage.log.batches()[..3], ["bulk", "query", "bulk"].map(|text| ids(&[text])));
}

/// Most batches between two of this text.
fn longest_gap(batches: &[Vec<Vec<u32>>], of: &str) -> usize {
    let last = batches.iter().rposition(|batch| *batch == ids(&[of])).expect("some");
    let gaps = batches[..=last].split(|batch| *batch == ids(&[of])).map(<[_]>::len);
    gaps.max().expect("a gap")
}

#[test]
fn a_flood_of_queries_does_not_starve_bulk_texts() {
    let stage = Stage::start([both(&one_by_one())]);
    stage.log.close();
    let bulk = stage.ask(&Ask::documents(["bulk"; 6]));
    stage.log.wait_until(|state| state.batches().len() == 1);
    let queries: Vec<Asked> = (0..100).map(|_| stage.ask(&Ask::queries(["query"]))).collect();
    stage.log.open();
    queries.into_iter().for_each(Asked::end_well);
    bulk.end_well();
    let batches = stage.log.batches();
    assert!((1..=HEAD_START).contains(&longest_gap(&batches, "bulk")), "{}", longest_gap(&batches, "bulk"));
    assert!(batches[1..HEAD_START].iter().all(|batch| *batch == ids(&["query"])), "queries do not go first");
}

/// What tokenisers do for the bulk lane meanwhile is no reason to embed none of it.
#[test]
fn a_flood_of_queries_does_not_starve_bulk_texts_of_a_device() {
    let stage = Stage::start(apart(&one_by_one(), 1, 1));
    stage.log.close();
    let bulk = stage.ask(&Ask::documents(["bulk"; 4]));
    stage.log.wait_until(|state| state.batches().len() == 1);
    let queries = stage.ask(&Ask::queries(["query"; 40]));
    stage.log.wait_until(|state| state.texts().len() == 44);
    let mut more = Vec::new();
    for done in 0..30 {
        // The tokeniser has given its turn to the bulk lane before every batch.
        more.push(stage.ask(&Ask::documents(["more"])));
        stage.log.wait_until(|state| state.texts().len() == 45 + done);
        stage.log.set(|state| state.batches = Some(1));
        stage.log.wait_until(|state| state.batches().len() == 2 + done);
    }
    let bulk_batches = stage.log.batches()[1..].iter().filter(|batch| **batch != ids(&["query"])).count();
    assert!(bulk_batches >= 2, "{bulk_batches} of 30");
    stage.log.open();
    [bulk, queries].into_iter().chain(more).for_each(Asked::end_well);
}

/// A thread that does nothing but tokenise has no batches to count.
#[test]
fn many_small_queries_do_not_starve_bulk_texts_of_a_tokeniser() {
    let stage = Stage::start(apart(&one_by_one(), 1, 1));
    stage.log.set(|state| state.texts = Some(0));
    let mut queries = vec![stage.ask(&Ask::queries([format!("{SLOW}first")]))];
    stage.log.wait_until(|state| state.texts().len() == 1);
    queries.extend((0..40).map(|i| stage.ask(&Ask::queries([format!("query {i}")]))));
    let bulk = stage.ask(&Ask::documents(["bulk"]));
    stage.log.open();
    bulk.end_well();
    queries.into_iter().for_each(Asked::end_well);
    let texts = lock(&stage.log.state).texts();
    let before = texts.iter().position(|text| text == "bulk").expect("tokenised");
    assert!(before <= 2 * HEAD_START, "after {before} texts");
}

#[test]
fn tokenising_many_queries_does_not_starve_bulk_texts() {
    let stage = Stage::start([both(&one_by_one())]);
    stage.log.set(|state| state.texts = Some(0));
    // Each a piece of its own.
    let pieces = |count: usize| (0..count).map(|i| format!("{SLOW}{}", text(PIECE_BYTES, i)));
    let queries = stage.ask(&Ask::queries(pieces(40)));
    stage.log.wait_until(|state| state.texts().len() == 1);
    let bulk = stage.ask(&Ask::documents(["bulk"]));
    stage.log.open();
    bulk.end_well();
    queries.end_well();
    let texts = lock(&stage.log.state).texts();
    let before = texts.iter().position(|text| text == "bulk").expect("tokenised");
    assert!(before <= 2 * HEAD_START, "after {before} pieces");
}

#[test]
fn a_small_call_is_not_stuck_behind_a_large_one() {
    let stage = Stage::start([both(&one_by_one())]);
    stage.log.close();
    let large = stage.ask(&Ask::documents(["large"; 100]));
    stage.log.wait_until(|state| state.batches().len() == 1);
    let small = stage.ask(&Ask::documents(["small"; 3]));
    stage.log.open();
    small.end_well();
    large.end_well();
    let batches = stage.log.batches();
    // Theirs take turns.
    let last = batches.iter().rposition(|batch| *batch == ids(&["small"])).expect("embedded");
    assert!(last <= 6, "{last}");
}

#[test]
fn a_small_call_is_not_stuck_behind_the_tokenising_of_a_large_one() {
    let stage = Stage::start([both(&one_by_one())]);
    stage.log.set(|state| state.texts = Some(0));
    let large = stage.ask(&Ask::documents((0..40).map(|i| format!("{SLOW}{}", text(PIECE_BYTES, i)))));
    stage.log.wait_until(|state| state.texts().len() == 1);
    let small = stage.ask(&Ask::documents(["small"]));
    stage.log.open();
    small.end_well();
    large.end_well();
    let events = stage.log.events();
    let embedded = events.iter().position(|event| *event == Event::Batch(ids(&["small"]))).expect("embedded");
    assert!(embedded <= 8, "after {embedded} pieces of work");
}

#[test]
fn all_bad_texts_of_all_pieces_are_named_and_nothing_is_embedded() {
    let stage = Stage::start(vec![both(&Packing::new(256, 8, None)); 2]);
    let with = |character: char| format!("{}{character}", text(PIECE_BYTES, 0));
    let giant = format!("{}{OVER}", text(GIANT_BYTES, 0));
    let texts = [with(OVER), with('a'), with(UNKNOWN), "a".into(), giant.clone(), with('b'), with(OVER)];
    let error = stage.ask(&Ask::documents(&texts)).end_badly();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let truncation = |text: &str| BadTextReason::TooLong { tokens: text.len(), limit: LIMIT };
    let bad = [
        BadText::new(0, truncation(&texts[0])),
        BadText::new(2, BadTextReason::Rejected),
        BadText::new(4, truncation(&giant)),
        BadText::new(6, truncation(&texts[6])),
    ];
    assert_eq!(error.bad_texts(), bad);
    assert!(stage.log.batches().is_empty());
    stage.ask(&Ask::documents(["next"])).end_well();
    stage.wait_until_drained();
}

#[test]
fn texts_known_to_be_bad_are_named_with_the_others() {
    let stage = Stage::start([both(&Packing::new(256, 8, None))]);
    let bad = vec![BadText::new(1, BadTextReason::Empty)];
    for (last, named) in [("good", vec![1]), ("long!", vec![1, 2])] {
        let error = stage.ask(&Ask { bad: bad.clone(), ..Ask::documents(["good", "", last]) }).end_badly();
        assert_eq!(error.bad_texts().iter().map(|bad| bad.index).collect::<Vec<_>>(), named);
    }
    assert!(stage.log.batches().is_empty());
}

/// Four calls wait, one of which has this text.
fn one_of_four_fails(text: &str) -> (Stage, Error) {
    let stage = Stage::start([both(&Packing::new(1000, 8, None))]);
    let plug = stage.plug();
    let good = ["good", "fine", "well"].map(|good| stage.ask(&Ask::documents([good, "long enough"])));
    let bad = stage.ask(&Ask::documents(["okay", text]));
    stage.log.open();
    plug.end_well();
    let error = bad.end_badly();
    good.into_iter().for_each(Asked::end_well);
    stage.ask(&Ask::documents(["next"])).end_well();
    stage.wait_until_drained();
    (stage, error)
}

#[test]
fn a_text_that_fails_the_model_fails_its_own_call_only() {
    for text in ["bad X", "bad P"] {
        let (stage, error) = one_of_four_fails(text);
        assert_eq!(error.kind(), ErrorKind::Inference, "{error}");
        let shared = stage.log.batches().iter().filter(|batch| batch.len() == 8).count();
        assert_eq!(shared, 1, "they did not share a batch");
        // None of the others are counted twice: plug, three calls of two texts, and the next.
        assert_eq!(stage.scheduler.stats().texts, 8);
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
    let stage = Stage::with_room([both(&packing)], 45);
    stage.ask(&Ask::documents((0..16).map(|i| text(10, i)))).end_well();
    assert_eq!(packing.budget(), 40);
    let first: Vec<usize> = stage.log.batches().iter().map(|batch| padded(batch)).collect();
    assert_eq!(first, [160, 80, 40, 40, 80, 40, 40]);
    stage.ask(&Ask::documents((0..16).map(|i| text(10, i)))).end_well();
    let then: Vec<usize> = stage.log.batches()[first.len()..].iter().map(|batch| padded(batch)).collect();
    assert_eq!(then, [40; 4]);
    // What failed is not counted.
    assert_eq!((stage.scheduler.stats().texts, stage.scheduler.stats().batches), (32, 8));
}

#[test]
fn a_single_text_without_room_fails_its_own_call_only() {
    let stage = Stage::with_room([both(&Packing::new(200, 8, None))], 45);
    let plug = stage.plug();
    let large = stage.ask(&Ask::documents([text(50, 0)]));
    let fits = [1, 2, 3].map(|i| stage.ask(&Ask::documents([text(44, i), text(5, i)])));
    stage.log.open();
    plug.end_well();
    assert_eq!(large.end_badly().kind(), ErrorKind::Inference);
    fits.into_iter().for_each(Asked::end_well);
    assert_eq!(stage.log.batches()[1].len(), 4, "they did not share a batch");
    stage.ask(&Ask::documents([text(45, 0)])).end_well();
}

#[test]
fn a_device_begins_before_all_is_tokenised() {
    let stage = Stage::start(apart(&Packing::new(100, 8, None), 2, 1));
    stage.log.set(|state| state.texts = Some(0));
    // Four pieces, the last of which waits until something was embedded.
    let mut texts: Vec<String> = (0..4).map(|i| text(PIECE_BYTES, i)).collect();
    texts[3].push(SLOW);
    let call = stage.ask(&Ask::documents(&texts));
    stage.log.wait_until(|state| !state.batches().is_empty());
    stage.log.open();
    call.end_well();
    assert_eq!(sorted(stage.log.batches().concat()), sorted(Ask::documents(texts).ids()));
}

#[test]
fn texts_that_were_cut_are_named_in_order_whichever_was_tokenised_first() {
    let stage = Stage::start(vec![both(&Packing::new(100, 8, None)); 2]);
    stage.log.set(|state| state.texts = Some(0));
    let mut texts: Vec<String> = (0..4).map(|i| format!("{}{OVER}", text(PIECE_BYTES, i))).collect();
    texts[0].insert(0, SLOW);
    let call = stage.ask(&Ask { truncation: Truncation::Truncate, ..Ask::documents(texts) });
    // The other thread begins a piece when it is done with the one before.
    stage.log.wait_until(|state| state.texts().len() == 4);
    stage.log.open();
    call.end_well();
}

#[test]
fn a_giant_text_holds_up_its_own_call_only() {
    let stage = Stage::start([both(&Packing::new(100, 8, None))]);
    stage.log.set(|state| state.texts = Some(0));
    let giant = format!("{}{SLOW}", text(GIANT_BYTES, 0));
    let with_giant = stage.ask(&Ask::documents(["before", &giant, "behind"]));
    stage.ask(&Ask::documents(["other", "texts"])).end_well();
    stage.ask(&Ask::queries(["query"])).end_well();
    stage.log.open();
    with_giant.end_well();
}

#[test]
fn what_is_dropped_is_not_embedded() {
    let stage = Stage::start([both(&one_by_one())]);
    let plug = stage.plug();
    let giant = text(GIANT_BYTES, 0);
    let [first, dropped, last] =
        [["first", "first"], ["dropped", giant.as_str()], ["last", "last"]].map(|two| stage.ask(&Ask::documents(two)));
    drop(dropped);
    assert_eq!(stage.queued(), 2, "it waits for a thread to take it out");
    stage.log.open();
    for call in [plug, first, last] {
        call.end_well();
    }
    assert_eq!(
        sorted(stage.log.batches().concat()),
        sorted(ids(&["plug", "first", "first", "last", "last"])),
        "embedded are other texts"
    );
    stage.wait_until_drained();

    // Dropped with one batch under way and others waiting.
    stage.log.close();
    let before = stage.log.batches().len();
    let call = stage.ask(&Ask::documents(["another"; 10]));
    stage.log.wait_until(|state| state.batches().len() == before + 1);
    drop(call);
    stage.log.open();
    stage.ask(&Ask::documents(["next"])).end_well();
    assert_eq!(stage.log.batches().len(), before + 2);
    stage.wait_until_drained();
}

/// The memory of a call is that of its texts, their ids and its rows: nothing of it stays where the call is over.
#[test]
fn a_failed_call_leaves_nothing_in_the_queue() {
    let stage = Stage::start([both(&one_by_one())]);
    stage.log.close();
    let call = stage.ask(&Ask::documents(["X"; 10]));
    stage.log.wait_until(|state| state.batches().len() == 1);
    stage.log.open();
    call.end_badly();
    stage.wait_until_drained();
    assert_eq!(stage.log.batches().len(), 1);

    // One giant text is being tokenised, others wait behind it.
    stage.log.set(|state| state.texts = Some(0));
    let slow = stage.ask(&Ask::documents([format!("{}{SLOW}", text(GIANT_BYTES, 0))]));
    stage.log.wait_until(|state| state.texts().iter().any(|text| text.ends_with(SLOW)));
    let failing = stage.ask(&Ask::documents([text(GIANT_BYTES, 1), "~".to_owned()]));
    failing.end_badly();
    patiently(|| lock(&stage.scheduler.shared.queue).giants.is_empty());
    stage.log.open();
    slow.end_well();
}

#[test]
fn a_deadline_that_has_passed_is_an_error() {
    let stage = Stage::start([both(&one_by_one())]);
    let late = stage.ask(&Ask { deadline: Some(Instant::now()), ..Ask::documents(["late"]) });
    assert_eq!(late.end_badly().kind(), ErrorKind::DeadlinePassed);
    assert!(stage.log.events().is_empty(), "it was begun");
    let later = Instant::now() + 2 * PATIENCE;
    stage.ask(&Ask { deadline: Some(later), ..Ask::documents(["early"]) }).end_well();
}

#[test]
fn a_deadline_that_passes_in_the_queue_is_one_callers_own() {
    let stage = Stage::start(apart(&Packing::new(1000, 8, None), 1, 1));
    let plug = stage.plug();
    let deadline = Instant::now() + Duration::from_millis(50);
    let late = stage.ask(&Ask { deadline: Some(deadline), ..Ask::documents(["late", "too late"]) });
    let mate = stage.ask(&Ask::documents(["mate"]));
    patiently(|| Instant::now() > deadline);
    stage.log.open();
    assert_eq!(late.end_badly().kind(), ErrorKind::DeadlinePassed);
    [plug, mate].into_iter().for_each(Asked::end_well);
    assert_eq!(sorted(stage.log.batches().concat()), sorted(ids(&["plug", "mate"])));
    stage.wait_until_drained();
}

/// Threads, and what they run on, end with the last caller.
#[test]
fn the_last_caller_may_be_one_that_waits() {
    let stage = Stage::start(vec![both(&one_by_one()); 2]);
    let calls: Vec<Asked> = (0..10).map(|_| stage.ask(&Ask::documents(["some", "texts"]))).collect();
    let Stage { log, opens, scheduler } = stage;
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

/// Then the scheduler ends on a thread of its own.
#[test]
fn the_last_caller_may_go_when_it_is_woken() {
    let stage = Stage::start(vec![both(&one_by_one()); 2]);
    stage.log.close();
    let drops_it = Arc::new(DropsIt(Mutex::default()));
    {
        let waker = Waker::from(Arc::clone(&drops_it));
        let mut slot = lock(&drops_it.0);
        let answer = slot.insert(answer(&stage.scheduler, &Ask::documents(["text"])));
        assert!(answer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let Stage { log, opens, scheduler } = stage;
    drop(scheduler);
    drop(opens);
    patiently(|| Arc::strong_count(&log) == 1);
}

#[test]
fn a_text_is_never_cut_into_two_pieces_nor_forgotten_between_them() {
    let piece = |first: usize, piece: &Piece| -> Vec<(usize, String)> {
        assert_eq!(piece.first, first);
        piece.texts().map(|(at, text)| (at, text.to_owned())).collect()
    };
    let large = text(PIECE_BYTES - 2 * TEXT_BYTES - 1, 0);
    let giant = text(GIANT_BYTES, 0);
    let texts = ["", &large, "one more", "next", &giant, &giant, "", "behind", &giant];
    let (call, giants) = Call::new(&Batch::documents(&texts), Vec::new(), WIDTH, oneshot::channel().0);
    let pieces: Vec<Piece> = call.work().pieces.drain(..).collect();
    let firsts: Vec<usize> = pieces.iter().map(|piece| piece.first).collect();
    assert_eq!(firsts, [0, 3, 6]);
    assert_eq!(giants.iter().map(|giant| giant.first).collect::<Vec<_>>(), [4, 5, 8]);
    let all = pieces.iter().chain(&giants).flat_map(|one| piece(one.first, one)).collect();
    assert_eq!(sorted(all), texts.iter().enumerate().map(|(at, &text)| (at, text.to_owned())).collect::<Vec<_>>());
}

/// Batches may be cut in two however often, and lose or double nothing.
#[test]
fn halves_hold_all() {
    let call = |range: Range<usize>| {
        let texts: Vec<&str> = range.clone().map(|_| "a").collect();
        let (call, _) = Call::new(&Batch::documents(&texts), Vec::new(), WIDTH, oneshot::channel().0);
        Part { call: Arc::new(call), texts: range.map(|at| (at, Box::default())).collect() }
    };
    for sizes in [[1, 1, 0], [2, 0, 0], [5, 1, 2], [1, 1, 7], [3, 3, 3]] {
        let parts: Vec<Part> = sizes.iter().filter(|&&size| size > 0).map(|&size| call(0..size)).collect();
        let calls: Vec<Arc<Call>> = parts.iter().map(|part| Arc::clone(&part.call)).collect();
        let texts: usize = sizes.iter().sum();
        let halves = halves(parts, texts);
        let of = |half: &[Part]| -> usize { half.iter().map(|part| part.texts.len()).sum() };
        assert_eq!((of(&halves[0]), of(&halves[1])), (texts / 2, texts - texts / 2), "{sizes:?}");
        for (call, size) in calls.iter().zip(sizes.into_iter().filter(|&size| size > 0)) {
            let own = halves.iter().flatten().filter(|part| Arc::ptr_eq(&part.call, call));
            let places = own.flat_map(|part| part.texts.iter().map(|&(at, _)| at)).collect();
            assert_eq!(sorted(places), (0..size).collect::<Vec<_>>(), "{sizes:?}");
        }
        assert!(halves.iter().flatten().all(|part| !part.texts.is_empty()), "{sizes:?}");
    }
}
