//! Runs `doctor`: shows the library, machine and model found, and checks the vectors of a known model.

use std::{
    env,
    io::{self, Write},
    path::Path,
    time::Instant,
};

use docvector_embed::{
    EmbedderExt, Normalization, Pooling, Precision, Space,
    conformance::Suite,
    provider::{Device, Onnx, OnnxInfo},
};

use crate::{
    cli::doctor::DoctorArgs,
    failure::Failure,
    machine::{cores, devices},
    reference::{self, Bounds, Reference},
    report::Report,
    runtime::runtime,
};

/// Prints the report. The command fails if a check fails.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let mut report = Report::new(io::stdout().lock());
    report.line("docvector-embed", env!("CARGO_PKG_VERSION"))?;
    let library = match Onnx::load_library(args.load.model_args.library.as_deref()) {
        Ok(library) => library,
        Err(error) => {
            report.line("ONNX Runtime", "none")?;
            machine(&mut report)?;
            return Err(error.into());
        }
    };
    report.line("ONNX Runtime", &library.version)?;
    report.line("  file", library.path.display())?;
    report.line("  found through", library.source)?;
    machine(&mut report)?;
    let Some(folder) = &args.model else {
        let none = "none asked for: --model DIR loads one and checks it; `docvector-embed setup` fetches one";
        return report.line("model", none);
    };
    report.line("model", folder.display())?;
    let started = Instant::now();
    let embedder = args.load.builder(folder).build()?;
    let time = started.elapsed();
    model(&mut report, folder, &embedder)?;
    report.line("  loaded in", format!("{:.2} s", time.as_secs_f64()))?;
    // The second check runs even if the first one fails.
    let laws = if args.laws { check_laws(&mut report, &embedder) } else { Ok(()) };
    let checked = match args.load.model_args.states_pooling() && !args.reference {
        true => report.line("reference vectors", "left out: --pooling or --normalize asks for others"),
        false => check(&mut report, &embedder, args.reference),
    };
    checked.and(laws)
}

fn machine(report: &mut Report<impl Write>) -> Result<(), Failure> {
    report.line("machine", format!("{} {}", env::consts::ARCH, env::consts::OS))?;
    report.line("  cores", cores())?;
    report.line(
        "  CUDA",
        if cfg!(feature = "cuda") {
            "built into this program; --model DIR --device cuda:0 tells whether ONNX Runtime has it"
        } else {
            "not built in"
        },
    )
}

fn model(report: &mut Report<impl Write>, folder: &Path, embedder: &Onnx) -> Result<(), Failure> {
    let (space, info) = (embedder.space()?, embedder.info());
    report.line("  file", info.model.strip_prefix(folder).unwrap_or(&info.model).display())?;
    report.line("  graph", if info.built_graph { "built from the weights" } else { "taken from the file" })?;
    report.line("  family", space.model())?;
    report.line("  pooling", pooling(space))?;
    report.line(
        "  normalization",
        match space.normalization() {
            Normalization::L2 => "to length 1",
            _ => "none",
        },
    )?;
    if let Some(assumed) = &info.assumed {
        report.line("  assumed", assumed)?;
    }
    report.line("  space", space.id())?;
    report.line("  label", space.label().unwrap_or("none"))?;
    report.line("  dimensions", space.dimensions())?;
    let max_tokens = info.max_tokens.map_or_else(|| "any number".to_owned(), |tokens| tokens.to_string());
    report.line("  max tokens", max_tokens)?;
    report.line("  document prompt", prompt(space.prompts().document.as_deref()))?;
    report.line("  query prompt", prompt(space.prompts().query.as_deref()))?;
    report.line("  precision", if space.precision() == Precision::Int8 { "int8" } else { "full" })?;
    report.line("  device", devices(info))?;
    report.line("  threads", info.threads)?;
    report.line("  batch tokens", info.batch_tokens)?;
    report.line("  settings", &info.tuning_source)?;
    // Check the vectors even if the placement is unknown.
    let nodes = match embedder.placement() {
        Ok(shares) => {
            let shares = shares.iter().map(|share| format!("{} on {}", share.nodes, share.provider));
            shares.collect::<Vec<String>>().join(", ")
        }
        Err(error) => format!("not known: {error}"),
    };
    report.line("  nodes", nodes)
}

fn pooling(space: &Space) -> String {
    match space.pooling() {
        [] => "not known".to_owned(),
        modes => modes.iter().map(|mode: &Pooling| mode.as_str()).collect::<Vec<_>>().join(" + "),
    }
}

fn prompt(prompt: Option<&str>) -> String {
    prompt.map_or_else(|| "none".to_owned(), |prompt| format!("{prompt:?}"))
}

/// Compares with the stored vectors, if they are this model's or the user says so.
fn check(report: &mut Report<impl Write>, embedder: &Onnx, forced: bool) -> Result<(), Failure> {
    let space = embedder.space()?;
    if let (false, Err(why)) = (forced, reference::applies(space, embedder.info().max_tokens)) {
        return report.line("reference vectors", why);
    }
    let comparison = runtime()?.block_on(Reference::read()?.compare(embedder))?;
    let bounds = Bounds::of(space.precision(), !embedder.info().devices.contains(&Device::Cpu));
    let at_least = |value: f64, bound: f64| format!("{value:.7} (at least {bound})");
    report.line("reference vectors", format!("{} texts of {}", comparison.texts, reference::MODEL))?;
    report.line("  min cosine", at_least(comparison.min_cosine, bounds.min_cosine))?;
    report.line("  mean cosine", at_least(comparison.mean_cosine, bounds.mean_cosine))?;
    let bound = bounds.max_difference.map(|bound| format!(" (at most {bound:e})")).unwrap_or_default();
    report.line("  max difference", format!("{:.1e}{bound}", comparison.max_difference))?;
    report.line("  worst text", &comparison.worst)?;
    let holds = bounds.are_met(&comparison);
    report.line("  result", if holds { "PASS" } else { "FAIL" })?;
    if holds { Ok(()) } else { Err(Failure::new("the vectors are not those of the reference")) }
}

/// Runs the conformance suite.
fn check_laws(report: &mut Report<impl Write>, embedder: &Onnx) -> Result<(), Failure> {
    let suite = Suite::new(embedder).with_tolerance(tolerance(embedder.info()));
    let verdict = runtime()?.block_on(suite.run());
    match verdict {
        Ok(()) => report.line("laws", "PASS"),
        Err(violation) => {
            report.line("laws", format!("FAIL: {violation}"))?;
            Err(Failure::new("the embedder breaks a law"))
        }
    }
}

/// Returns how far the other texts of a batch may change a vector: fp16 is less exact.
fn tolerance(info: &OnnxInfo) -> f32 {
    if info.devices.contains(&Device::Cpu) { 1e-5 } else { 2e-3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_quoted() {
        assert_eq!(prompt(None), "none");
        assert_eq!(prompt(Some("query: ")), "\"query: \"");
    }
}
