"""Embeds many short texts with this crate and with Python clients, in turns, against a mock on loopback.

    bench_openai.py --mock PROGRAM --ours PROGRAM [--quick]    all of them, and a table; scripts/bench-openai runs this
    bench_openai.py --client NAME --base-url URL ...           one Python client once, and a line of JSON

Every run is a process of its own, so that its peak of memory is its own and nothing is warm. All clients get the same
texts and ask for the same rows, in requests of 2,048 texts (baseten-performance-client sends 1,024 at most). The clock
starts before the first call and stops when the last row is there as floats.
"""

import argparse
import asyncio
import base64
import json
import statistics
import subprocess
import sys
import time

MODEL = "text-embedding-3-small"
DIMENSIONS = 1536
TEXTS_PER_REQUEST = 2048
BASETEN_TEXTS_PER_REQUEST = 1024

# The settings that are tried, by client: requests at once. Each client is judged by its best.
OURS = ["ours-documents", "ours-stream"]
SETTINGS = {
    "ours-documents": (2, 4),
    "ours-stream": (2, 4),
    "baseten": (2, 8),
    "baseten-numpy": (2, 8),
    "openai": (4, 16),
    "openai-aiohttp": (4, 16),
    "openai-numpy": (1, 4),
}
WHAT = {
    "ours-documents": "this crate, `embed_documents`: all rows in memory",
    "ours-stream": "this crate, `embed_stream`: each window dropped",
    "baseten": "`PerformanceClient.embed`, floats: all rows in memory",
    "baseten-numpy": "`PerformanceClient.async_embed`, base64, decoded by the caller with numpy, each part dropped",
    "openai": "`AsyncOpenAI`, each reply dropped",
    "openai-aiohttp": "`AsyncOpenAI` on aiohttp, each reply dropped",
    "openai-numpy": "`AsyncOpenAI` on aiohttp, base64 asked for and decoded by the caller with numpy, each reply dropped",
}
# The clients that the target names: as they are used, without work that their caller could do instead.
OFFICIAL = ["openai", "openai-aiohttp"]
BASETEN = ["baseten", "baseten-numpy"]

VERBS = ["open", "parse", "sort", "merge", "cache", "split", "trace"]
NOUNS = ["file", "query", "table", "stream", "socket", "header", "buffer", "thread", "vector", "record", "token"]
PLACES = ["a test", "one pass", "a loop", "the server", "parallel"]


