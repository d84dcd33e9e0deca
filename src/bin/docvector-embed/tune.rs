//! Runs `tune`: finds the threads and the size of batches that are fastest on this machine, and stores them.

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
    cpu_contention::CpuTime,
    failure::Failure,
    machine::describe,
    measurement::{Measurement, Workload},
    progress::Progress,
    report::Report,
    rounds::{Rounds, fit_in_memory_together, order_in_words, say_if_longer, texts_within},
    runtime::runtime,
    sample::{Sample, pick_evenly},
    statistics::median,
    wording::without_controls,
};

/// The rounds of a search, and of a comparison that decides something.
const SEARCH_ROUNDS: usize = 3;
const DECIDING_ROUNDS: usize = 7;

/// The least speedup over the defaults that counts: less may be an error of measurement.
const MIN_SPEEDUP: f64 = 1.03;

/// The most settings in a search for a budget, and in the last comparison.
const MAX_BUDGETS: usize = 7;
const MAX_FINALISTS: usize = 4;

/// A setting and its speed.
struct RatedSetting {
    tuning: Tuning,
    /// Tokens per second, of documents and of queries.
    document_speed: f64,
    query_speed: f64,
    /// The speed relative to the defaults.
    speedup: f64,
    is_consistent: bool,
}

/// The measurements: the settings of each comparison, the defaults first.
struct TuneMeasurements {
    default: Tuning,
    documents: usize,
    queries: usize,
    /// Whether all models of a comparison took turns.
    together: bool,
    threads: Vec<RatedSetting>,
    budgets: Vec<RatedSetting>,
    finalists: Vec<RatedSetting>,
    /// The share of the time that other programs used the cores, if it spoils the measurements.
    busy_share: Option<f64>,
}

impl TuneMeasurements {
    fn chosen(&self) -> &RatedSetting {
        &self.finalists[surely_fastest(&self.finalists)]
    }
}

/// Measures, prints a table, and stores the best setting.
pub(crate) fn run(args: &TuneArgs) -> Result<(), Failure> {
    // Check the texts and the file of settings first, so that errors in them show before the long measurement.
    let sample = Sample::open(args.input.as_deref(), &args.format)?;
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
    store_choice(&mut report, args, &base, &measured)
}

/// Compares numbers of threads, then budgets with the best number of threads, then budgets near the best one.
fn measure(args: &TuneArgs, sample: &Sample, base: &Onnx) -> Result<TuneMeasurements, Failure> {
    let (info, runtime) = (base.info(), runtime()?);
    let default = Tuning::new(info.threads, info.batch_tokens);
    let shown = io::stderr().is_terminal();
    let workloads = choose_workloads(args, sample, base, &runtime, shown)?;
    let together = fit_in_memory_together(info, MAX_BUDGETS);
    let all = MAX_BUDGETS * Rounds::total_texts(&workloads, SEARCH_ROUNDS)
        + deciding_settings(default) * Rounds::total_texts(&workloads, DECIDING_ROUNDS);
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
        let rounds_to_run = Rounds { runtime: &runtime, workloads: &workloads, rounds, together, progress: &progress };
        rounds_to_run.run(&settings, load, &mut seen).map(|runs| rate(&settings, &runs))
    };

    let cpu_time_before = CpuTime::now();
    let threads = compare(thread_candidates(default), DECIDING_ROUNDS)?;
    let best_threads = threads[surely_fastest(&threads)].tuning;
    let budgets = compare(budget_candidates(default, best_threads.threads), SEARCH_ROUNDS)?;
    let best_budget = budgets[fastest(&budgets)].tuning;
    let finalists = compare(nearby_candidates(default, best_budget), DECIDING_ROUNDS)?;
    drop(progress);
    let busy_share = CpuTime::busy_share_since(cpu_time_before);
    let (documents, queries) = (workloads[0].texts.len(), workloads[1].texts.len());
    Ok(TuneMeasurements { default, documents, queries, together, threads, budgets, finalists, busy_share })
}

/// Returns the most settings in the two comparisons that decide something.
fn deciding_settings(default: Tuning) -> usize {
    thread_candidates(default).len() + MAX_FINALISTS
}

