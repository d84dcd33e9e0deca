//! Measures which threads and sizes of batches a machine runs a model fastest with, and keeps them.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use docvector_embed::{
    InputKind,
    provider::{Onnx, Tuning},
};
use tokio::runtime::Runtime;

use crate::{
    cli::tune::TuneArgs,
    cpu_contention::Cores,
    failure::Failure,
    machine::describe,
    measurement::{Run, Work},
    progress::Progress,
    report::Report,
    rounds::{Race, fit_together, texts_in, turns},
    runtime::runtime,
    sample::{Sample, spread},
    statistics::median,
    wording::plain,
};

/// Rounds of a search, and of a comparison that decides something.
const ROUNDS: usize = 3;
const LAST_ROUNDS: usize = 7;

/// What a setting must gain over the defaults: less is within what such a measurement errs by.
const GAIN: f64 = 1.03;

/// The most settings in a search for a budget, and in the last comparison.
const MOST_BUDGETS: usize = 7;
const MOST_LAST: usize = 4;

/// A setting, and how it did.
struct Scored {
    tuning: Tuning,
    /// Tokens a second, of documents and of queries.
    documents: f64,
    queries: f64,
    /// How many times as fast as the defaults, and whether it was faster in all rounds but one at most: a median alone
    /// can be a neighbour's doing.
    score: f64,
    steady: bool,
}

/// What was measured: the settings of each comparison, the defaults first.
struct Measured {
    default: Tuning,
    documents: usize,
    queries: usize,
    /// Whether all models of a comparison took turns.
    together: bool,
    threads: Vec<Scored>,
    budgets: Vec<Scored>,
    last: Vec<Scored>,
    /// The share of the time that other programs had the cores, if it spoils what was measured.
    taken: Option<f64>,
}

impl Measured {
    fn chosen(&self) -> &Scored {
        &self.last[best(&self.last)]
    }
}

/// Measures, prints a table, and keeps what is best.
pub(crate) fn run(args: &TuneArgs) -> Result<(), Failure> {
    // What can be found wrong without measuring is found before.
    let sample = Sample::open(args.input.as_deref())?;
    if !args.dry_run {
        Onnx::tuning_file()?;
    }
    let now = args.load.builder(&args.model).build()?.info().tuning_source.clone();
    let base = args.load.builder(&args.model).without_tuning().build()?;
    let measured = measure(args, &sample, &base)?;

    let mut report = Report::new(io::stdout().lock());
    describe(&mut report, &args.model, base.info())?;
    report.line("settings so far", now)?;
    print_conditions(&mut report, &sample, &measured)?;
    print_table(&mut report, &measured)?;
    print_choice(&mut report, &measured)?;
    store(&mut report, args, &base, &measured)
}

/// Compares the threads, then the budgets with the best of these, then what is near to the best budget.
fn measure(args: &TuneArgs, sample: &Sample, base: &Onnx) -> Result<Measured, Failure> {
    let (info, runtime) = (base.info(), runtime()?);
    let default = Tuning::new(info.threads, info.batch_tokens);
    let shown = io::stderr().is_terminal();
    let works = works(args, sample, base, &runtime, shown)?;
    let together = fit_together(info, MOST_BUDGETS);
    let all = MOST_BUDGETS * Race::texts(&works, ROUNDS) + decided(default) * Race::texts(&works, LAST_ROUNDS);
    let progress = Progress::new(Some(all as u64), "texts", shown);
    let load = |tuning: &Tuning| {
        if *tuning == default {
            return Ok(base.clone());
        }
        let builder = args.load.builder(&args.model).without_tuning();
        Ok(builder.with_threads(tuning.threads).with_batch_tokens(tuning.batch_tokens).build()?)
    };
    let mut seen = 0;
    let mut compare = |settings: Vec<Tuning>, rounds| {
        let race = Race { runtime: &runtime, works: &works, rounds, together, progress: &progress };
        race.run(&settings, load, &mut seen).map(|runs| scored(&settings, &runs))
    };

    let cores_before = Cores::now();
    let threads = compare(threads(default), LAST_ROUNDS)?;
    let best_threads = threads[best(&threads)].tuning;
    let budgets = compare(budgets(default, best_threads.threads), ROUNDS)?;
    let best_budget = budgets[leader(&budgets)].tuning;
    let last = compare(near(default, best_budget), LAST_ROUNDS)?;
    drop(progress);
    let taken = Cores::spoilt(cores_before);
    let (documents, queries) = (works[0].texts.len(), works[1].texts.len());
    Ok(Measured { default, documents, queries, together, threads, budgets, last, taken })
}

/// The most settings in the two comparisons that decide something.
fn decided(default: Tuning) -> usize {
    threads(default).len() + MOST_LAST
}

