"""Embeds texts with one of Python's caching embedders, once, and prints a line of JSON: for bench_cache.py.

    bench_cache_clients.py --client NAME --texts-file FILE --cache FOLDER|redis://... ...

Each row is checked to be its text's own: it begins with three numbers made of the text's CRC-32 (`own` here, and in
benches/peers/src/lib.rs for the mock and for this crate's program) and ends as all rows do.
"""

import argparse
import array
import asyncio
import base64
import json
import os
import random
import time
import urllib.parse
import zlib

MODEL = "text-embedding-3-small"
DIMENSIONS = 1536
TEXTS_PER_REQUEST = 2048


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

    cached = CacheBackedEmbeddings.from_bytes_store(
        inner,
        byte_store(options.cache),
        namespace=MODEL,
        batch_size=options.size or None,
        key_encoder="blake2b",
    )
    start = time.perf_counter()
    rows = cached.embed_documents(texts)
    return time.perf_counter() - start, rows


def byte_store(cache):
    if is_redis(cache):
        from langchain_community.storage import RedisStore

        return RedisStore(redis_url=cache)
    from langchain_classic.storage import LocalFileStore

    return LocalFileStore(cache)


def is_redis(cache):
    return cache.startswith("redis://")


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

    if is_redis(options.cache):
        server = urllib.parse.urlsplit(options.cache)
        litellm.cache = litellm.Cache(type="redis", host=server.hostname, port=str(server.port))
    else:
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

        if is_redis(options.cache):
            import langchain_community.storage.redis  # noqa: F401
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=CLIENTS, required=True)
    parser.add_argument("--texts-file", help="lines of JSON strings", required=True)
    parser.add_argument("--cache", help="the cache's folder, or the URL of a Redis server", required=True)
    parser.add_argument("--base-url", help="the provider's server, without /v1")
    parser.add_argument("--size", type=int, default=TEXTS_PER_REQUEST, help="texts per call")
    parser.add_argument("--at-once", type=int, default=1, help="calls at once")
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS)
    options = parser.parse_args()
    if not options.base_url and not options.client.startswith("ready-"):
        parser.error(f"--client {options.client} needs --base-url")
    run_client(options)


if __name__ == "__main__":
    main()
