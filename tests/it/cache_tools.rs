//! Tools for caches: copies among all stores and files, kills in the middle, damage, removal, salvage.
#![cfg(all(feature = "sqlite", feature = "arrow"))]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use docvector_embed::{
    EmbedderExt, Error, ErrorKind, SpaceId, async_trait,
    cache::{CacheScan, CacheStore, Entry, Key, Memory, ScanPlace, ScanSink, Sqlite, from_url},
    cache_tools::{
        ArrowSource, ArrowTarget, EntrySource, ScanSource, SqlitePages, StoreTarget, Transfer, TransferReport, census,
        prune,
    },
    conformance,
    provider::Fake,
    wrap::{Cached, EntryInfo, VectorEncoding},
};

use crate::support::numbered;
#[cfg(all(unix, feature = "postgres"))]
use crate::support::postgres_server::Schema;
#[cfg(all(unix, feature = "redis"))]
use crate::support::redis_server::Prefix;

type Entries = BTreeMap<Key, Vec<u8>>;

/// All entries of a store.
async fn entries_of(store: &dyn CacheScan) -> Entries {
    let (mut entries, mut place) = (Entries::new(), None);
    loop {
        let mut sink = |key, value: &[u8]| _ = entries.insert(key, value.to_vec());
        place = store.scan(place.as_ref(), &mut sink).await.expect("listed");
        if place.is_none() {
            return entries;
        }
    }
}

/// Fills a store with entries of two spaces, of several forms, and with an old one that does not state its space.
async fn fill(store: &Arc<dyn CacheScan>, texts: usize) -> [SpaceId; 2] {
    let whole = Cached::new(Fake::new(24), store.clone()).expect("one space");
    let halves = Cached::builder(Fake::new(16), store.clone());
    let halves = halves.with_vector_encoding(VectorEncoding::Half).build().expect("one space");
    whole.embed_documents(&numbered(texts)).await.expect("embedded");
    halves.embed_documents(&numbered(texts / 3)).await.expect("embedded");
    let key = Key::from_bytes([9; 32]);
    let some = entries_of(&**store).await.into_iter().next().expect("an entry");
    let mut row = Vec::new();
    let mut info = EntryInfo::read(&some.0, &some.1, &mut row).expect("sound");
    (info.space, info.day) = (None, None);
    store.put(&[Entry::new(key, &info.entry_of(&key, &row))]).await.expect("stored");
    [whole.space().expect("one").id(), halves.space().expect("one").id()]
}

async fn copied(from: &dyn CacheScan, to: &dyn CacheScan) -> TransferReport {
    Transfer::new().run(&mut ScanSource::new(from), &mut StoreTarget::new(to)).await.expect("copied")
}

/// Kinds of stores, and where new ones are.
struct Stores {
    folder: tempfile::TempDir,
    #[cfg(all(unix, feature = "redis"))]
    redis: Prefix,
    #[cfg(all(unix, feature = "postgres"))]
    postgres: Schema,
}

impl Stores {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            #[cfg(all(unix, feature = "redis"))]
            redis: Prefix::new(),
            #[cfg(all(unix, feature = "postgres"))]
            postgres: Schema::new(),
        }
    }

    /// A new store of each kind.
    async fn new_ones(&self, name: &str) -> Vec<(&'static str, Arc<dyn CacheScan>)> {
        let file = self.folder.path().join(name);
        let urls = [
            ("memory", "memory:256MB".to_owned()),
            ("sqlite", format!("sqlite:{}", file.display())),
            #[cfg(all(unix, feature = "redis"))]
            ("redis", self.redis.url_of(name)),
            #[cfg(all(unix, feature = "postgres"))]
            ("postgres", self.postgres.url_of(name)),
        ];
        let mut stores = Vec::new();
        for (kind, url) in urls {
            stores.push((kind, from_url(&url).await.expect(kind)));
        }
        stores
    }
}

#[tokio::test]
async fn the_stores_of_this_machine_list_what_they_hold() {
    conformance::scan(|| Memory::new(128 << 20)).await.expect("the laws");
    conformance::scan(Memory::unbounded).await.expect("the laws");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("vectors.sqlite");
    conformance::scan(|| Sqlite::open(&file).expect("opened")).await.expect("the laws");
    let writer = Sqlite::open(&file).expect("opened");
    let before = entries_of(&writer).await;
    writer.close().await.expect("closed");
    // A file that is only read can be listed.
    let store = Sqlite::builder(&file).read_only().build().expect("opened");
    assert_eq!(entries_of(&store).await, before);
}

