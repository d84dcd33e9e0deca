//! Runs `bench`: measures how fast a model is with batches of several sizes.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use docvector_embed::{InputKind, provider::Onnx};

use crate::{
    cli::{bench::BenchArgs, kind::KindArg},
    cpu_contention::CpuTime,
    failure::Failure,
    machine::{describe, devices},
    measurement::{Measurement, Workload},
    plot::Plot,
    plot_file::PlotFile,
    progress::Progress,
    report::Report,
    rounds::{Rounds, fit_in_memory_together, order_in_words, say_if_longer, texts_within},
    runtime::runtime,
    sample::{Sample, pick_evenly},
    statistics::median,
    wording::without_controls,
};

/// The measurements: one for each budget.
struct BenchMeasurements {
    budgets: Vec<usize>,
    runs: Vec<Measurement>,
    texts: usize,
    /// Whether all models took turns.
    together: bool,
    /// The share of the time that other programs used the cores, if it spoils the measurements.
    busy_share: Option<f64>,
}

/// Measures, prints a table, and draws a plot where asked.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let sample = Sample::open(args.input.as_deref(), &args.format)?;
    let plot = args.plot.as_deref().map(PlotFile::create).transpose()?;
    let kind = InputKind::from(args.kind);
    // The texts of a file are of the kind that the user names.
    let own_queries = kind == InputKind::Query && args.input.is_none();
    let texts = if own_queries { &sample.queries } else { &sample.documents };

    let base = args.load.builder(&args.model).without_tuning().build()?;
    let measured = measure(args, kind, texts, &base)?;
    let mut report = Report::new(io::stdout().lock());
    describe(&mut report, &args.model, base.info())?;
    print_conditions(&mut report, args, &base, &sample, texts, &measured)?;
    print_table(&mut report, &measured, base.info().batch_tokens)?;
    print_warnings(&mut report, &measured, base.info().threads)?;
    if let Some(file) = plot {
        let name = file.name().to_owned();
        file.finish(&draw_plot(&base, &measured))?;
        report.text(format_args!("\nplotted in {name}"))?;
    }
    Ok(())
}

/// Embeds the texts with each budget, in turns.
fn measure(args: &BenchArgs, kind: InputKind, texts: &[String], base: &Onnx) -> Result<BenchMeasurements, Failure> {
    let (info, runtime) = (base.info(), runtime()?);
    let default = info.batch_tokens;
    let budgets = args.budgets(default);
    let shown = io::stderr().is_terminal();
    let waiting = Progress::waiting("finding out how fast the model is", shown);
    let time = Duration::from_secs(args.seconds.into()) / ((args.rounds() + 1) * budgets.len()) as u32;
    let pass = texts_within(&runtime, base, kind, texts, time)?;
    let count = pass.texts;
    drop(waiting);
    say_if_longer(pass.seconds * ((args.rounds() + 1) * budgets.len()) as f64, args.seconds);
    let workloads = [Workload { kind, texts: pick_evenly(texts, count) }];
    let together = fit_in_memory_together(info, budgets.len());
    let all = Rounds::total_texts(&workloads, args.rounds()) * budgets.len();
    let progress = Progress::new(Some(all as u64), "texts", shown);
    let rounds =
        Rounds { runtime: &runtime, workloads: &workloads, rounds: args.rounds(), together, progress: &progress };
    let load = |&budget: &usize| {
        if budget == default {
            return Ok(base.clone());
        }
        Ok(args.load.builder(&args.model).without_tuning().with_batch_tokens(budget).build()?)
    };
    let cpu_time_before = CpuTime::now();
    let runs: Vec<Measurement> = rounds.run(&budgets, load, &mut 0)?.into_iter().flatten().collect();
    drop(progress);
    let busy_share = CpuTime::busy_share_since(cpu_time_before);
    Ok(BenchMeasurements { budgets, runs, texts: count, together, busy_share })
}

