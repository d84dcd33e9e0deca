"""Embeds texts of which half are cached with this crate and with Python's caching embedders, in turns.

    bench_cache.py --mock PROGRAM --ours PROGRAM [--quick] [--url redis://...]    prints tables; for scripts/bench-cache

The texts are chunks of the sources of Python's own library. Every client gets an empty cache, a folder or with --url a
Redis server, embeds half of the texts (not timed), and then, in a new process, all of them in another order: about half
of each call is cached. The clock starts before the first call and stops when the last row is there as floats and
everything is stored. The first table has a mock of OpenAI's API on loopback behind every client; the others an embedder
in the same process that costs next to nothing, so that they compare the caches alone. All of it takes some 25 minutes.
The Python clients are in bench_cache_clients.py, which also checks their rows.
"""

import argparse
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

from bench_cache_clients import DIMENSIONS, TEXTS_PER_REQUEST

CLIENTS_PROGRAM = pathlib.Path(__file__).with_name("bench_cache_clients.py")
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
    "langchain": "LangChain, `CacheBackedEmbeddings` over `{langchain}`",
    "litellm": "LiteLLM, `aembedding`, {litellm} cache",
    "litellm-base64": "LiteLLM, `aembedding`, {litellm} cache, base64 asked for and decoded by the caller",
    "ready-ours-documents": "this crate, `embed_documents`: all rows in memory",
    "ready-ours-stream": "this crate, `embed_stream`: each window dropped",
    "ready-langchain": "LangChain, `CacheBackedEmbeddings` over `{langchain}`",
}
# The arguments of this crate's program.
OURS = {
    "ours-documents": ["--mode", "documents"],
    "ours-stream": ["--mode", "stream"],
    "ours-uncounted": ["--mode", "documents", "--counted", "no"],
    "ready-ours-documents": ["--mode", "documents"],
    "ready-ours-stream": ["--mode", "stream"],
}


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


# The caches.


class Folder:
    """A folder per run, on the disk of this repository: a folder for temporary files may be in memory."""

    names = {"langchain": "LocalFileStore", "litellm": "disk"}
    stored = "everything stored in files"
    unit = "on disk, MiB"
    durability = "This crate's rows are durable when they are returned; the other clients leave theirs to the system."

    def __init__(self, folder):
        self.folder = folder

    def make(self):
        self.folder.mkdir()

    def of(self, client):
        return self.folder / "vectors.sqlite" if client in OURS else self.folder

    def mib(self):
        return sum(file.stat().st_blocks for file in self.folder.rglob("*") if file.is_file()) / 2048

    def remove(self):
        shutil.rmtree(self.folder)


class Server:
    """A Redis server, emptied before each run."""

    names = {"langchain": "RedisStore", "litellm": "Redis"}
    stored = "everything stored in one Redis server"
    unit = "in Redis, MiB"
    durability = "All rows are in the server's memory when they are returned, and in its file within a second."

    def __init__(self, url):
        import redis

        self.url = url
        self.server = redis.Redis.from_url(url)
        self.remove()

    def make(self):
        self.before = self.server.info("memory")["used_memory"]

    def of(self, _):
        return self.url

    def mib(self):
        return (self.server.info("memory")["used_memory"] - self.before) / 2**20

    def remove(self):
        self.server.flushall()
        # The append-only file would grow by all that is put.
        self.server.bgrewriteaof()
        while any(self.server.info("persistence")[f"aof_rewrite_{state}"] for state in ("in_progress", "scheduled")):
            time.sleep(0.05)


# The comparison.


