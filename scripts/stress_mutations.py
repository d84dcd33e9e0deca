"""The fixes and promises that scripts/stress-mutations takes back, one at a time: `MUTATIONS`.

Each edit names a file, a text that is there exactly once, and the text that replaces it. If the code has moved on, the
script says so and stops: repair the edit, do not drop it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A fix taken back."""

    name: str
    # A file, a text that is there once, and the text that replaces it.
    edits: tuple[tuple[str, str, str], ...]
    # Forms of the stress that it plays; all if none is named.
    forms: str = ""
    # A test of the binary `it` that is tried if the stress finds nothing.
    test: str = ""
    # Whether scripts/loom is tried last.
    loom: bool = False


EACH = "src/ext/each/results.rs"
ERROR = "src/error.rs"
CHECKED = "src/checked.rs"
DRIVEN = "src/driven.rs"
VECTOR_STORE = "src/stored_vectors/vector_store.rs"
WORK = "src/wrap/cached/work.rs"
IN_FLIGHT = "src/wrap/cached/in_flight.rs"
NEW_CALL = "src/wrap/cached/new_call.rs"
SHARED = "src/shared_call.rs"
RATE_LIMIT = "src/wrap/rate_limit.rs"
LIMITER = "src/wrap/rate_limit/limiter.rs"
RETRY = "src/wrap/retry.rs"
OBSERVED = "src/wrap/observed.rs"
COURSE = "src/wrap/resilient/course.rs"
ENDS = "src/wrap/resilient/ends.rs"
SHORTENED = "src/wrap/resilient/shortened.rs"
MERGED_CALL = "src/wrap/coalesce/merged_call.rs"
SEAT = "src/wrap/coalesce/seat.rs"
UNTOLD = "src/wrap/coalesce/untold.rs"
ARMS = "src/wrap/ab_split/arms.rs"

# The name of a text that has a row stays in the error.
NOT_SETTLED = (
    ERROR,
    "            self.bad_texts.retain(|bad| partial.indices.binary_search(&bad.index).is_err());\n",
    "            let _ = partial;\n",
)

