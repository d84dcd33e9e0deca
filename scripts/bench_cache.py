"""Embeds texts of which half are cached with this crate and with Python's caching embedders, in turns.

    bench_cache.py --mock PROGRAM --ours PROGRAM [--quick]    all of them, and tables; scripts/bench-cache runs this
    bench_cache.py --client NAME --texts-file FILE ...        one Python client once, and a line of JSON

The texts are chunks of the sources of Python's own library. Every client gets a cache folder of its own, embeds half of
the texts (not timed), and then, in a new process, all of them in another order: about half of each call is cached. The
clock starts before the first call and stops when the last row is there as floats and everything is stored. The first
table has a mock of OpenAI's API on loopback behind every client; the others an embedder in the same process that costs
next to nothing, so that they compare the caches alone. All of it takes some 25 minutes.

Each row is checked to be its text's own: it begins with three numbers made of the text's CRC-32 (`own` here, and in
benches/peers/src/lib.rs for the mock and for this crate's program) and ends as all rows do.
"""

import argparse
import array
import asyncio
import base64
import dataclasses
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
import zlib

MODEL = "text-embedding-3-small"
DIMENSIONS = 1536
TEXTS_PER_REQUEST = 2048
WANTED = 10


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a client is used. Each client is judged by its best setting that asked the provider for no cached text."""

    client: str
    # Texts per call; 0 for all in one, or for the client's default.
    size: int
    # Calls at once, if the caller decides that.
    at_once: int = 1
    dimensions: int = DIMENSIONS


OVER_HTTP = [
    Setting("ours-documents", 0),
    Setting("ours-documents", TEXTS_PER_REQUEST),
    Setting("ours-stream", TEXTS_PER_REQUEST),
    Setting("ours-uncounted", TEXTS_PER_REQUEST),
    Setting("langchain", 0),
    Setting("langchain", TEXTS_PER_REQUEST),
    Setting("litellm", TEXTS_PER_REQUEST),
    Setting("litellm-base64", TEXTS_PER_REQUEST),
    Setting("litellm-base64", TEXTS_PER_REQUEST, 4),
    Setting("litellm-base64", 256, 4),
]
IN_PROCESS = [
    Setting(client, size, dimensions=dimensions)
    for dimensions in (DIMENSIONS, 768)
    for client, size in (
        ("ready-ours-documents", TEXTS_PER_REQUEST),
        ("ready-ours-stream", TEXTS_PER_REQUEST),
        ("ready-langchain", 0),
        ("ready-langchain", TEXTS_PER_REQUEST),
    )
]
WHAT = {
    "ours-documents": "this crate, `embed_documents`, tokens counted: all rows in memory",
    "ours-stream": "this crate, `embed_stream`, tokens counted: each window dropped",
    "ours-uncounted": "this crate, `embed_documents`, tokens not counted, as the others: all rows in memory",
    "langchain": "LangChain, `CacheBackedEmbeddings` over `LocalFileStore`",
    "litellm": "LiteLLM, `aembedding`, disk cache",
    "litellm-base64": "LiteLLM, `aembedding`, disk cache, base64 asked for and decoded by the caller",
    "ready-ours-documents": "this crate, `embed_documents`: all rows in memory",
    "ready-ours-stream": "this crate, `embed_stream`: each window dropped",
    "ready-langchain": "LangChain, `CacheBackedEmbeddings` over `LocalFileStore`",
}
# The arguments of this crate's program.
OURS = {
    "ours-documents": ["--mode", "documents"],
    "ours-stream": ["--mode", "stream"],
    "ours-uncounted": ["--mode", "documents", "--counted", "no"],
    "ready-ours-documents": ["--mode", "documents"],
    "ready-ours-stream": ["--mode", "stream"],
}


def own(text):
    """Returns the beginning of the vector by this text."""
    crc = zlib.crc32(text.encode())
    return [part / 65536 for part in (crc >> 22, crc >> 11 & 0x7FF, crc & 0x7FF)]


def close(some, others):
    """Returns it as 32-bit floats: parts are 1.5e-5 apart, and JSON has no more digits than such a float needs."""
    return all(abs(one - other) < 1e-6 for one, other in zip(some, others))


def wrong_rows(texts, rows, dimensions):
    assert len(rows) == len(texts), f"{len(rows)} rows for {len(texts)} texts"
    common = next((row[3:] for row in rows if row is not None), None)
    return sum(
        row is None or len(row) != dimensions or not close(row[:3], own(text)) or row[3:] != common
        for text, row in zip(texts, rows)
    )


# The clients. Each takes the texts and the options, and returns the seconds, the rows, and, if it knows, the number of
# texts that it asked its embedder for.


def run_langchain(texts, options):
    from langchain_openai import OpenAIEmbeddings

    # As the API takes them: tokens are neither counted nor sent in place of texts.
    openai = OpenAIEmbeddings(
        model=MODEL,
        base_url=f"{options.base_url}/v1",
        api_key="bench",
        check_embedding_ctx_length=False,
        chunk_size=TEXTS_PER_REQUEST,
        max_retries=0,
    )
    return *cache_backed(openai, texts, options), None


def run_ready_langchain(texts, options):
    from langchain_core.embeddings import Embeddings

    common = [random.Random(1).uniform(-0.05, 0.05) for _ in range(options.dimensions - 3)]

    class Ready(Embeddings):
        asked = 0

        def embed_documents(self, texts):
            self.asked += len(texts)
            return [own(text) + common for text in texts]

        def embed_query(self, text):
            return own(text) + common

    ready = Ready()
    return *cache_backed(ready, texts, options), ready.asked


def cache_backed(inner, texts, options):
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.storage import LocalFileStore

    cached = CacheBackedEmbeddings.from_bytes_store(
        inner,
        LocalFileStore(options.cache),
        namespace=MODEL,
        batch_size=options.size or None,
        key_encoder="blake2b",
    )
    start = time.perf_counter()
    rows = cached.embed_documents(texts)
    return time.perf_counter() - start, rows


# Not with `litellm.embedding`: its key is the whole list of texts, so a call that is cached in part asks for all of it.


def run_litellm(texts, options):
    return run_litellm_as(texts, options, list)


def run_litellm_base64(texts, options):
    def decode(row):
        return array.array("f", base64.b64decode(row)).tolist()

    # By default it asks for numbers as text, which OpenAI's client parses slowly.
    return run_litellm_as(texts, options, decode, encoding_format="base64")


def run_litellm_as(texts, options, decode, **format_):
    import litellm

    litellm.cache = litellm.Cache(type="disk", disk_cache_dir=options.cache)
    rows = [None] * len(texts)

    async def work(starts):
        for at in starts:
            part = texts[at : at + options.size]
            reply = await litellm.aembedding(
                model=f"openai/{MODEL}",
                input=part,
                api_base=f"{options.base_url}/v1",
                api_key="bench",
                caching=True,
                max_retries=0,
                **format_,
            )
            rows[at : at + len(part)] = [decode(row["embedding"]) for row in reply.data]

    async def timed():
        start = time.perf_counter()
        starts = iter(range(0, len(texts), options.size))
        await asyncio.gather(*(work(starts) for _ in range(options.at_once)))
        # It stores in the background; entries not stored at the end are lost with the event loop.
        while writes := [task for task in asyncio.all_tasks() if is_cache_write(task)]:
            await asyncio.gather(*writes)
        return time.perf_counter() - start

    def is_cache_write(task):
        return "cache_write" in getattr(task.get_coro(), "__qualname__", "")

    return asyncio.run(timed()), rows, None


CLIENTS = {
    "langchain": run_langchain,
    "ready-langchain": run_ready_langchain,
    "litellm": run_litellm,
    "litellm-base64": run_litellm_base64,
}


def run_client(options):
    # No downloads and no telemetry.
    os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False", LANGSMITH_TRACING="false")
    # Imports are not measured.
    if options.client.startswith("litellm"):
        import litellm  # noqa: F401
    else:
        import langchain_classic.embeddings  # noqa: F401
        import langchain_classic.storage  # noqa: F401
        import langchain_openai  # noqa: F401
    with open(options.texts_file, encoding="utf-8") as lines:
        texts = [json.loads(line) for line in lines]
    seconds, rows, asked = CLIENTS[options.client](texts, options)
    told = {
        "texts": len(texts),
        "seconds": seconds,
        "asked": asked,
        "peak_rss_mib": peak_rss_mib(),
        "wrong_rows": wrong_rows(texts, rows, options.dimensions),
    }
    print(json.dumps(told))


def peak_rss_mib():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM: Linux is needed")


# The texts.


def read_texts(wanted):
    """Returns distinct chunks from all over the library's sources, in a shuffled order that is always the same."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    order = random.Random(20261122)
    order.shuffle(files)
    # Keyed by the number that tells rows apart: two texts with one number could not be told apart.
    chunks = {}
    for path in files:
        # Enough to choose from.
        if len(chunks) >= 2 * wanted:
            break
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        for chunk in cut(source):
            chunks.setdefault(zlib.crc32(chunk.encode()), chunk)
    if len(chunks) < wanted:
        sys.exit(f"Python's library has {len(chunks)} chunks here: ask for fewer --texts than {wanted}")
    texts = list(chunks.values())
    order.shuffle(texts)
    return texts[:wanted]


