//! Measures what sizes of batches do on this machine.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use docvector_embed::{InputKind, provider::Onnx};

use crate::{
    cli::{bench::BenchArgs, kind::Kind},
    cpu_contention::Cores,
    failure::Failure,
    machine::{describe, devices},
    measurement::{Run, Work},
    plot::Plot,
    plot_file::PlotFile,
    progress::Progress,
    report::Report,
    rounds::{Race, fit_together, texts_in, turns},
    runtime::runtime,
    sample::{Sample, spread},
    statistics::median,
    wording::plain,
};

/// What was measured: a run for each budget.
struct Measured {
    budgets: Vec<usize>,
    runs: Vec<Run>,
    texts: usize,
    /// Whether all models took turns.
    together: bool,
    /// The share of the time that other programs had the cores, if it spoils what was measured.
    taken: Option<f64>,
}

/// Measures, prints a table, and draws a plot where asked.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let sample = Sample::open(args.input.as_deref())?;
    let plot = args.plot.as_deref().map(PlotFile::create).transpose()?;
    let kind = InputKind::from(args.kind);
    // Of a file, all texts are what the user says that they are.
    let own_queries = kind == InputKind::Query && args.input.is_none();
    let texts = if own_queries { &sample.queries } else { &sample.documents };

    let base = args.load.builder(&args.model).without_tuning().build()?;
    let measured = measure(args, kind, texts, &base)?;
    let mut report = Report::new(io::stdout().lock());
    describe(&mut report, &args.model, base.info())?;
    print_conditions(&mut report, args, &base, &sample, texts, &measured)?;
    table(&mut report, &measured, base.info().batch_tokens)?;
    print_doubts(&mut report, &measured, base.info().threads)?;
    if let Some(file) = plot {
        let name = file.name().to_owned();
        file.finish(&drawn(&base, &measured))?;
        report.text(format_args!("\nplotted in {name}"))?;
    }
    Ok(())
}

/// Embeds the texts with each budget, in turns.
fn measure(args: &BenchArgs, kind: InputKind, texts: &[String], base: &Onnx) -> Result<Measured, Failure> {
    let (info, runtime) = (base.info(), runtime()?);
    let default = info.batch_tokens;
    let budgets = args.budgets(default);
    let shown = io::stderr().is_terminal();
    let waiting = Progress::waiting("finding out how fast the model is", shown);
    let time = Duration::from_secs(args.seconds.into()) / ((args.rounds() + 1) * budgets.len()) as u32;
    let count = texts_in(&runtime, base, kind, texts, time)?;
    drop(waiting);
    let works = [Work { kind, texts: spread(texts, count) }];
    let together = fit_together(info, budgets.len());
    let all = Race::texts(&works, args.rounds()) * budgets.len();
    let progress = Progress::new(Some(all as u64), "texts", shown);
    let race = Race { runtime: &runtime, works: &works, rounds: args.rounds(), together, progress: &progress };
    let load = |&budget: &usize| {
        if budget == default {
            return Ok(base.clone());
        }
        Ok(args.load.builder(&args.model).without_tuning().with_batch_tokens(budget).build()?)
    };
    let cores_before = Cores::now();
    let runs: Vec<Run> = race.run(&budgets, load, &mut 0)?.into_iter().flatten().collect();
    drop(progress);
    let taken = Cores::spoilt(cores_before);
    Ok(Measured { budgets, runs, texts: count, together, taken })
}

/// Says with which settings, texts and rounds was measured.
fn print_conditions(
    report: &mut Report<impl Write>,
    args: &BenchArgs,
    base: &Onnx,
    sample: &Sample,
    texts: &[String],
    measured: &Measured,
) -> Result<(), Failure> {
    report.line("threads", base.info().threads)?;
    let kinds = if args.kind == Kind::Query { "queries" } else { "documents" };
    let (count, have) = (measured.texts, texts.len());
    let of = if count < have { format!("{count} of {have}") } else { count.to_string() };
    let again = if count > have { format!(", which has {have}") } else { String::new() };
    report.line("texts", format!("{of} from {}{again}, as {kinds}", plain(&sample.from)))?;
    if sample.left_out > 0 {
        report.line("  lines left out", sample.left_out)?;
    }
    let tokens = measured.tokens();
    report.line("tokens", format!("{tokens} ({:.0} a text)", tokens as f64 / count as f64))?;
    let turns = turns(measured.together, "budget");
    report.line("rounds", format!("{}, {turns}; medians", args.rounds()))?;
    report.line("budget", format!("padded tokens of a batch; {} is the default", base.info().batch_tokens))
}

/// Says what may make the figures worthless.
fn print_doubts(report: &mut Report<impl Write>, measured: &Measured, threads: usize) -> Result<(), Failure> {
    if let Some(taken) = measured.taken {
        let percent = 100.0 * taken;
        report.text(format_args!(
            "\nOther programs had the cores for {percent:.0} % of the time: these figures are not the machine's."
        ))?;
    }
    let short = measured.budgets.iter().any(|&budget| (budget * threads) as u64 > measured.tokens());
    if short {
        report.text("\nBudgets so large that the texts do not make a batch for each thread leave threads waiting.")?;
    }
    Ok(())
}

impl Measured {
    /// Tokens of a pass.
    fn tokens(&self) -> u64 {
        self.runs.first().map_or(0, |run| run.tokens)
    }
}

/// The plot, as SVG.
fn drawn(base: &Onnx, measured: &Measured) -> String {
    let speeds = measured.runs.iter().map(Run::tokens_per_second);
    let points = measured.budgets.iter().zip(speeds).map(|(&budget, speed)| (budget as f64, speed)).collect();
    let title = format!("{}, {}, threads: {}", label(base), devices(base.info()), base.info().threads);
    Plot { title: &title, across: "padded tokens of a batch", up: "tokens/s", points }.svg()
}

fn label(model: &Onnx) -> String {
    plain(model.to_string().trim_start_matches("onnx/"))
}

/// Prints a row for each budget.
fn table(report: &mut Report<impl Write>, measured: &Measured, default: usize) -> Result<(), Failure> {
    let Measured { budgets, runs, .. } = measured;
    let base = budgets.iter().position(|&budget| budget == default).map_or(&runs[0], |at| &runs[at]);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let header = [
        "budget",
        "texts/s",
        "tokens/s",
        "ratio",
        "padding",
        "tokenising",
        "inference",
        "delivering",
        "waiting",
        "longest",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(budgets.iter().zip(runs).map(|(budget, run)| {
        let [tokenising, inference, delivering, waiting] = run.stages().map(percent);
        [
            budget.to_string(),
            format!("{:.1}", run.texts_per_second()),
            format!("{:.0}", run.tokens_per_second()),
            format!("{:.2}", median(&run.gains(base).collect::<Vec<_>>())),
            percent(run.padding()),
            tokenising,
            inference,
            delivering,
            waiting,
            format!("{:.1} ms", 1e3 * run.longest_batch.as_secs_f64()),
        ]
    }));
    report.table(&rows)?;
    report.text("\nratio: to the default, pass by pass; padding: of the padded tokens; the stages: of the threads' time; longest: the slowest batch seen.")
}
