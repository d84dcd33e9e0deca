//! A simulator, a folder and the clients of one test, and what tests ask of a job: [`Scene`].

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    Batch, CountTokens, Embeddings, InputKind, Limits, Partial, Payee, Tier, TokenCount,
    provider::{Job, JobReport, JobState, JobStatus, OpenAi, OpenAiBatch, OpenAiBatchBuilder},
    testing::{BatchPlan, Fault, LineFate, Route, Simulator},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    support::stand_in::{in_base64, tokens},
    testing::client::Client,
};

pub(crate) const MODEL: &str = "text-embedding-3-small";
pub(crate) const WIDTH: usize = 8;
/// Texts per line, unless a test says otherwise.
pub(crate) const LINE: usize = 4;
/// Texts per batch, unless a test says otherwise.
pub(crate) const SHARD: usize = 40;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long anything may take. It is a bound on hangs, no measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fails with these words if something takes as long as nothing does.
pub(crate) async fn within<T>(what: impl fmt::Display + Send, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("not after {} s: {what}", PATIENCE.as_secs()))
}

/// Waits until something is so.
pub(crate) async fn until(what: impl fmt::Display + Send, mut is_so: impl FnMut() -> bool + Send) {
    let looks = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, looks).await;
}

pub(crate) fn refs(texts: &[impl AsRef<str>]) -> Vec<&str> {
    texts.iter().map(AsRef::as_ref).collect()
}

pub(crate) async fn submit(batch: &OpenAiBatch, texts: &[impl AsRef<str> + Sync]) -> Job {
    let texts = refs(texts);
    within("a job is submitted", batch.submit(Batch::documents(&texts))).await.expect("it is planned")
}

