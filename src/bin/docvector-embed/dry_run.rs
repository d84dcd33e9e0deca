//! Runs `embed --dry-run`: counts texts, tokens and requests of an input, and their price. Nothing is sent.

use std::io;

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Lane, Tier,
    plan::{self, Forecast},
    price::PicoDollars,
};

use crate::{
    bad_lines::BadLines,
    cli::{embed::EmbedOptions, rows::OnError},
    embed_model::EmbedModel,
    failure::Failure,
    input::Input,
    output::Output,
    progress::Progress,
    report::Report,
    window::{BadLine, Window},
};

/// The sums over an input.
#[derive(Default)]
struct Sum {
    lines: u64,
    texts: u64,
    bad_lines: BadLines,
    tokens: u64,
    is_guessed: bool,
    calls: u64,
    cost: Cost,
}

/// The price of all texts so far.
#[derive(Clone, Copy, Default)]
enum Cost {
    /// Nobody bills them.
    #[default]
    None,
    Unknown,
    /// With the price of a batch job, if the provider has such jobs.
    Of(PicoDollars, Option<PicoDollars>),
}

/// Prints the report. Lines that cannot be embedded are listed and are a failure, as in a run.
pub(crate) fn run(options: &EmbedOptions) -> Result<(), Failure> {
    // A run would fail at these, too.
    drop(Output::create(&options.output, options.format)?);
    let input = Input::open(&options.input, &options.input_options)?;
    let model = EmbedModel::load_unasked(&options.model, &options.load, &options.openai)?;
    let space = model.embedder.space()?.clone();
    options.check_space(&space)?;
    let progress = Progress::new(input.size(), "lines", options.shows_progress());
    let mut sum = Sum::default();
    for window in input {
        let window = window?;
        let bytes = window.bytes;
        sum.add(window, &*model.embedder, options);
        progress.advance(bytes, sum.lines);
    }
    drop(progress);
    print(&sum, &mut Report::new(io::stdout().lock()), &space.id().to_string())?;
    if sum.bad_lines.is_empty() {
        return Ok(());
    }
    // If stderr is closed, the exit status still shows the failure.
    let _ = sum.bad_lines.print(&mut io::stderr().lock());
    if options.on_error == OnError::Record {
        return Err(Failure::Recorded);
    }
    Err(Failure::new(format!("{} of {} lines cannot be embedded", sum.bad_lines.count, sum.lines)))
}

impl Sum {
    fn add(&mut self, window: Window, embedder: &dyn Embedder, options: &EmbedOptions) {
        self.lines += window.lines.len() as u64;
        let texts = window.texts();
        let batch = Batch::new(options.kind, &texts).with_truncation(options.too_long).with_lane(Lane::Bulk);
        self.texts += texts.len() as u64;
        let explanation = plan::explain(embedder, &batch);
        let forecast = explanation.providers().next().and_then(|provider| provider.forecast.as_ref());
        let mut bad_lines = forecast.map(|forecast| self.add_forecast(forecast, &window)).unwrap_or_default();
        bad_lines.extend(window.into_bad_lines());
        bad_lines.sort_by_key(|bad_line| bad_line.line);
        self.bad_lines.extend(bad_lines);
    }

    /// Adds the calls for a window, and returns the lines that no call can hold.
    fn add_forecast(&mut self, forecast: &Forecast, window: &Window) -> Vec<BadLine> {
        self.tokens += forecast.tokens;
        self.is_guessed |= !forecast.counted;
        self.calls += forecast.calls as u64;
        self.cost = self.cost.plus(forecast);
        forecast.refused.as_ref().map(|error| window.blamed(error)).unwrap_or_default()
    }
}

impl Cost {
    fn plus(self, forecast: &Forecast) -> Self {
        if forecast.payee.as_ref().is_some_and(|payee| payee.tier() == Tier::Local) {
            return self;
        }
        let (Some(price), sum) = (&forecast.price, self) else { return Self::Unknown };
        let (now, batch) = (price.cost(forecast.tokens), price.batch_cost(forecast.tokens));
        match sum {
            Self::None => Self::Of(now, batch),
            Self::Unknown => Self::Unknown,
            Self::Of(before, before_batch) => match before.checked_add(now) {
                Some(sum) => Self::Of(sum, before_batch.zip(batch).and_then(|(one, other)| one.checked_add(other))),
                None => Self::Unknown,
            },
        }
    }
}

fn print(sum: &Sum, report: &mut Report<impl io::Write>, space: &str) -> Result<(), Failure> {
    report.line("texts", sum.texts)?;
    report.line("tokens", format_args!("{}{}", if sum.is_guessed { "about " } else { "" }, sum.tokens))?;
    report.line("space", space)?;
    let unknown = "not known: the price of this model at this server is not in the table";
    match sum.cost {
        Cost::None if sum.texts == 0 => report.line("cost", "nothing"),
        Cost::None => report.line("cost", "nothing: the model runs here"),
        Cost::Unknown => report.line("requests", sum.calls).and_then(|()| report.line("cost", unknown)),
        Cost::Of(now, batch) => {
            report.line("requests", sum.calls)?;
            report.line("cost", format_args!("{now}, without a cache"))?;
            batch.map_or(Ok(()), |batch| report.line("as a batch job", format_args!("{batch}, within 24 hours")))
        }
    }
}