/// Prints the settings, the texts and the rounds.
fn print_conditions(
    report: &mut Report<impl Write>,
    args: &BenchArgs,
    base: &Onnx,
    sample: &Sample,
    texts: &[String],
    measured: &BenchMeasurements,
) -> Result<(), Failure> {
    report.line("threads", base.info().threads)?;
    let kinds = if args.kind == KindArg::Query { "queries" } else { "documents" };
    let (count, have) = (measured.texts, texts.len());
    let of = if count < have { format!("{count} of {have}") } else { count.to_string() };
    let again = if count > have { format!(", which has {have}") } else { String::new() };
    report.line("texts", format!("{of} from {}{again}, as {kinds}", without_controls(&sample.source)))?;
    if sample.skipped_lines > 0 {
        report.line("  lines left out", sample.skipped_lines)?;
    }
    let tokens = measured.tokens();
    report.line("tokens", format!("{tokens} ({:.0} per text)", tokens as f64 / count as f64))?;
    let order = order_in_words(measured.together, "budget");
    report.line("rounds", format!("{}, {order}; medians", args.rounds()))?;
    report.line("budget", format!("padded tokens of a batch; {} is the default", base.info().batch_tokens))
}

/// Warns of conditions that spoil the figures.
fn print_warnings(
    report: &mut Report<impl Write>,
    measured: &BenchMeasurements,
    threads: usize,
) -> Result<(), Failure> {
    if let Some(busy_share) = measured.busy_share {
        let percent = 100.0 * busy_share;
        report.text(format_args!(
            "\nOther programs used the cores for {percent:.0} % of the time: this machine can be faster."
        ))?;
    }
    let short = measured.budgets.iter().any(|&budget| (budget * threads) as u64 > measured.tokens());
    if short {
        report.text("\nThe largest budgets leave threads waiting: the texts do not fill one batch per thread.")?;
    }
    Ok(())
}

impl BenchMeasurements {
    /// Returns the number of tokens in a pass.
    fn tokens(&self) -> u64 {
        self.runs.first().map_or(0, |run| run.tokens)
    }
}

/// Draws the plot as SVG.
fn draw_plot(base: &Onnx, measured: &BenchMeasurements) -> String {
    let speeds = measured.runs.iter().map(Measurement::tokens_per_second);
    let points = measured.budgets.iter().zip(speeds).map(|(&budget, speed)| (budget as f64, speed)).collect();
    let title = format!("{}, {}, threads: {}", label(base), devices(base.info()), base.info().threads);
    Plot { title: &title, x_label: "padded tokens of a batch", y_label: "tokens/s", points }.svg()
}

fn label(model: &Onnx) -> String {
    without_controls(model.to_string().trim_start_matches("onnx/"))
}

/// Prints a row for each budget.
fn print_table(report: &mut Report<impl Write>, measured: &BenchMeasurements, default: usize) -> Result<(), Failure> {
    let BenchMeasurements { budgets, runs, .. } = measured;
    let base = budgets.iter().position(|&budget| budget == default).map_or(&runs[0], |at| &runs[at]);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let header = [
        "budget",
        "texts/s",
        "tokens/s",
        "ratio",
        "padding",
        "tokenizing",
        "inference",
        "delivering",
        "waiting",
        "longest",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(budgets.iter().zip(runs).map(|(budget, run)| {
        let [tokenizing, inference, delivering, waiting] = run.stage_shares().map(percent);
        [
            budget.to_string(),
            format!("{:.1}", run.texts_per_second()),
            format!("{:.0}", run.tokens_per_second()),
            format!("{:.2}", median(&run.speedups(base).collect::<Vec<_>>())),
            percent(run.padding()),
            tokenizing,
            inference,
            delivering,
            waiting,
            format!("{:.1} ms", 1e3 * run.longest_batch.as_secs_f64()),
        ]
    }));
    report.table(&rows)?;
    report.text(
        "\nratio: speed relative to the default, pass by pass; padding: share of the padded tokens; \
         tokenizing to waiting: shares of the threads' time; longest: the slowest batch",
    )
}