MUTATIONS = (
    Mutation(
        "A1: a text with a row keeps its name",
        (NOT_SETTLED,),
        test="core_faults::wrong_rows::a_text_that_has_a_row_is_never_named_bad",
    ),
    Mutation(
        "A1: and `embed_each` counts its rows wrongly",
        (
            NOT_SETTLED,
            (
                EACH,
                "            (true, _) => Ok(rows.next().unwrap_or_default()),\n"
                "            (false, Some(error)) => Err(error),\n",
                "            (_, Some(error)) => Err(error),\n"
                "            (true, None) => Ok(rows.next().unwrap_or_default()),\n",
            ),
        ),
        test="core_faults::wrong_rows::each_text_gets_its_own_row_where_an_error_names_a_finished_one",
    ),
    Mutation(
        "A2: indices that a call does not have",
        ((CHECKED, ".filter(|&index| index >= batch.len())", ".filter(|&index| index == usize::MAX)"),),
        test="core_faults::wrong_rows::embed_all_blames_no_text_that_there_is_not",
    ),
    Mutation(
        "B1: all calls are entered at once, few are polled",
        (
            (
                WORK,
                "        let mut waiting = VecDeque::from(calls);\n",
                "        let now = || self.inner.embedder.limits();\n"
                "        let mut waiting: VecDeque<_> =\n"
                "            calls.into_iter().flat_map(|call| self.enter(call, now())).collect();\n",
            ),
            (
                WORK,
                "                if planner::is_outdated(limits, &now) {\n",
                "                if false {\n                    let mut waiting = VecDeque::new();\n"
                "                    let mut call = Vec::new();\n",
            ),
            (WORK, "let Some(mut call) = waiting.pop_front()", "let Some(call) = waiting.pop_front()"),
            (WORK, "for (answer, part) in self.enter(call, now) {", "for (answer, part) in [call] {"),
        ),
        test="core_faults::hangs::who_joins_a_call_and_leaves_takes_no_place_with_it",
    ),
    Mutation(
        "B2: no second wake-up",
        (
            (
                SHARED,
                "                if self.state.waiting.0.with(|wakers| wakers.woken) {\n"
                "                    self.state.waiting.wake_all();\n"
                "                }\n",
                "",
            ),
        ),
        test="core_faults::hangs::who_comes_while_a_call_is_polled_is_woken_when_the_other_leaves",
        loom=True,
    ),
    Mutation(
        "B3: a stream's windows go on only while polled",
        ((DRIVEN, "match Handle::try_current() {", "match Err::<Handle, ()>(()) {"),),
        test="core_faults::streams::windows_that_are_begun_go_on_without_the_consumer",
    ),
    Mutation(
        "B3: only the call that is told looks at the limiter again",
        (
            (
                LIMITER,
                "                (event, state.wait(ahead, tokens, now), alone, granted)\n",
                "                let told = state.told.as_ref().is_some_and(|(told, _)| Arc::ptr_eq(told, &waiter));\n"
                "                let own = if told { Duration::ZERO } else { Duration::MAX };\n"
                "                let _ = ahead;\n                (event, own, alone, granted)\n",
            ),
            (LIMITER, "event.max(own).min(LOOK_AGAIN)", "event.max(own)"),
        ),
        test="core_faults::hangs::an_overdue_call_that_nobody_polls_keeps_no_other_waiting",
    ),
    Mutation(
        "B4: any claim of tokens is believed",
        ((LIMITER, "(tokens as f64).min(most) - guessed", "tokens as f64 - guessed"),),
        test="core_faults::fairness::a_reply_that_claims_absurd_tokens_does_not_block_a_limiter",
    ),
    Mutation(
        "B5: a store's panic goes on",
        (
            (
                VECTOR_STORE,
                '    let panicked = |_| Err(Error::new(ErrorKind::Cache, "the store panicked"));\n'
                "    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(panicked)\n",
                "    work.await\n",
            ),
        ),
        test="core_faults::hangs::a_store_that_panics_once_when_it_writes_costs_no_caller",
    ),
    Mutation(
        "B5: an embedder's panic goes on",
        (
            (
                CHECKED,
                "    let answer = AssertUnwindSafe(async { embedder.embed(batch).await }).catch_unwind().await."
                "unwrap_or_else(|_| {\n"
                "        let panicked = Error::new(ErrorKind::Inference, PANICKED);\n"
                "        Err(panicked.with_embedder(embedder).with_usage(Usage::of_given_up()))\n"
                "    });\n",
                "    let answer = embedder.embed(batch).await;\n",
            ),
        ),
        test="core_faults::hangs::an_embedder_that_panics_is_an_error_with_its_bill",
    ),
    Mutation(
        "C1: storing ends with the last caller",
        ((NEW_CALL, "(Handle::try_current(), progress.join())", "(Handle::try_current(), None::<SharedCall<u8>>)"),),
        test="core_faults::money::rows_that_had_arrived_when_the_caller_left_are_stored",
    ),
    Mutation(
        "C2: the first to take rows takes the bill",
        (
            (WORK, "struct Bill {\n", "struct Bill {\n    is_told: bool,\n"),
            (
                WORK,
                "self.bills.push(Bill { answer, texts, places });",
                "self.bills.push(Bill { is_told: answer.take_bill(), answer, texts, places });",
            ),
            (
                WORK,
                "        for Bill { answer, texts, places } in &self.bills {\n"
                "            let is_told = answer.take_bill();\n",
                "        for Bill { is_told, answer, texts, places } in &self.bills {\n"
                "            let is_told = *is_told;\n",
            ),
        ),
        test="core_faults::money::when_the_first_that_took_the_rows_leaves_one_of_the_others_is_told_the_cost",
    ),
    Mutation(
        "C2: a bill that nobody was told is not counted",
        ((IN_FLIGHT, "        if self.take_bill() {\n", "        if self.take_bill() && self.id == u64::MAX {\n"),),
        test="core_faults::money::when_the_first_that_took_the_rows_leaves_one_of_the_others_is_told_the_cost",
    ),
    Mutation(
        "C2: `Retry` forgets what earlier attempts cost",
        ((RETRY, "Ok(rows) => return Ok(rows.with_charges(&spent)),", "Ok(rows) => return Ok(rows),"),),
        test="wrap::retry::the_cost_of_all_attempts_is_told",
    ),
    Mutation(
        "C3: finished rows of a failed call do not count",
        ((LIMITER, "let usage = error.total_usage();", "let usage = error.usage();"),),
        test="core_faults::money::a_rate_limit_counts_the_finished_rows_of_a_failed_call",
    ),
    Mutation(
        "C6: a bulk call takes all tokens that there are",
        (
            (
                RATE_LIMIT,
                "limits.tokens_per_call = Some(limits.tokens_per_call.map_or(share, |call| call.min(share)));",
                "let _ = share;",
            ),
        ),
        test="core_faults::fairness::a_query_does_not_wait_for_the_tokens_of_a_bulk_call",
    ),
    Mutation(
        "C6: an interactive call joins a bulk call",
        ((IN_FLIGHT, "Lane::Bulk.serves(lane).then(|| self.0.bulk.get(key)).flatten()", "self.0.bulk.get(key)"),),
        test="core_faults::fairness::an_interactive_call_does_not_wait_in_the_bulk_lane_for_a_text_of_a_bulk_call",
    ),
    Mutation(
        "C6: both lanes have one place for a text",
        (
            (IN_FLIGHT, "    pub(super) row: usize,\n", "    pub(super) row: usize,\n    lane: Lane,\n"),
            (IN_FLIGHT, "progress: progress.clone(), row, id }", "progress: progress.clone(), row, lane, id }"),
            (
                IN_FLIGHT,
                "progress: &Arc<Progress>, id: u64) {\n        let table = self.0.of(lane);",
                "progress: &Arc<Progress>, id: u64) {\n        let table = self.0.of(Lane::Interactive); let _ = lane;",
            ),
            (
                IN_FLIGHT,
                "keys: &[Key], id: u64) {\n        let table = self.0.of(lane);",
                "keys: &[Key], id: u64) {\n        let table = self.0.of(Lane::Interactive); let _ = lane;",
            ),
            (
                IN_FLIGHT,
                "self.0.interactive.get(key).into_iter().chain(bulk)",
                "self.0.interactive.get(key).filter(|slot| slot.lane.serves(lane)).into_iter().chain(bulk)",
            ),
        ),
        test="core_faults::money::an_interactive_call_that_comes_and_goes_hides_no_bulk_call",
    ),
    Mutation(
        "Observed: a cache tells of hits that are not its own",
        (
            (
                WORK,
                "        let hits = self.rows.hits;\n        let misses",
                "        let hits = self.rows.hits + self.bills.len() as u64;\n        let misses",
            ),
        ),
        test="observed::a_cache_tells_of_its_own_hits_alone",
    ),
    Mutation(
        "Observed: a shared call has no observer",
        ((NEW_CALL, "batch.observer().cloned()", "batch.observer().filter(|_| false).cloned()"),),
        test="observed::each_wrapper_inside_tells",
    ),
    Mutation(
        "Observed: the inner of two observers hears nothing",
        ((OBSERVED, "Arc::new((outer.clone(), self.observer.clone()))", "Arc::new((outer.clone(), outer.clone()))"),),
        test="observed::two_observers_hear_all_and_one_that_panics_costs_nothing",
    ),
    Mutation(
        "Resilient: a member whose breaker is open is never asked",
        ((COURSE, "filter_map(skipped).collect", "filter_map(skipped).take(0).collect"),),
        test="wrap::resilient::a_breaker_can_be_open_for_ever",
    ),
    Mutation(
        "Resilient: the cost of the members that failed is lost",
        ((COURSE, "        self.spent += error.charges();\n        let error", "        let error"),),
        test="wrap::resilient::finished_rows_are_kept_and_only_the_rest_is_asked_for",
    ),
    Mutation(
        "Resilient: the slower call of a race is not told of",
        (
            (
                COURSE,
                "        if !goes_on {\n            self.spent += Usage::of_given_up();\n",
                "        if !goes_on {\n",
            ),
        ),
        test="wrap::resilient::a_late_call_is_hedged_and_both_are_booked",
    ),
    Mutation(
        "Resilient: rows that the loser of a race has finished cost nothing",
        (
            (
                COURSE,
                "the rows that the first one finished is left.\n            self.finished.begin_again();",
                "the rows that the first one finished is left.\n            self.finished = Finished::default();",
            ),
        ),
        test="wrap::resilient_scenarios::hedging::the_first_success_wins_and_both_calls_are_booked",
    ),
    Mutation(
        "Resilient: a probe that nobody polls keeps its place",
        (
            (
                ENDS,
                "let no_longer = Instant::now().checked_add(at_most).map(Instant::into_std);",
                "let no_longer = None::<StdInstant>.filter(|_| at_most.is_zero());",
            ),
        ),
        test="wrap::resilient_scenarios::herd::callers_that_leave_or_are_never_polled_again_hold_nobody_up",
    ),
    Mutation(
        "Resilient: texts that are truncated for all members are not marked",
        (
            (
                SHORTENED,
                "self.truncated.binary_search(&text_of(*row)).is_ok() || rows.is_truncated(*row)",
                "text_of(*row) < self.texts.len() && rows.is_truncated(*row)",
            ),
        ),
        test="wrap::resilient::members_of_other_limits_keep_the_laws_together",
    ),
    Mutation(
        "Coalesce: a caller that leaves takes its part of the bill along",
        ((UNTOLD, "        self.counts.leave_unclaimed(cost);\n", "        let _ = (cost, &self.counts);\n"),),
        test="wrap::coalesce::who_leaves_after_the_departure_leaves_its_share",
    ),
    Mutation(
        "Coalesce: a bad text fails all callers of its call",
        ((MERGED_CALL, "if !error.kind().may_be_fault", "if names_own.is_some() || !error.kind().may_be_fault"),),
        test="wrap::coalesce::a_bad_text_fails_its_caller_alone",
    ),
    Mutation(
        "Coalesce: nobody sees that the caller at the helm is stuck",
        ((SEAT, "drives |= watch.sees_a_stuck_driver(call);", "_ = watch.sees_a_stuck_driver(call);"),),
        test="wrap::coalesce::a_caller_that_is_not_polled_holds_nobody_up",
    ),
    Mutation(
        "Coalesce: a merged call has no observer",
        (
            (
                MERGED_CALL,
                "let batch = observer.map_or(batch, |observer| batch.with_observer(observer));",
                "let _ = observer;",
            ),
        ),
    ),
    Mutation(
        "AbSplit: the arm of a key changes from call to call",
        (
            (
                ARMS,
                "(Some(key), _) => self.nearest(key.as_bytes(), batch.space())",
                "(Some(_), _) => self.nearest(&self.turns.fetch_add(1, Ordering::Relaxed).to_le_bytes(), batch.space())",
            ),
        ),
        test="wrap::ab_split::a_batch_with_a_key_goes_to_the_keys_arm",
    ),
    Mutation(
        "AbSplit: any arm answers a batch that wants a space",
        ((ARMS, "wanted.is_none_or(|wanted| arm.space.id() == wanted)", "wanted.is_none_or(|_| arm.seed == arm.seed)"),),
        test="wrap::ab_split::a_wanted_space_is_answered_by_its_arm_whatever_key_and_share_say",
    ),
)