#[tokio::test]
async fn every_store_can_be_copied_into_every_other_and_through_a_file() {
    let stores = Stores::new();
    let from = stores.new_ones("source").await;
    let [space, _] = fill(&from[0].1, 300).await;
    let all = entries_of(&*from[0].1).await;
    assert_eq!(all.len(), 401);
    for (kind, store) in &from[1..] {
        assert_eq!(copied(&*from[0].1, &**store).await.copied, 401, "{kind}");
        assert_eq!(entries_of(&**store).await, all, "{kind}");
    }
    for (number, (from, source)) in from.iter().enumerate() {
        let to = stores.new_ones(&format!("target{number}")).await;
        let file = stores.folder.path().join(format!("{number}.arrow"));
        let mut target = ArrowTarget::create(&file, from).expect("created");
        let exported = Transfer::new().run(&mut ScanSource::new(&**source), &mut target).await.expect("exported");
        assert_eq!((exported.copied, exported.damaged), (401, 0));
        for (to, target) in &to {
            // Half of them are there already, by a copy that was ended early.
            let some: Vec<Entry<'_>> = all.iter().take(200).map(|(key, value)| Entry::new(*key, value)).collect();
            target.put(&some).await.expect("stored");
            let report = copied(&**source, &**target).await;
            assert_eq!((report.copied, report.present, report.damaged), (201, 200, 0), "{from} to {to}");
            assert_eq!(entries_of(&**target).await, all, "{from} to {to}");
            assert_eq!(target.notes().await.expect("notes"), source.notes().await.expect("notes"));
        }
        for (to, target) in stores.new_ones(&format!("imported{number}")).await {
            let mut source = ArrowSource::open(&file).expect("opened");
            let report = Transfer::new()
                .with_filter(|info| info.space == Some(space))
                .run(&mut source, &mut StoreTarget::new(&*target))
                .await
                .expect("imported");
            assert_eq!((report.copied, report.left_out), (300, 101), "{from} through a file to {to}");
            let mut source = ArrowSource::open(&file).expect("opened");
            Transfer::new().run(&mut source, &mut StoreTarget::new(&*target)).await.expect("imported");
            assert_eq!(entries_of(&*target).await, all, "{from} through a file to {to}");
        }
    }
}

#[tokio::test]
async fn a_damaged_entry_is_left_out_and_named_and_one_in_the_target_is_replaced() {
    let stores = Stores::new();
    for (kind, source) in stores.new_ones("damaged").await {
        fill(&source, 30).await;
        let all = entries_of(&*source).await;
        let (bad, value) = all.iter().nth(7).expect("an entry");
        let mut broken = value.clone();
        broken[40] ^= 1;
        source.discard(&[Entry::new(*bad, value)]).await.expect("removed");
        source.put(&[Entry::new(*bad, &broken)]).await.expect("stored");
        let target = Memory::unbounded();
        // The target has a damaged entry under another key.
        let other = all.keys().nth(3).expect("a key");
        target.put(&[Entry::new(*other, b"no entry")]).await.expect("stored");
        let mut named = Vec::new();
        let transfer = Transfer::new().with_damaged(|key| named.push(key));
        let report =
            transfer.run(&mut ScanSource::new(&*source), &mut StoreTarget::new(&target)).await.expect("copied");
        assert_eq!((report.read, report.copied, report.damaged), (41, 40, 1), "{kind}");
        assert_eq!(named, [*bad]);
        let mut wanted = all.clone();
        wanted.remove(bad);
        assert_eq!(entries_of(&target).await, wanted, "{kind}");
        let file = stores.folder.path().join(format!("{kind}.arrow"));
        let mut target = ArrowTarget::create(&file, kind).expect("created");
        let report = Transfer::new().run(&mut ScanSource::new(&*source), &mut target).await.expect("exported");
        assert_eq!((report.copied, report.damaged), (40, 1), "{kind}");
    }
}

#[tokio::test]
async fn entries_are_counted_and_removed_by_space_and_day() {
    let stores = Stores::new();
    for (kind, store) in stores.new_ones("pruned").await {
        let [whole, halves] = fill(&store, 90).await;
        let counted = census(&mut ScanSource::new(&*store), &mut |_| {}).await.expect("counted");
        assert_eq!((counted.entries, counted.damaged), (121, 0), "{kind}");
        let of = |space| counted.spaces.get(&space).expect("a space");
        assert_eq!((of(Some(whole)).entries, of(Some(halves)).entries, of(None).entries), (90, 30, 1));
        assert_eq!((of(Some(whole)).halves, of(Some(halves)).halves), (0, 30));
        assert_eq!(of(Some(whole)).dimensions, BTreeSet::from([24]));
        assert!(of(Some(whole)).about.as_deref().is_some_and(|about| about.contains("24d")), "{counted:?}");
        let (first, last) = of(Some(whole)).days.expect("days");
        assert!(first == last || first + 1 == last, "{first} {last}");

        let mut today = |info: &EntryInfo| info.day.is_some_and(|day| day < first);
        let report = prune(&*store, &mut today, false, &mut |_| {}).await.expect("pruned");
        assert_eq!((report.read, report.removed, report.unstamped), (121, 0, 1));
        let mut of_halves = |info: &EntryInfo| info.space == Some(halves);
        let dry = prune(&*store, &mut of_halves, true, &mut |_| {}).await.expect("counted");
        assert_eq!((dry.removed, dry.removed_bytes, entries_of(&*store).await.len()), (30, 30 * 68, 121));
        let report = prune(&*store, &mut of_halves, false, &mut |_| {}).await.expect("pruned");
        assert_eq!((report.removed, entries_of(&*store).await.len()), (30, 91), "{kind}");
    }
}