/// Chooses as many documents and queries as all comparisons embed in about the time asked for.
fn choose_workloads<'a>(
    args: &TuneArgs,
    sample: &'a Sample,
    base: &Onnx,
    runtime: &Runtime,
    shown: bool,
) -> Result<[Workload<'a>; 2], Failure> {
    let waiting = Progress::waiting("finding out how fast the model is", shown);
    let default = Tuning::new(base.info().threads, base.info().batch_tokens);
    let passes = MAX_BUDGETS * (SEARCH_ROUNDS + 1) + deciding_settings(default) * (DECIDING_ROUNDS + 1);
    let time = Duration::from_secs(args.seconds.into()) / passes as u32;
    let mut seconds = 0.0;
    let mut work = |kind, texts: &'a [String], time| {
        let pass = texts_within(runtime, base, kind, texts, time)?;
        seconds += pass.seconds * passes as f64;
        Ok::<_, Failure>(Workload { kind, texts: pick_evenly(texts, pass.texts) })
    };
    let workloads = [
        work(InputKind::Document, &sample.documents, time * 2 / 3)?,
        work(InputKind::Query, &sample.queries, time / 3)?,
    ];
    drop(waiting);
    say_if_longer(seconds, args.seconds);
    Ok(workloads)
}

/// Prints the texts and the rounds.
fn print_conditions(
    report: &mut Report<impl Write>,
    sample: &Sample,
    measured: &TuneMeasurements,
) -> Result<(), Failure> {
    let counts = format!("{} documents and {} queries", measured.documents, measured.queries);
    report.line("texts", format!("{counts} from {}", without_controls(&sample.source)))?;
    if sample.skipped_lines > 0 {
        report.line("  lines left out", sample.skipped_lines)?;
    }
    let order = order_in_words(measured.together, "setting");
    report.line("rounds", format!("{DECIDING_ROUNDS}, {SEARCH_ROUNDS} for budgets, {order}; medians"))
}

/// Prints a row for each setting of each comparison.
fn print_table(report: &mut Report<impl Write>, measured: &TuneMeasurements) -> Result<(), Failure> {
    let header = ["compared", "threads", "budget", "documents, tokens/s", "queries, tokens/s", "to the defaults"];
    let mut rows = vec![header.map(str::to_owned)];
    let stages = [("threads", &measured.threads), ("budgets", &measured.budgets), ("final", &measured.finalists)];
    for (stage, settings) in stages {
        rows.extend(settings.iter().map(|rated| {
            [
                stage.to_owned(),
                rated.tuning.threads.to_string(),
                rated.tuning.batch_tokens.to_string(),
                format!("{:.0}", rated.document_speed),
                format!("{:.0}", rated.query_speed),
                format!("{:.3}", rated.speedup),
            ]
        }));
    }
    report.table(&rows)?;
    report.text("\nto the defaults: median of the speeds relative to the defaults in the same round, both kinds alike")
}

/// Prints which setting was chosen and why, and whether other programs may have spoilt the result.
fn print_choice(report: &mut Report<impl Write>, measured: &TuneMeasurements) -> Result<(), Failure> {
    report.text("")?;
    let chosen = measured.chosen();
    let percent = 100.0 * (MIN_SPEEDUP - 1.0);
    let why = if chosen.tuning == measured.default {
        format!("the defaults: no other setting is reliably more than {percent:.0} % faster")
    } else {
        format!("{:.1} % faster than the defaults", 100.0 * (chosen.speedup - 1.0))
    };
    report.line("chosen", format_args!("{} ({why})", chosen.tuning))?;
    if let Some(busy_share) = measured.busy_share {
        let busy_share = format!("{:.0} % of the time: the result may be chance", 100.0 * busy_share);
        report.line("others had cores", busy_share)?;
    }
    Ok(())
}

/// Stores the chosen setting, unless the user wants a dry run or the result may be chance.
fn store_choice(
    report: &mut Report<impl Write>,
    args: &TuneArgs,
    base: &Onnx,
    measured: &TuneMeasurements,
) -> Result<(), Failure> {
    if args.dry_run {
        return report.line("stored", "nothing, as --dry-run asks");
    }
    if measured.busy_share.is_some() && !args.even_if_busy {
        return report.line("stored", "nothing: run it again with nothing else running, or with --even-if-busy");
    }
    let chosen = measured.chosen();
    let file = base.store_tuning(&chosen.tuning, chosen.document_speed)?;
    report.line("stored in", format_args!("{}: the next load uses it", file.display()))
}

/// Returns the numbers of threads to compare: the default, half of it, and one.
fn thread_candidates(default: Tuning) -> Vec<Tuning> {
    default_and(default, [default.threads / 2, 1].map(|threads| Tuning::new(threads, default.batch_tokens)))
}

/// Returns the budgets to compare, in coarse steps around the default.
fn budget_candidates(default: Tuning, threads: usize) -> Vec<Tuning> {
    let tokens = default.batch_tokens;
    let steps = [tokens / 4, tokens / 2, tokens, tokens * 2, tokens * 4, tokens * 8];
    default_and(default, steps.map(|tokens| Tuning::new(threads, tokens)))
}

