//! Kills a process that works on jobs, in every gap between an effect and its record, while an answer is on its way, and
//! at any time, and starts it again, until all jobs have ended. The simulator is in the process that kills, so its bills
//! survive.
//!
//! There are 40 kills, and 400 with `DOCVECTOR_EMBED_FULL=1`. `DOCVECTOR_EMBED_KILLS_SEED=n` repeats a script.

mod child;
mod round;
mod script;
mod table;

use std::{env, path::Path};

use docvector_embed::{
    Result,
    provider::{OpenAi, OpenAiBatch, OpenAiBatchBuilder},
};
use fastrand::Rng;

use self::{
    round::{Ending, Round},
    table::{Enough, Table, Way},
};
use crate::support::processes::inner;

const MODEL: &str = "text-embedding-3-small";
const DIMENSIONS: usize = 8;

/// The texts of each job. No two jobs have the same number, which tells them apart.
const JOBS: [usize; 4] = [230, 200, 170, 110];

/// This job is cancelled when it has begun.
const CANCELLED: usize = 3;

/// Stands in texts that the endpoint refuses.
const BAD: &str = "refused";

/// Returns the texts of a job.
fn texts(job: usize) -> Vec<String> {
    let text = |number| {
        let bad = if number % 90 == 17 { BAD } else { "good" };
        format!("text {number} of job {job}, a {bad} one")
    };
    (0..JOBS[job]).map(text).collect()
}

fn is_bad(text: &str) -> bool {
    text.contains(BAD)
}

fn openai(base_url: &str) -> Result<OpenAi> {
    OpenAi::builder(MODEL).with_api_key("sk-any").with_base_url(base_url).with_dimensions(DIMENSIONS).build()
}

/// Returns a builder as every process has it: small shards, and no long waits.
fn builder(base_url: &str, folder: &Path) -> Result<OpenAiBatchBuilder> {
    let batch = OpenAiBatch::builder(openai(base_url)?, folder).with_line_texts(5).with_batch_texts(60);
    Ok(batch.with_poll_interval(script::POLL, script::POLL * 4).with_list_patience(script::PATIENCE))
}

#[test]
fn killed_at_any_point_it_loses_nothing_and_pays_once() {
    const NAME: &str = "killed_at_any_point_it_loses_nothing_and_pays_once";
    if let Some(words) = inner() {
        return child::run(&words);
    }
    let seed = env::var("DOCVECTOR_EMBED_KILLS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let enough = if env::var_os("DOCVECTOR_EMBED_FULL").is_some_and(|full| full == "1") {
        Enough { kills: 400, per_gap: 10, held: 40, at_random: 60 }
    } else {
        Enough { kills: 40, per_gap: 2, held: 4, at_random: 5 }
    };
    let mut table = Table::new(seed, enough);
    // Nobody is killed, so this one tells the gaps that there are. Kills may open more of them.
    let mut round = Round::new(NAME, seed);
    assert!(matches!(round.run(&Way::Through, &mut table), Ending::Done), "nobody killed it");
    round.judge(&mut table);
    let mut random = Rng::with_seed(seed);
    for number in 1.. {
        if table.is_enough() {
            break;
        }
        assert!(number <= enough.kills, "some gaps come too seldom\n{table}");
        let mut round = Round::new(NAME, seed + number as u64);
        let kills = random.usize(2..9);
        for process in 0.. {
            let way = if process < kills { table.next_way(process == 0, &mut random) } else { Way::Through };
            match round.run(&way, &mut table) {
                Ending::Done => break,
                Ending::Killed(place) => table.killed(place),
            }
            if random.u8(0..4) == 0 {
                round.move_to_another_folder();
            }
        }
        round.judge(&mut table);
    }
    table.show();
}