/// A source that fails after so many parts.
struct EndsEarly<'s>(ScanSource<'s>, usize);

#[async_trait]
impl EntrySource for EndsEarly<'_> {
    async fn next(&mut self, sink: &mut ScanSink<'_>) -> docvector_embed::Result<bool> {
        self.1 = self.1.checked_sub(1).ok_or_else(|| Error::new(ErrorKind::Cache, "told to"))?;
        self.0.next(sink).await
    }

    fn place(&self) -> Option<ScanPlace> {
        self.0.place()
    }

    async fn notes(&mut self) -> docvector_embed::Result<Vec<(SpaceId, String)>> {
        self.0.notes().await
    }
}

/// An export is begun again where it was ended, whatever lies behind that in the file.
#[tokio::test]
async fn an_export_goes_on_where_it_was_ended() {
    let stores = Stores::new();
    for (kind, store) in stores.new_ones("ended").await {
        goes_on_where_it_was_ended(kind, store, stores.folder.path()).await;
    }
}

async fn goes_on_where_it_was_ended(kind: &str, store: Arc<dyn CacheScan>, folder: &Path) {
    let whole = Cached::new(Fake::new(3_000), store.clone()).expect("one space");
    whole.embed_documents(&numbered(2_000)).await.expect("embedded");
    let all = entries_of(&*store).await;
    let file = folder.join(format!("{kind}.arrow"));
    let (partial, progress) =
        (folder.join(format!("{kind}.arrow.partial")), folder.join(format!("{kind}.arrow.progress")));
    let mut ends = 0;
    loop {
        let mut target = ArrowTarget::create(&file, "the store").expect("goes on");
        let before = target.rows();
        let mut source = EndsEarly(ScanSource::new(&*store).after(target.place()), 2);
        match Transfer::new().run(&mut source, &mut target).await {
            Ok(report) => {
                assert!(before + report.copied >= 2_000, "{kind}");
                break;
            }
            Err(error) => assert_eq!(error.message(), "told to"),
        }
        ends += 1;
        assert!(partial.exists() && progress.exists() && !file.exists());
        // What came after the note is cut off.
        let mut bytes = fs::read(&partial).expect("read");
        bytes.extend_from_slice(&[0xff; 100]);
        fs::write(&partial, bytes).expect("written");
    }
    assert!(ends >= 1, "{kind}: {ends}");
    assert!(file.exists() && !partial.exists() && !progress.exists());
    let target = Memory::unbounded();
    Transfer::new()
        .run(&mut ArrowSource::open(&file).expect("opened"), &mut StoreTarget::new(&target))
        .await
        .expect("imported");
    assert!(entries_of(&target).await == all);
    // What exists is not replaced, and another source is not mixed in.
    let error = ArrowTarget::create(&file, "the store").map(drop).expect_err("it exists");
    assert!(error.message().contains("exists already"), "{error}");
}

#[tokio::test]
async fn another_source_and_damaged_notes_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Memory::unbounded();
    Fake::new(3_000).cached(store.clone()).expect("one space").embed_documents(&numbered(2_000)).await.expect("rows");
    let file = folder.path().join("vectors.arrow");
    let progress = folder.path().join("vectors.arrow.progress");
    let mut target = ArrowTarget::create(&file, "one").expect("created");
    let mut source = EndsEarly(ScanSource::new(&store), 1);
    Transfer::new().run(&mut source, &mut target).await.expect_err("told to");
    // While it is held, nobody else writes it.
    let error = ArrowTarget::create(&file, "one").map(drop).expect_err("another export");
    assert!(error.message().contains("cannot be continued"), "{error}");
    drop(target);
    let error = ArrowTarget::create(&file, "another").map(drop).expect_err("another source");
    assert!(error.message().contains("begun from one, and not from another"), "{error}");
    let text = fs::read_to_string(&progress).expect("read").replace("bytes ", "bytes 9");
    fs::write(&progress, text).expect("written");
    let error = ArrowTarget::create(&file, "one").map(drop).expect_err("another length");
    assert!(error.message().contains("remove it"), "{error}");
}