/// So many documents and queries that all comparisons together take about the time asked for.
fn works<'a>(
    args: &TuneArgs,
    sample: &'a Sample,
    base: &Onnx,
    runtime: &Runtime,
    shown: bool,
) -> Result<[Work<'a>; 2], Failure> {
    let _waiting = Progress::waiting("finding out how fast the model is", shown);
    let default = Tuning::new(base.info().threads, base.info().batch_tokens);
    let passes = MOST_BUDGETS * (ROUNDS + 1) + decided(default) * (LAST_ROUNDS + 1);
    let time = Duration::from_secs(args.seconds.into()) / passes as u32;
    let work = |kind, texts: &'a [String], time| {
        Ok::<_, Failure>(Work { kind, texts: spread(texts, texts_in(runtime, base, kind, texts, time)?) })
    };
    Ok([
        work(InputKind::Document, &sample.documents, time * 2 / 3)?,
        work(InputKind::Query, &sample.queries, time / 3)?,
    ])
}

/// Says with which texts and rounds was measured.
fn print_conditions(report: &mut Report<impl Write>, sample: &Sample, measured: &Measured) -> Result<(), Failure> {
    let counts = format!("{} documents and {} queries", measured.documents, measured.queries);
    report.line("texts", format!("{counts} from {}", plain(&sample.from)))?;
    if sample.left_out > 0 {
        report.line("  lines left out", sample.left_out)?;
    }
    let turns = turns(measured.together, "setting");
    report.line("rounds", format!("{LAST_ROUNDS}, {ROUNDS} for budgets, {turns}; medians"))
}

/// Prints a row for each setting of each comparison.
fn print_table(report: &mut Report<impl Write>, measured: &Measured) -> Result<(), Failure> {
    let header = ["compared", "threads", "budget", "documents, tokens/s", "queries, tokens/s", "to the defaults"];
    let mut rows = vec![header.map(str::to_owned)];
    let stages = [("threads", &measured.threads), ("budgets", &measured.budgets), ("the last", &measured.last)];
    for (stage, settings) in stages {
        rows.extend(settings.iter().map(|scored| {
            [
                stage.to_owned(),
                scored.tuning.threads.to_string(),
                scored.tuning.batch_tokens.to_string(),
                format!("{:.0}", scored.documents),
                format!("{:.0}", scored.queries),
                format!("{:.3}", scored.score),
            ]
        }));
    }
    report.table(&rows)?;
    report.text(
        "\nto the defaults: how many times as fast in the same round, documents and queries counting alike; the median",
    )
}

/// Says what was chosen and why, and whether other programs may have spoilt it.
fn print_choice(report: &mut Report<impl Write>, measured: &Measured) -> Result<(), Failure> {
    report.text("")?;
    let chosen = measured.chosen();
    let percent = 100.0 * (GAIN - 1.0);
    let why = if chosen.tuning == measured.default {
        format!("the defaults: nothing else surely gains more than {percent:.0} %")
    } else {
        format!("{:.1} % faster than the defaults", 100.0 * (chosen.score - 1.0))
    };
    report.line("chosen", format_args!("{} ({why})", chosen.tuning))?;
    if let Some(taken) = measured.taken {
        let taken = format!("{:.0} % of the time that this took: what was found may be chance", 100.0 * taken);
        report.line("others had cores", taken)?;
    }
    Ok(())
}

/// Keeps what was chosen, unless that was not asked for or it may be chance.
fn store(report: &mut Report<impl Write>, args: &TuneArgs, base: &Onnx, measured: &Measured) -> Result<(), Failure> {
    if args.dry_run {
        return report.line("stored", "nothing, as --dry-run asks");
    }
    if measured.taken.is_some() && !args.even_if_busy {
        return report.line("stored", "nothing: run it again with nothing else running, or with --even-if-busy");
    }
    let chosen = measured.chosen();
    let file = base.store_tuning(&chosen.tuning, chosen.documents)?;
    report.line("stored in", format_args!("{}: the next load uses it", file.display()))
}

/// Threads to compare: the defaults', half of them, one.
fn threads(default: Tuning) -> Vec<Tuning> {
    with_default(default, [default.threads / 2, 1].map(|threads| Tuning::new(threads, default.batch_tokens)))
}

/// Budgets to compare, from coarse steps around the default.
fn budgets(default: Tuning, threads: usize) -> Vec<Tuning> {
    let tokens = default.batch_tokens;
    let steps = [tokens / 4, tokens / 2, tokens, tokens * 2, tokens * 4, tokens * 8];
    with_default(default, steps.map(|tokens| Tuning::new(threads, tokens)))
}