def text(number):
    """Makes a text of about ten tokens, another one for each number; the same as in benches/peers/src/bin/many.rs."""
    verb, noun, place = VERBS[number % 7], NOUNS[number // 7 % 11], PLACES[number // 77 % 5]
    return f"how to {verb} the {noun} {number} in {place}"


# The clients. Each embeds all texts with `in_flight` requests at once, checks the widths and returns the row count.


async def run_openai(texts, options, http_client=None):
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{options.base_url}/v1", api_key="bench", max_retries=0, http_client=http_client)

    async def embed(part):
        # No format named: the client asks for base64 and decodes it.
        reply = await client.embeddings.create(model=MODEL, input=part, **dimensions(options))
        assert len(reply.data[0].embedding) == options.dimensions
        assert isinstance(reply.data[0].embedding[0], float)
        return len(reply.data)

    return await in_parts(embed, texts, options.in_flight)


async def run_openai_aiohttp(texts, options):
    from openai import DefaultAioHttpClient

    async with DefaultAioHttpClient() as http_client:
        return await run_openai(texts, options, http_client)


async def run_openai_numpy(texts, options):
    import numpy
    from openai import AsyncOpenAI, DefaultAioHttpClient

    async with DefaultAioHttpClient() as http_client:
        client = AsyncOpenAI(base_url=f"{options.base_url}/v1", api_key="bench", max_retries=0, http_client=http_client)

        async def embed(part):
            reply = await client.embeddings.create(
                model=MODEL, input=part, encoding_format="base64", **dimensions(options)
            )
            return len(decode(numpy, [row.embedding for row in reply.data], options))

        return await in_parts(embed, texts, options.in_flight)


async def run_baseten(texts, options):
    from baseten_performance_client import PerformanceClient

    client = PerformanceClient(options.base_url, "bench")
    # It splits and schedules by itself. The rows are floats in its own memory; making Python's of them is not counted.
    reply = await client.async_embed(texts, MODEL, preference=preference(options.in_flight), **dimensions(options))
    rows = reply.data
    assert len(rows[0].embedding) == options.dimensions
    return len(rows)


async def run_baseten_numpy(texts, options):
    import numpy
    from baseten_performance_client import PerformanceClient

    client = PerformanceClient(options.base_url, "bench")

    async def embed(part):
        # If base64 is asked for, it returns base64: decoding is left to the caller.
        reply = await client.async_embed(
            part, MODEL, encoding_format="base64", preference=preference(1), **dimensions(options)
        )
        return len(decode(numpy, [row.embedding for row in reply.data], options))

    return await in_parts(embed, texts, options.in_flight, BASETEN_TEXTS_PER_REQUEST)


def preference(in_flight):
    from baseten_performance_client import RequestProcessingPreference

    return RequestProcessingPreference(
        max_concurrent_requests=in_flight,
        # Its maximum; its defaults (8 texts, 8,000 characters) make many small requests.
        batch_size=BASETEN_TEXTS_PER_REQUEST,
        max_chars_per_request=1_048_576,
        max_retries=0,
    )


def decode(numpy, rows, options):
    decoded = [numpy.frombuffer(base64.b64decode(row), dtype="<f4") for row in rows]
    assert len(decoded[0]) == options.dimensions
    return decoded


def dimensions(options):
    return {} if options.dimensions == DIMENSIONS else {"dimensions": options.dimensions}


async def in_parts(embed, texts, in_flight, size=TEXTS_PER_REQUEST):
    """Runs `in_flight` coroutines that take one part of the texts after the other."""
    starts = iter(range(0, len(texts), size))

    async def work():
        rows = 0
        for start in starts:
            rows += await embed(texts[start : start + size])
        return rows

    return sum(await asyncio.gather(*(work() for _ in range(in_flight))))


CLIENTS = {
    "openai": run_openai,
    "openai-aiohttp": run_openai_aiohttp,
    "openai-numpy": run_openai_numpy,
    "baseten": run_baseten,
    "baseten-numpy": run_baseten_numpy,
}


def run_client(options):
    if options.client in OFFICIAL:
        # Without numpy the official client decodes with the standard library, which is a little faster.
        sys.modules["numpy"] = None
    # Imports are not measured.
    if options.client.startswith("openai"):
        import openai  # noqa: F401
    else:
        import baseten_performance_client  # noqa: F401
    if options.client.endswith("numpy"):
        import numpy  # noqa: F401
    texts = [text(number) for number in range(options.texts)]

    async def timed():
        start = time.perf_counter()
        rows = await CLIENTS[options.client](texts, options)
        return rows, time.perf_counter() - start

    rows, seconds = asyncio.run(timed())
    assert rows == options.texts, f"{rows} rows for {options.texts} texts"
    told = {"texts": rows, "seconds": seconds, "texts_per_second": rows / seconds, "peak_rss_mib": peak_rss_mib()}
    print(json.dumps(told))


def peak_rss_mib():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM: Linux is needed")


# The comparison.


def run_all(options):
    with subprocess.Popen(
        [options.mock, "--latency-ms", str(options.latency_ms), "--dimensions", str(options.dimensions)],
        stdout=subprocess.PIPE,
        text=True,
    ) as mock:
        try:
            url = f"http://127.0.0.1:{int(mock.stdout.readline())}"
            compare(options, url)
        finally:
            mock.kill()


def compare(options, url):
    runs = [(client, in_flight) for client, settings in SETTINGS.items() for in_flight in settings]
    results = {run: [] for run in runs}
    for round_ in range(options.rounds):
        # The first of a round is the last of the next.
        for client, in_flight in runs if round_ % 2 == 0 else reversed(runs):
            results[client, in_flight].append(run_once(options, url, client, in_flight, options.texts))
            tell_progress(options, round_, client, in_flight, results[client, in_flight][-1])

    latency = f", {options.latency_ms} ms before each reply" if options.latency_ms else ""
    print(
        f"{options.texts:,} texts of about 10 tokens, {options.dimensions} dimensions, {options.rounds} interleaved "
        f"rounds, medians; a mock on loopback{latency}. The best setting of each client is in bold.\n"
    )
    seconds = {run: statistics.median(result["seconds"] for result in results[run]) for run in runs}
    best = {client: min(settings, key=lambda n: seconds[client, n]) for client, settings in SETTINGS.items()}
    print("| client | requests at once | texts/s | seconds | from ... to | peak memory, MiB |")
    print("|---|---:|---:|---:|---:|---:|")
    for client, in_flight in runs:
        every = [result["seconds"] for result in results[client, in_flight]]
        memory = statistics.median(result["peak_rss_mib"] for result in results[client, in_flight])
        bold = "**" if best[client] == in_flight else ""
        median = seconds[client, in_flight]
        print(
            f"| {WHAT[client]} | {bold}{in_flight}{bold} | {bold}{options.texts / median:,.0f}{bold} | {median:.2f} "
            f"| {min(every):.2f} ... {max(every):.2f} | {memory:,.0f} |"
        )

    print("\n| this crate, at its best, is faster than | `embed_documents` | `embed_stream` |\n|---|---:|---:|")
    for client in SETTINGS:
        if client not in OURS:
            ratios = [seconds[client, best[client]] / seconds[ours, best[ours]] for ours in OURS]
            print(f"| {WHAT[client]} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    for name, clients, wanted in [("the official client", OFFICIAL, 5), ("baseten-performance-client", BASETEN, 1)]:
        theirs = min(seconds[client, best[client]] for client in clients)
        ours = [theirs / seconds[client, best[client]] for client in OURS]
        print(f"\nBeside {name} at its best: {ours[0]:.2f} and {ours[1]:.2f}. Wanted: at least {wanted}.")
    tell_memory(options, url, best["ours-stream"])


def tell_memory(options, url, in_flight):
    """Shows that a stream needs the same memory whatever its length."""
    print("\n| texts of a stream | peak memory, MiB |\n|---:|---:|")
    for texts in (options.texts // 4, options.texts):
        runs = [run_once(options, url, "ours-stream", in_flight, texts) for _ in range(min(3, options.rounds))]
        print(f"| {texts:,} | {statistics.median(run['peak_rss_mib'] for run in runs):,.0f} |")


def run_once(options, url, client, in_flight, texts):
    if client in OURS:
        # The provider's address has the API's version in it, as the official client's has.
        command = [options.ours, "--mode", client.removeprefix("ours-"), "--base-url", f"{url}/v1"]
    else:
        command = [sys.executable, __file__, "--client", client, "--base-url", url]
    command += ["--texts", str(texts), "--in-flight", str(in_flight), "--dimensions", str(options.dimensions)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1800)
    if done.returncode != 0:
        sys.exit(f"{client} with {in_flight} requests at once failed: exit code {done.returncode}")
    return json.loads(done.stdout)


def tell_progress(options, round_, client, in_flight, result):
    print(
        f"round {round_ + 1} of {options.rounds}: {client}, {in_flight} at once: {result['seconds']:.2f} s, "
        f"{result['peak_rss_mib']:.0f} MiB",
        file=sys.stderr,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mock", help="the mock's program")
    parser.add_argument("--ours", help="the program that embeds with this crate")
    parser.add_argument("--quick", action="store_true", help="20,000 texts, one round, unless said otherwise")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--texts", type=int, help="default 200,000")
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS)
    parser.add_argument("--latency-ms", type=int, default=0)
    parser.add_argument("--client", choices=CLIENTS, help="run this one, once")
    parser.add_argument("--base-url", help="the server, without /v1; with --client")
    parser.add_argument("--in-flight", type=int, default=4, help="requests at once; with --client")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.texts = options.texts or (20_000 if options.quick else 200_000)
    if options.client:
        if not options.base_url:
            parser.error("--client needs --base-url")
        run_client(options)
    elif options.mock and options.ours:
        run_all(options)
    else:
        parser.error("--mock and --ours, or --client")


if __name__ == "__main__":
    main()