/// A file whose parts are damaged one after another: what is sound is saved.
#[tokio::test]
async fn what_is_sound_in_a_damaged_file_is_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("vectors.sqlite");
    for page_size in [4_096, 16_384] {
        let _ = fs::remove_file(&file);
        let sqlite = Sqlite::builder(&file).with_page_size(page_size).build().expect("opened");
        let store: Arc<dyn CacheScan> = Arc::new(sqlite.clone());
        fill(&store, 600).await;
        // Values that go on on other pages.
        Cached::new(Fake::new(3_000), store.clone()).expect("one").embed_documents(&numbered(20)).await.expect("rows");
        let (all, notes) = (entries_of(&*store).await, store.notes().await.expect("notes"));
        drop(store);
        // Entries that are in the log alone are saved, too.
        let copy = folder.path().join("copy.sqlite");
        fs::copy(&file, &copy).expect("copied");
        fs::copy(folder.path().join("vectors.sqlite-wal"), folder.path().join("copy.sqlite-wal")).expect("copied");
        assert_eq!(salvaged(&copy).await, (all.clone(), notes.clone(), 0));
        fs::remove_file(folder.path().join("copy.sqlite-wal")).expect("removed");
        sqlite.close().await.expect("closed");

        let bytes = fs::read(&file).expect("read");
        let size = page_size as usize;
        let mut lost_by_one = 0;
        for page in 0..bytes.len() / size {
            let mut damaged = bytes.clone();
            damaged[page * size..(page + 1) * size].fill(0);
            fs::write(&copy, damaged).expect("written");
            let (saved, ..) = salvaged(&copy).await;
            assert!(saved.iter().all(|(key, value)| all.get(key) == Some(value)));
            // A page has few entries: no damage costs more.
            let lost = all.len() - saved.len();
            assert!(lost <= size / 68, "page {page}: {lost} are lost");
            lost_by_one += lost;
        }
        assert!(lost_by_one >= all.len(), "each entry is on a page");
        // An end that is missing, a beginning that is garbage.
        fs::write(&copy, &bytes[..bytes.len() / 2 + 77]).expect("written");
        assert!(salvaged(&copy).await.0.len() > all.len() / 5);
        let mut damaged = bytes.clone();
        damaged[..100].fill(0xee);
        fs::write(&copy, &damaged).expect("written");
        assert_eq!(salvaged(&copy).await.0, all);
    }
    fs::write(&file, "").expect("written");
    let error = SqlitePages::open(&file).map(drop).expect_err("empty");
    assert_eq!((error.kind(), error.message().contains("is empty")), (ErrorKind::Cache, true), "{error}");
}

/// Saves what a file has: the entries, the lines about spaces, and the number of damaged entries.
async fn salvaged(file: &Path) -> (Entries, Vec<(SpaceId, String)>, u64) {
    let target = Memory::unbounded();
    let mut pages = SqlitePages::open(file).expect("opened");
    let report = Transfer::new().run(&mut pages, &mut StoreTarget::new(&target)).await.expect("saved");
    (entries_of(&target).await, CacheScan::notes(&target).await.expect("notes"), report.damaged)
}

/// Random damage is no panic, and saves nothing that is wrong.
#[tokio::test]
async fn random_damage_saves_nothing_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("vectors.sqlite");
    let store: Arc<dyn CacheScan> = Arc::new(Sqlite::builder(&file).with_page_size(1_024).build().expect("opened"));
    fill(&store, 200).await;
    let all = entries_of(&*store).await;
    // The log is a part of it, and damaged as well.
    let log = folder.path().join("vectors.sqlite-wal");
    let bytes = [fs::read(&file).expect("read"), fs::read(&log).expect("read")];
    let (file, log) = (folder.path().join("copy.sqlite"), folder.path().join("copy.sqlite-wal"));
    let mut most = 0;
    let mut random = blake3::Hasher::new().finalize_xof();
    let mut next = |below: usize| {
        let mut eight = [0; 8];
        random.fill(&mut eight);
        u64::from_le_bytes(eight) as usize % below
    };
    for round in 0..150 {
        for (path, bytes) in [(&file, &bytes[0]), (&log, &bytes[1])] {
            let mut damaged = bytes.clone();
            for _ in 0..next(100) {
                let at = next(damaged.len());
                damaged[at] = next(256) as u8;
            }
            fs::write(path, &damaged).expect("written");
        }
        let (saved, ..) = salvaged(&file).await;
        assert!(saved.iter().all(|(key, value)| all.get(key) == Some(value)), "round {round}");
        most = most.max(saved.len());
    }
    assert!(most > all.len() / 2, "{most}");
    // A number of a page that the log cannot have.
    let mut damaged = bytes[1].clone();
    damaged[32..36].fill(0xff);
    fs::write(&log, damaged).expect("written");
    fs::write(&file, &bytes[0]).expect("written");
    assert!(salvaged(&file).await.0.len() > all.len() / 2);
}