/// The best so far, and what is halfway to its neighbours.
fn near(default: Tuning, best: Tuning) -> Vec<Tuning> {
    let tokens = best.batch_tokens;
    let steps = [tokens, tokens * 3 / 4, tokens * 3 / 2];
    with_default(default, steps.map(|tokens| Tuning::new(best.threads, tokens)))
}

/// The defaults, and the others that can be.
fn with_default(default: Tuning, others: impl IntoIterator<Item = Tuning>) -> Vec<Tuning> {
    let mut settings = vec![default];
    for other in others {
        if other.threads > 0 && other.batch_tokens > 0 && !settings.contains(&other) {
            settings.push(other);
        }
    }
    settings
}

/// Scores settings by their gains over the first, documents and queries counting alike.
fn scored(settings: &[Tuning], runs: &[Vec<Run>]) -> Vec<Scored> {
    let speeds = |runs: &[Run]| [0, 1].map(|work| runs[work].tokens_per_second());
    let score = |(&tuning, own): (&Tuning, &Vec<Run>)| {
        let [documents, queries] = speeds(own);
        let [of_documents, of_queries] = [0, 1].map(|work| own[work].gains(&runs[0][work]));
        let gains: Vec<f64> = of_documents.zip(of_queries).map(|(a, b)| (a * b).sqrt()).collect();
        let steady = gains.iter().filter(|&&gain| gain <= 1.0).count() <= 1;
        Scored { tuning, documents, queries, score: median(&gains), steady }
    };
    settings.iter().zip(runs).map(score).collect()
}

/// The one with the highest score.
fn leader(settings: &[Scored]) -> usize {
    let by_score = settings.iter().enumerate().max_by(|(_, a), (_, b)| a.score.total_cmp(&b.score));
    by_score.map_or(0, |(place, _)| place)
}

/// The one with the highest score of those that surely gain enough, else the defaults, which are the first.
fn best(settings: &[Scored]) -> usize {
    let surely = settings.iter().enumerate().filter(|(_, scored)| scored.steady && scored.score > GAIN);
    surely.max_by(|(_, a), (_, b)| a.score.total_cmp(&b.score)).map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Tuning = Tuning::new(4, 256);

    fn pairs(settings: Vec<Tuning>) -> Vec<(usize, usize)> {
        settings.iter().map(|tuning| (tuning.threads, tuning.batch_tokens)).collect()
    }

    #[test]
    fn each_comparison_has_the_defaults_first_and_nothing_twice() {
        assert_eq!(pairs(threads(DEFAULT)), [(4, 256), (2, 256), (1, 256)]);
        assert_eq!(pairs(threads(Tuning::new(2, 256))), [(2, 256), (1, 256)]);
        assert_eq!(pairs(threads(Tuning::new(1, 256))), [(1, 256)]);
        assert_eq!(pairs(budgets(DEFAULT, 4)), [(4, 256), (4, 64), (4, 128), (4, 512), (4, 1024), (4, 2048)]);
        assert_eq!(pairs(budgets(DEFAULT, 2))[..2], [(4, 256), (2, 64)]);
        assert_eq!(budgets(DEFAULT, 2).len(), MOST_BUDGETS);
        assert_eq!(pairs(budgets(Tuning::new(1, 1), 1)), [(1, 1), (1, 2), (1, 4), (1, 8)]);
        assert_eq!(pairs(near(DEFAULT, DEFAULT)), [(4, 256), (4, 192), (4, 384)]);
        assert_eq!(pairs(near(DEFAULT, Tuning::new(2, 512))), [(4, 256), (2, 512), (2, 384), (2, 768)]);
        assert_eq!(pairs(near(Tuning::new(1, 1), Tuning::new(1, 1))), [(1, 1)]);
        assert!(near(DEFAULT, Tuning::new(2, 512)).len() <= MOST_LAST);
    }

    #[test]
    fn a_small_gain_is_none() {
        let scored = |scores: &[f64]| -> Vec<Scored> {
            let scored = |&score| Scored { tuning: DEFAULT, documents: 1.0, queries: 1.0, score, steady: true };
            scores.iter().map(scored).collect()
        };
        assert_eq!(best(&scored(&[1.0, 1.03, 0.9])), 0);
        assert_eq!(best(&scored(&[1.0, 1.031, 1.2, 1.1])), 2);
        assert_eq!(leader(&scored(&[1.0, 1.01, 1.005])), 1);
        assert_eq!(best(&scored(&[1.0])), 0);
        let mut unsteady = scored(&[1.0, 1.1, 1.5]);
        unsteady[2].steady = false;
        assert_eq!((best(&unsteady), leader(&unsteady)), (1, 2));
    }
}