def cut(source):
    """Splits at the ends of paragraphs: at least 220 characters if there are any more, at most about 2,000."""
    chunk = ""
    for paragraph in source.split("\n\n"):
        chunk = f"{chunk}\n\n{paragraph}".strip()
        if len(chunk) >= 220:
            yield chunk[:2000].strip()
            chunk = ""
    if len(chunk) >= 64:
        yield chunk


# The comparison.


def run_all(options):
    texts = read_texts(options.texts)
    random_ = random.Random(1)
    # On the disk of this repository: a folder for temporary files may be in memory.
    target = pathlib.Path(options.dir or pathlib.Path(__file__).resolve().parent.parent / "target")
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-cache-", dir=target) as folder:
        folder = pathlib.Path(folder)
        for name, part in [("half", texts[: len(texts) // 2]), ("all", random_.sample(texts, len(texts)))]:
            lines = "".join(f"{json.dumps(text, ensure_ascii=False)}\n" for text in part)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        length = statistics.mean(len(text.encode()) for text in texts)
        print(
            f"{len(texts):,} texts of {length:.0f} bytes on average, the cache warm for {len(texts) // 2:,} of them; "
            f"{options.rounds} interleaved rounds, medians; everything stored in files. The best setting of each "
            "client is in bold."
        )
        with subprocess.Popen([options.mock, "--vectors", "by-text"], stdout=subprocess.PIPE, text=True) as mock:
            try:
                url = f"http://127.0.0.1:{int(mock.stdout.readline())}"
                print(f"\n### Against a mock of OpenAI's API on loopback, {DIMENSIONS} dimensions\n")
                results = measure(options, folder, OVER_HTTP, url)
                peers = {
                    "LangChain": ["langchain"],
                    "LiteLLM, with defaults,": ["litellm"],
                    "LiteLLM, with a caller who decodes,": ["litellm-base64"],
                }
                ours = ["ours-documents", "ours-stream", "ours-uncounted"]
                tell(options, OVER_HTTP, results, ours, peers)
            finally:
                mock.kill()
        for dimensions in dict.fromkeys(setting.dimensions for setting in IN_PROCESS):
            settings = [setting for setting in IN_PROCESS if setting.dimensions == dimensions]
            print(f"\n### An embedder in the process that costs next to nothing, {dimensions} dimensions\n")
            results = measure(options, folder, settings, None)
            ours = ["ready-ours-documents", "ready-ours-stream"]
            tell(options, settings, results, ours, {"LangChain": ["ready-langchain"]})


def measure(options, folder, settings, url):
    results = {setting: [] for setting in settings}
    for round_ in range(options.rounds):
        # The first of a round is the last of the next.
        for setting in settings if round_ % 2 == 0 else reversed(settings):
            cache = folder / "cache"
            cache.mkdir()
            run_once(options, setting, url, folder / "half.jsonl", cache)
            # No client pays for the writes of another.
            os.sync()
            told = run_once(options, setting, url, folder / "all.jsonl", cache)
            told["disk_mib"] = sum(file.stat().st_blocks for file in cache.rglob("*") if file.is_file()) / 2048
            shutil.rmtree(cache)
            results[setting].append(told)
            print(
                f"round {round_ + 1} of {options.rounds}: {setting.client}, {setting.size or 'all'} per call, "
                f"{setting.at_once} at once: {told['seconds']:.2f} s, {told['asked']:,} texts asked for, "
                f"{told['wrong_rows']:,} wrong rows, {told['peak_rss_mib']:.0f} MiB",
                file=sys.stderr,
            )
    return results


def run_once(options, setting, url, texts, cache):
    if setting.client in OURS:
        command = [options.ours, *OURS[setting.client], "--texts", texts, "--cache", cache / "vectors.sqlite"]
        command += ["--call", setting.size, "--dimensions", setting.dimensions]
        # The provider's address has the API's version in it.
        command += ["--base-url", f"{url}/v1"] if url else []
    else:
        command = [sys.executable, __file__, "--client", setting.client, "--texts-file", texts, "--cache", cache]
        command += ["--size", setting.size, "--at-once", setting.at_once, "--dimensions", setting.dimensions]
        command += ["--base-url", url] if url else []
    before = asked_so_far(url)
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, timeout=3600)
    if done.returncode != 0:
        sys.exit(f"{setting} failed: exit code {done.returncode}")
    # LiteLLM may print lines before the answer.
    told = json.loads(done.stdout.splitlines()[-1])
    if setting.client in OURS and told["wrong_rows"]:
        sys.exit(f"{setting}: {told['wrong_rows']} rows are not their text's own")
    if url:
        told["asked"] = asked_so_far(url) - before
    return told


def asked_so_far(url):
    """Returns how many texts the mock has embedded."""
    if url is None:
        return 0
    # Calls to this machine must not go through a proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/asked", timeout=60) as reply:
        return int(reply.read())


def tell(options, settings, results, ours, peers):
    seconds = {setting: statistics.median(told["seconds"] for told in results[setting]) for setting in settings}
    missing = options.texts - options.texts // 2

    def caches(setting):
        return all(told["asked"] == missing for told in results[setting])

    def best_of(clients):
        usable = [setting for setting in settings if setting.client in clients and caches(setting)]
        return min(usable, key=seconds.get, default=None)

    best = {best_of([setting.client]) for setting in settings}
    print(
        "| client | texts per call | calls at once | texts/s | seconds | from ... to | texts asked for | "
        "rows that are not the text's own | on disk, MiB | peak memory, MiB |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for setting in settings:
        told = results[setting]

        def median(name):
            return statistics.median(run[name] for run in told)

        bold = "**" if setting in best else ""
        every = [run["seconds"] for run in told]
        print(
            f"| {WHAT[setting.client]} | {setting.size or 'all'} | {setting.at_once} "
            f"| {bold}{options.texts / seconds[setting]:,.0f}{bold} | {seconds[setting]:.2f} "
            f"| {min(every):.2f} ... {max(every):.2f} | {median('asked'):,.0f} "
            # The worst: one round with wrong rows is one too many.
            f"| {max(run['wrong_rows'] for run in told):,} "
            f"| {median('disk_mib'):,.0f} | {median('peak_rss_mib'):,.0f} |"
        )
    print(
        f"\n{missing:,} texts had to be asked for. A setting that asked for others does not use its cache, and is not "
        "judged. This crate's rows are durable when they are returned; the other clients leave theirs to the system."
    )
    print(f"\n| this crate, at its best, is faster than | {' | '.join(f'`{client}`' for client in ours)} |")
    print(f"|---|{'---:|' * len(ours)}")
    for name, clients in peers.items():
        theirs = best_of(clients)
        mine = [best_of([client]) for client in ours]
        if theirs is None or None in mine:
            print(f"| {name}: nothing to compare, the cache was not used | {' | '.join('' for _ in ours)} |")
            continue
        ratios = [seconds[theirs] / seconds[setting] for setting in mine]
        print(f"| {name} at its best | {' | '.join(f'{ratio:.1f}' for ratio in ratios)} |")
    print(f"\nWanted: at least {WANTED}, and no row that is not the text's own.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mock", help="the mock's program")
    parser.add_argument("--ours", help="the program that embeds with this crate")
    parser.add_argument("--quick", action="store_true", help="2,000 texts, one round, unless said otherwise")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--texts", type=int, help="default 20,000")
    parser.add_argument("--dir", help="the folder for the caches during the run; default: target")
    parser.add_argument("--client", choices=CLIENTS, help="run this one, once")
    parser.add_argument("--base-url", help="the server, without /v1; with --client")
    parser.add_argument("--texts-file", help="lines of JSON strings; with --client")
    parser.add_argument("--cache", help="the cache's folder; with --client")
    parser.add_argument("--size", type=int, default=TEXTS_PER_REQUEST, help="texts per call; with --client")
    parser.add_argument("--at-once", type=int, default=1, help="calls at once; with --client")
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS, help="with --client")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.texts = options.texts or (2_000 if options.quick else 20_000)
    if options.client:
        if not options.texts_file or not options.cache:
            parser.error("--client needs --texts-file and --cache")
        if not options.base_url and not options.client.startswith("ready-"):
            parser.error(f"--client {options.client} needs --base-url")
        run_client(options)
    elif options.mock and options.ours:
        run_all(options)
    else:
        parser.error("--mock and --ours, or --client")


if __name__ == "__main__":
    main()