/// Returns the best setting so far, and budgets halfway to its neighbors.
fn nearby_candidates(default: Tuning, best: Tuning) -> Vec<Tuning> {
    let tokens = best.batch_tokens;
    let steps = [tokens, tokens * 3 / 4, tokens * 3 / 2];
    default_and(default, steps.map(|tokens| Tuning::new(best.threads, tokens)))
}

/// Returns the defaults, then the other valid settings, each once.
fn default_and(default: Tuning, others: impl IntoIterator<Item = Tuning>) -> Vec<Tuning> {
    let mut settings = vec![default];
    for other in others {
        if other.threads > 0 && other.batch_tokens > 0 && !settings.contains(&other) {
            settings.push(other);
        }
    }
    settings
}

/// Rates settings by their speedup over the first one. Documents and queries count alike.
fn rate(settings: &[Tuning], runs: &[Vec<Measurement>]) -> Vec<RatedSetting> {
    let speeds = |runs: &[Measurement]| [0, 1].map(|work| runs[work].tokens_per_second());
    let rate = |(&tuning, own): (&Tuning, &Vec<Measurement>)| {
        let [document_speed, query_speed] = speeds(own);
        let [of_documents, of_queries] = [0, 1].map(|work| own[work].speedups(&runs[0][work]));
        let speedups: Vec<f64> = of_documents.zip(of_queries).map(|(a, b)| (a * b).sqrt()).collect();
        let is_consistent = speedups.iter().filter(|&&speedup| speedup <= 1.0).count() <= 1;
        RatedSetting { tuning, document_speed, query_speed, speedup: median(&speedups), is_consistent }
    };
    settings.iter().zip(runs).map(rate).collect()
}

/// Returns the index of the setting with the highest speedup.
fn fastest(settings: &[RatedSetting]) -> usize {
    let by_speedup = settings.iter().enumerate().max_by(|(_, a), (_, b)| a.speedup.total_cmp(&b.speedup));
    by_speedup.map_or(0, |(place, _)| place)
}

/// Returns the index of the fastest setting that is consistently fast enough, else that of the defaults, the first.
fn surely_fastest(settings: &[RatedSetting]) -> usize {
    let surely = settings.iter().enumerate().filter(|(_, rated)| rated.is_consistent && rated.speedup > MIN_SPEEDUP);
    surely.max_by(|(_, a), (_, b)| a.speedup.total_cmp(&b.speedup)).map_or(0, |(place, _)| place)
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
        assert_eq!(pairs(thread_candidates(DEFAULT)), [(4, 256), (2, 256), (1, 256)]);
        assert_eq!(pairs(thread_candidates(Tuning::new(2, 256))), [(2, 256), (1, 256)]);
        assert_eq!(pairs(thread_candidates(Tuning::new(1, 256))), [(1, 256)]);
        assert_eq!(pairs(budget_candidates(DEFAULT, 4)), [(4, 256), (4, 64), (4, 128), (4, 512), (4, 1024), (4, 2048)]);
        assert_eq!(pairs(budget_candidates(DEFAULT, 2))[..2], [(4, 256), (2, 64)]);
        assert_eq!(budget_candidates(DEFAULT, 2).len(), MAX_BUDGETS);
        assert_eq!(pairs(budget_candidates(Tuning::new(1, 1), 1)), [(1, 1), (1, 2), (1, 4), (1, 8)]);
        assert_eq!(pairs(nearby_candidates(DEFAULT, DEFAULT)), [(4, 256), (4, 192), (4, 384)]);
        assert_eq!(pairs(nearby_candidates(DEFAULT, Tuning::new(2, 512))), [(4, 256), (2, 512), (2, 384), (2, 768)]);
        assert_eq!(pairs(nearby_candidates(Tuning::new(1, 1), Tuning::new(1, 1))), [(1, 1)]);
        assert!(nearby_candidates(DEFAULT, Tuning::new(2, 512)).len() <= MAX_FINALISTS);
    }

    #[test]
    fn a_small_gain_is_none() {
        let rated = |speedups: &[f64]| -> Vec<RatedSetting> {
            let rated = |&speedup| RatedSetting {
                tuning: DEFAULT,
                document_speed: 1.0,
                query_speed: 1.0,
                speedup,
                is_consistent: true,
            };
            speedups.iter().map(rated).collect()
        };
        assert_eq!(surely_fastest(&rated(&[1.0, 1.03, 0.9])), 0);
        assert_eq!(surely_fastest(&rated(&[1.0, 1.031, 1.2, 1.1])), 2);
        assert_eq!(fastest(&rated(&[1.0, 1.01, 1.005])), 1);
        assert_eq!(surely_fastest(&rated(&[1.0])), 0);
        let mut unsteady = rated(&[1.0, 1.1, 1.5]);
        unsteady[2].is_consistent = false;
        assert_eq!((surely_fastest(&unsteady), fastest(&unsteady)), (1, 2));
    }
}