def run_all(options):
    texts = read_texts(options.texts)
    random_ = random.Random(1)
    target = pathlib.Path(options.dir or pathlib.Path(__file__).resolve().parent.parent / "target")
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-cache-", dir=target) as folder:
        folder = pathlib.Path(folder)
        for name, part in [("half", texts[: len(texts) // 2]), ("all", random_.sample(texts, len(texts)))]:
            lines = "".join(f"{json.dumps(text, ensure_ascii=False)}\n" for text in part)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        place = Server(options.url) if options.url else Folder(folder / "cache")
        length = statistics.mean(len(text.encode()) for text in texts)
        print(
            f"{len(texts):,} texts of {length:.0f} bytes on average, the cache warm for {len(texts) // 2:,} of them; "
            f"{options.rounds} interleaved rounds, medians; {place.stored}. The best setting of each client is in bold."
        )
        with subprocess.Popen([options.mock, "--vectors", "by-text"], stdout=subprocess.PIPE, text=True) as mock:
            try:
                url = f"http://127.0.0.1:{int(mock.stdout.readline())}"
                print(f"\n### Against a mock of OpenAI's API on loopback, {DIMENSIONS} dimensions\n")
                results = measure(options, folder, place, OVER_HTTP, url)
                peers = {
                    "LangChain": ["langchain"],
                    "LiteLLM, with defaults,": ["litellm"],
                    "LiteLLM, with a caller who decodes,": ["litellm-base64"],
                }
                ours = ["ours-documents", "ours-stream", "ours-uncounted"]
                tell(options, place, OVER_HTTP, results, ours, peers)
            finally:
                mock.kill()
        for dimensions in dict.fromkeys(setting.dimensions for setting in IN_PROCESS):
            settings = [setting for setting in IN_PROCESS if setting.dimensions == dimensions]
            print(f"\n### An embedder in the process that costs next to nothing, {dimensions} dimensions\n")
            results = measure(options, folder, place, settings, None)
            ours = ["ready-ours-documents", "ready-ours-stream"]
            tell(options, place, settings, results, ours, {"LangChain": ["ready-langchain"]})


def measure(options, folder, place, settings, url):
    results = {setting: [] for setting in settings}
    for round_ in range(options.rounds):
        # The first of a round is the last of the next.
        for setting in settings if round_ % 2 == 0 else reversed(settings):
            place.make()
            run_once(options, place, setting, url, folder / "half.jsonl")
            # No client pays for the writes of another.
            os.sync()
            told = run_once(options, place, setting, url, folder / "all.jsonl")
            told["cache_mib"] = place.mib()
            place.remove()
            results[setting].append(told)
            print(
                f"round {round_ + 1} of {options.rounds}: {setting.client}, {setting.size or 'all'} per call, "
                f"{setting.at_once} at once: {told['seconds']:.2f} s, {told['asked']:,} texts asked for, "
                f"{told['wrong_rows']:,} wrong rows, {told['peak_rss_mib']:.0f} MiB",
                file=sys.stderr,
            )
    return results


def run_once(options, place, setting, url, texts):
    cache = place.of(setting.client)
    if setting.client in OURS:
        command = [options.ours, *OURS[setting.client], "--texts", texts, "--cache", cache]
        command += ["--call", setting.size, "--dimensions", setting.dimensions]
        # The provider's address has the API's version in it.
        command += ["--base-url", f"{url}/v1"] if url else []
    else:
        # LangChain's package with the Redis store says at each start that it is no longer maintained.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", CLIENTS_PROGRAM]
        command += ["--client", setting.client, "--texts-file", texts, "--cache", cache]
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


def tell(options, place, settings, results, ours, peers):
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
        f"rows that are not the text's own | {place.unit} | peak memory, MiB |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for setting in settings:
        told = results[setting]

        def median(name):
            return statistics.median(run[name] for run in told)

        bold = "**" if setting in best else ""
        every = [run["seconds"] for run in told]
        print(
            f"| {WHAT[setting.client].format(**place.names)} | {setting.size or 'all'} | {setting.at_once} "
            f"| {bold}{options.texts / seconds[setting]:,.0f}{bold} | {seconds[setting]:.2f} "
            f"| {min(every):.2f} ... {max(every):.2f} | {median('asked'):,.0f} "
            # The worst: one round with wrong rows is one too many.
            f"| {max(run['wrong_rows'] for run in told):,} "
            f"| {median('cache_mib'):,.0f} | {median('peak_rss_mib'):,.0f} |"
        )
    print(
        f"\n{missing:,} texts had to be asked for. A setting that asked for others does not use its cache, and is not "
        f"judged. {place.durability}"
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
    parser.add_argument("--mock", help="the mock's program", required=True)
    parser.add_argument("--ours", help="the program that embeds with this crate", required=True)
    parser.add_argument("--quick", action="store_true", help="2,000 texts, one round, unless said otherwise")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--texts", type=int, help="default 20,000")
    parser.add_argument("--dir", help="the folder for the caches during the run; default: target")
    parser.add_argument("--url", help="a Redis server that is nobody else's, for the caches: it is emptied")
    parser.add_argument("--data", help="the server's folder, which bench_servers.py tells and this does not need")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.texts = options.texts or (2_000 if options.quick else 20_000)
    run_all(options)


if __name__ == "__main__":
    main()