/// Waits until a job's status is as wanted.
pub(crate) async fn until_status(job: &Job, what: &str, is_so: impl Fn(&JobStatus) -> bool + Send + Sync) {
    let looks = async {
        while !is_so(&job.status()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, looks).await;
    result.unwrap_or_else(|_| panic!("not after {} s: {what}; it is {:?}", PATIENCE.as_secs(), job.status()));
}

/// A plan in which a batch is validated at once, runs for ten minutes at an even pace, and ends at once.
pub(crate) fn ten_minutes() -> BatchPlan {
    BatchPlan::instant().with_running(Duration::from_secs(600))
}

/// Counts tokens as the simulator does.
#[derive(Debug)]
pub(crate) struct Quarters;

impl CountTokens for Quarters {
    fn count(&self, _: InputKind, text: &str) -> usize {
        tokens(text) as usize
    }

    fn at_most(&self, kind: InputKind, text: &str) -> usize {
        self.count(kind, text)
    }
}

/// A simulator, a folder for journals, and clients with short texts and waits.
pub(crate) struct Scene {
    pub(crate) simulator: Simulator,
    pub(crate) folder: TempDir,
}

impl Scene {
    /// Makes a scene in which batches end at once.
    pub(crate) fn new() -> Self {
        Self::planned(BatchPlan::instant())
    }

    /// Makes a scene in which all batches have this plan.
    pub(crate) fn planned(plan: BatchPlan) -> Self {
        let simulator = Simulator::start().expect("starts");
        simulator.plan_all(plan);
        Self { simulator, folder: tempfile::tempdir().expect("a folder") }
    }

    /// Returns a synchronous client, whose payee has a price and whose limits count as the simulator does.
    pub(crate) fn openai(&self) -> OpenAi {
        openai(&self.simulator.base_url())
    }

    pub(crate) fn builder(&self) -> OpenAiBatchBuilder {
        builder(self.openai(), self.folder.path())
    }

    pub(crate) fn batch(&self) -> OpenAiBatch {
        self.builder().build().expect("valid")
    }

    /// Returns a client of the simulator that is not ours.
    pub(crate) fn other_client(&self) -> Client {
        Client::new(self.simulator.address())
    }

    pub(crate) fn creates(&self) -> u64 {
        self.simulator.counts().creates
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.simulator.advance(by);
    }

    /// Waits until so many batches were created in all.
    pub(crate) async fn created(&self, count: u64) {
        until(format!("{count} batches are created"), || self.creates() >= count).await;
    }

    /// Waits until the client has looked at a batch again, after all that was done so far.
    pub(crate) async fn polled(&self) {
        let polls = self.simulator.counts().polls;
        // The first one may have begun before.
        until("two more polls come", || self.simulator.counts().polls >= polls + 2).await;
    }

    /// Lets the newest batch end, while those that look at it are told that it runs, until faults are cleared.
    pub(crate) fn end_unseen(&self) {
        let newest = self.simulator.batches().pop().expect("there is one");
        let shown = self.other_client().batch(&newest.id).to_string();
        self.simulator.fail_next(Route::GetBatch, 50_000, Fault::answer(200, shown));
        self.advance(HOUR);
    }

    /// Fails unless rows are those of the texts at these places.
    pub(crate) fn check_rows(&self, texts: &[impl AsRef<str> + Sync], places: &[usize], rows: &Embeddings) {
        assert_eq!(rows.len(), places.len(), "one row per place");
        for (&place, row) in places.iter().zip(rows.rows()) {
            let wanted = self.simulator.vector(MODEL, rows.dimensions(), texts[place].as_ref());
            assert_eq!(row, wanted, "the row of text {place}");
        }
    }

    /// Fails unless the job has the rows of all texts but these, and each was billed as often as it has a row, and no
    /// other text was billed.
    pub(crate) async fn check_answered(&self, job: &Job, texts: &[impl AsRef<str> + Sync], without: &[usize]) {
        let partial = within("rows are read", job.rows(0..texts.len() as u64)).await.expect("they can be read");
        let (places, rows) = Partial::into_parts(partial);
        let wanted: Vec<usize> = (0..texts.len()).filter(|place| !without.contains(place)).collect();
        assert_eq!(places, wanted, "the texts that have a row");
        self.check_rows(texts, &places, &rows);
        self.check_billed(texts, without);
    }

    /// Fails unless each text but these was billed once, and nothing else was billed.
    pub(crate) fn check_billed(&self, texts: &[impl AsRef<str> + Sync], without: &[usize]) {
        for (place, text) in texts.iter().enumerate() {
            let wanted = u64::from(!without.contains(&place));
            assert_eq!(self.simulator.billed(text.as_ref()), wanted, "how often text {place} was billed");
        }
        assert_eq!(self.simulator.bills().texts, (texts.len() - without.len()) as u64, "all that was billed");
    }

    /// Waits for the end of the scene's only job. All texts but these must have their rows, and each must have been
    /// billed once and reported once.
    pub(crate) async fn ends_without(
        &self,
        job: &Job,
        texts: &[impl AsRef<str> + Sync],
        failed: &[usize],
    ) -> JobReport {
        let report = within("the job ends", job.wait()).await.expect("it does not pause");
        assert_eq!((report.id.as_str(), report.state), (job.id(), JobState::Completed));
        self.check_answered(job, texts, failed).await;
        let answered = (texts.len() - failed.len()) as u64;
        assert_eq!((report.texts, report.answered), (texts.len() as u64, answered), "{report:?}");
        let status = job.status();
        assert_eq!((status.state, status.texts, status.answered), (JobState::Completed, report.texts, answered));
        assert_eq!((status.failed, status.batches), (failed.len() as u64, status.batches_ended), "{status:?}");
        self.check_charges(&report);
        self.check_reopened(&report).await;
        report
    }

    /// Fails unless the journal says what the process knew that wrote it.
    async fn check_reopened(&self, report: &JobReport) {
        if !self.folder.path().join(&report.id).exists() {
            // The job lives in another folder.
            return;
        }
        let (requests, again) = (self.simulator.counts().requests, self.batch());
        let job = within("it is opened again", again.resume(&report.id)).await.expect("it is there");
        let told = within("it has ended", job.wait()).await.expect("it has ended well");
        assert_eq!((&told, job.status().state), (report, report.state));
        let partial = within("rows are read again", job.rows(0..report.texts)).await.expect("they can be read");
        assert_eq!(partial.indices().len() as u64, report.answered, "the rows that are there after all");
        assert_eq!(self.simulator.counts().requests, requests, "nothing is sent for a job that has ended");
    }

    /// Waits for the end of the scene's only job, in which no text fails.
    pub(crate) async fn ends_well(&self, job: &Job, texts: &[impl AsRef<str> + Sync]) -> JobReport {
        let report = self.ends_without(job, texts, &[]).await;
        assert!(report.failed.is_empty(), "{report:?}");
        let all: Vec<usize> = (0..texts.len()).collect();
        let rows = within("all rows are read", job.embeddings()).await.expect("no text failed");
        self.check_rows(texts, &all, &rows);
        report
    }

    /// Fails unless the report says what the simulator billed. Calls without an answer may have been billed, so they may be
    /// there, too.
    fn check_charges(&self, report: &JobReport) {
        let bills = self.simulator.bills();
        let of = |tier| report.charges.iter().filter(move |charge| charge.payee.tier() == tier);
        let tokens = |tier| of(tier).map(|charge| charge.usage.tokens).sum::<u64>();
        let told = (tokens(Tier::Batch), tokens(Tier::Standard));
        assert_eq!(told, (bills.batch_tokens, bills.standard_tokens), "{:?}", report.charges);
        assert_eq!(report.charges.usage().unreported, 0, "{:?}", report.charges);
    }
}

pub(crate) fn openai(base_url: &str) -> OpenAi {
    let limits = Limits::none().with_tokens(TokenCount::Exact(Arc::new(Quarters)));
    let openai = OpenAi::builder(MODEL).with_base_url(base_url).with_api_key("sk-test").with_dimensions(WIDTH);
    let payee = Payee::new("openai", MODEL, Tier::Standard);
    // Short, for the tests whose requests hang.
    let timeout = Duration::from_secs(2);
    openai.with_limits(limits).with_payee(payee).with_timeout(timeout).build().expect("valid")
}

pub(crate) fn builder(openai: OpenAi, folder: &Path) -> OpenAiBatchBuilder {
    OpenAiBatch::builder(openai, folder)
        .with_poll_interval(Duration::from_millis(5), Duration::from_millis(20))
        .with_line_texts(LINE)
        .with_batch_texts(SHARD)
}

/// Returns the names of what is in a folder of jobs, but for the locks that stay there.
pub(crate) fn left_in(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    names.filter(|name| !["lock", ".hidden-lock"].contains(&name.as_str())).collect()
}

/// Returns the lines of a job of these texts, as `custom_id` and texts. They are the same in every folder.
pub(crate) async fn lines_of(texts: &[String]) -> Vec<(String, Vec<String>)> {
    let scene = Scene::new();
    let lines = Arc::new(Mutex::new(HashMap::new()));
    let seen = lines.clone();
    scene.simulator.script_lines(LineFate::missing(), Some(0), move |line| {
        seen.lock().expect("nobody panicked").insert(line.custom_id.to_owned(), line.texts.to_vec());
        false
    });
    let batch = scene.batch();
    let job = submit(&batch, texts).await;
    scene.ends_well(&job, texts).await;
    let mut lines: Vec<_> = lines.lock().expect("nobody panicked").drain().collect();
    lines.sort_by_key(|(_, of_line)| texts.iter().position(|text| *text == of_line[0]));
    lines
}

/// Writes the line of an output file that answers these texts with these vectors.
pub(crate) fn answer(custom_id: &str, texts: &[String], vectors: &[Vec<f32>]) -> Value {
    let row = |(index, vector): (usize, &Vec<f32>)| json!({"object": "embedding", "index": index, "embedding": in_base64(vector)});
    let data: Vec<Value> = vectors.iter().enumerate().map(row).collect();
    let tokens: u64 = texts.iter().map(|text| tokens(text)).sum();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    let body = json!({"object": "list", "data": data, "model": MODEL, "usage": usage});
    let response = json!({"status_code": 200, "request_id": "of the test", "body": body});
    json!({"id": "batch_req_of_the_test", "custom_id": custom_id, "response": response, "error": null})
}
