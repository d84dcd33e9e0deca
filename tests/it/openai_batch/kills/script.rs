//! Scripts what the simulator does in a round, by its seed: [`write`].

use std::time::Duration;

use docvector_embed::testing::{BatchPlan, BatchState, Fault, FileIdForm, LineFate, LineOrder, Route, Simulator};
use fastrand::Rng;

use super::is_bad;

/// How often the client looks, at most.
pub(super) const POLL: Duration = Duration::from_millis(3);

/// How long the client looks for a batch in the list.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);

/// Virtual seconds per second. A day takes 7 seconds, and an input file is kept for three minutes.
pub(super) const SPEED: f64 = 12_000.0;

/// The most that a new batch is missing in the list: a tenth of a second, much less than the client's patience.
const LAG: u64 = 1_200;

/// Batches with a plan of their own.
const PLANS: usize = 40;

/// Scripts a round. Few lines are left without an answer, so that none is left so often that the client gives it up.
pub(super) fn write(simulator: &Simulator, random: &mut Rng) {
    let expiring = [random.usize(..PLANS / 2), random.usize(..PLANS / 2)];
    let failing = random.usize(..PLANS / 2);
    for number in 0..PLANS {
        let plan = plan(random);
        simulator.plan_next(if expiring.contains(&number) {
            plan.with_expiry_after(random.usize(..9))
        } else if number == failing {
            plan.with_failure("server_error", "The batch could not be processed.")
        } else {
            plan
        });
    }
    simulator.script_lines(LineFate::status(400, "invalid_value", "Not this text."), None, |line| {
        line.texts.iter().any(|text| is_bad(text))
    });
    let unanswered = [
        LineFate::status(500, "server_error", "Try again."),
        LineFate::error("request_timeout", "It took too long."),
        LineFate::missing(),
        LineFate::status(429, "rate_limit_exceeded", "Too many."),
    ];
    let place = random.usize(..4);
    simulator.script_lines(unanswered[random.usize(..4)].clone(), Some(2), move |line| line.number % 5 == place);
    simulator.script_lines(LineFate::twice(), None, |line| line.number % 7 == 2);
    simulator.script_lines(LineFate::reversed_rows(), None, |line| line.number % 3 == 1);
    faults(simulator, random);
    if random.bool() {
        // A shard has about 500: room for some of them, or not even for one.
        let tokens = if random.bool() { random.u64(700..2_500) } else { random.u64(300..450) };
        simulator.set_enqueued_tokens(Some(tokens));
    }
    if random.u8(..3) == 0 {
        // Too little for all; the round ends the want when a job pauses.
        simulator.set_credit(Some(random.u64(..6_000)));
    }
}

/// Makes a plan for a batch that ends well.
fn plan(random: &mut Rng) -> BatchPlan {
    let plan = BatchPlan::default().with_order(LineOrder::Shuffled(random.u64(..)));
    // Up to a quarter of a second.
    let plan = plan.with_running(Duration::from_secs(random.u64(..3_000)));
    let plan = match random.u8(..6) {
        0 => plan.with_list_lag(Duration::from_secs(random.u64(..LAG))),
        // The client looks twice at least.
        1 => plan.with_unlisted_requests(1),
        2 => plan.with_state_shown_as(BatchState::InProgress, "rebalancing").with_extra_field("shard", "[1]"),
        3 => plan.with_extra_line_field("cost", "{}").with_counts_of_success(),
        _ => plan,
    };
    match random.u8(..4) {
        0 => plan.with_error_file_id(FileIdForm::EmptyIfNone).with_output_file_id(FileIdForm::AbsentIfNone),
        1 => plan.with_error_file_id(FileIdForm::AbsentIfNone).with_output_file_id(FileIdForm::EmptyIfNone),
        _ => plan,
    }
}

fn faults(simulator: &Simulator, random: &mut Rng) {
    // Some requests go well before the first fault: what is delayed by nothing counts as one.
    let mut meet = |route, times, fault| {
        simulator.fail_next(route, random.usize(..5), Fault::delay(Duration::ZERO));
        simulator.fail_next(route, times, fault);
    };
    meet(Route::CreateBatch, 1, Fault::lost_answer());
    meet(Route::CreateBatch, 1, Fault::html(502));
    meet(Route::CreateBatch, 1, Fault::cut_answer(20));
    meet(Route::CreateFile, 1, Fault::cut_upload(200));
    meet(Route::CreateFile, 1, Fault::lost_answer());
    meet(Route::GetBatch, 3, Fault::html(502));
    meet(Route::ListBatches, 1, Fault::error(503, "overloaded", "Try again."));
    meet(Route::FileContent, 1, Fault::cut_answer(300));
    meet(Route::FileContent, 1, Fault::html(500));
    meet(Route::CancelBatch, 1, Fault::lost_answer());
    meet(Route::DeleteFile, 1, Fault::lost_answer());
}
