"""Measures the service from outside, in turns with what it is compared with, and prints tables.

    bench_serve.py PART ... --serve PROGRAM --fake PROGRAM --client PROGRAM --local PROGRAM --folder DIR --library FILE
                   --work DIR [--docs DIR] [--fastapi PYTHON] [--infinity PROGRAM] [--oha PROGRAM] [--quick] ...

scripts/bench-serve calls it, and describes the parts. Clients, services and peers are processes of their own on the
same cores, over loopback. The client's share of the cores is measured and printed beside each speed, since the service
cannot have it. CPU times are those of the kernel, user and system together. A ratio is that of two turns beside
each other, and the order changes from round to round.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time

import bench_peers

NAME = "all-MiniLM-L6-v2"
TICKS = os.sysconf("SC_CLK_TCK")
# Requests of each kind of load: texts per request and connections.
CHUNKS = {"corpus": "mixed", "per-request": 32, "connections": 4, "kind": "document"}
QUERIES = {"corpus": "queries", "per-request": 1, "connections": 64, "kind": "query"}
DIMENSIONS = 768
# The queue holds so many seconds of work, at the speed that was measured just before.
QUEUE_SECONDS = 2
SHARE = "client's share of the cores"
# The goals, as they are printed.
WANTED = []


def wanted(what, found, goal, good):
    WANTED.append([what, found, goal, "yes" if good else "NO"])


def note(text):
    print(text, file=sys.stderr, flush=True)


# The processes.


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_of(pid):
    """Returns the CPU seconds of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Service:
    """A process that answers on a port."""

    def __init__(self, options, name, command, dialect="native", path="/embed", environment=(), port=None):
        self.name, self.dialect, self.path, self.options = name, dialect, path, options
        self.port = port
        self.log = pathlib.Path(options.work) / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log if port else subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **dict(environment)},
            )
        # A program that chooses its port prints it.
        self.port = port or int(self.process.stdout.readline() or self.fail("said no port"))
        self.wait()

    def fail(self, what):
        lines = self.log.read_text(errors="replace").splitlines()[-3:]
        raise Unusable(f"{self.name} {what}: {' / '.join(lines)}")

    def wait(self):
        """Waits until it answers with vectors."""
        end = time.monotonic() + 180
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.rows(["ready?"]):
                    return
            if self.process.poll() is not None:
                self.fail(f"ended with {self.process.returncode}")
            time.sleep(0.2)
        self.end()
        self.fail("does not answer")

    def ask(self, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        with contextlib.closing(connection):
            # As the loads have it: peers truncate anyway.
            headers = {"content-type": "application/json", "x-embed-truncation": "truncate"}
            connection.request("GET" if body is None else "POST", path, json.dumps(body) if body else None, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()

    def rows(self, texts, must=False):
        """Returns the vectors of texts, or None while there are none, unless there must be some."""
        field = {"native": "texts", "tei": "inputs", "openai": "input"}[self.dialect]
        named = {"model": NAME} if self.dialect == "openai" else {}
        status, body = self.ask(self.path, {field: texts, **named})
        if status != 200:
            if must:
                raise Unusable(f"it answered {status} to {len(texts)} texts: {body[:300]!r}")
            return None
        reply = json.loads(body)
        return reply["embeddings"] if self.dialect == "native" else [row["embedding"] for row in reply["data"]]

    def status(self):
        return json.loads(self.ask("/status")[1])

    def engine(self):
        """Returns the engine's figures since the start."""
        lines = self.ask("/metrics")[1].decode().splitlines()
        start = "docvector_embed_engine_"
        found = (line.removeprefix(start).split(" ") for line in lines if line.startswith(start) and "{" not in line)
        return {name.removesuffix("_total"): float(value) for name, value in found}

    def cpu(self):
        return cpu_of(self.process.pid)

    def mib(self):
        """Returns the resident memory."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))

    def load(self, load, **more):
        """Lets the client load the service, and returns what it measured, and what the service took."""
        before = self.cpu()
        client = self.begin(load, **more)
        told = client.communicate()[0]
        if client.returncode:
            sys.exit(f"the client of {self.name} failed: exit code {client.returncode}")
        told = json.loads(told)
        told["server_cpu"] = self.cpu() - before
        told["share"] = told["cpu_seconds"] / told["seconds"] / self.options.threads
        if not more.get("may_be_refused") and set(told["statuses"]) != {"200"}:
            sys.exit(f"{self.name} answered {told['statuses']}")
        return told

    def begin(self, load, may_be_refused=False, **more):
        del may_be_refused
        settings = {"dialect": self.dialect, "path": self.path, "model": NAME, "port": self.port, **load, **more}
        settings["texts"] = pathlib.Path(self.options.work) / f"{settings.pop('corpus')}.jsonl"
        words = [str(word) for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
        return subprocess.Popen([self.options.client, *words], stdout=subprocess.PIPE, text=True)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Unusable(Exception):
    """A service that cannot be used here, and why."""


@contextlib.contextmanager
def service(*arguments, **more):
    running = Service(*arguments, **more)
    try:
        yield running
    finally:
        running.end()


def ours(options, *words, **more):
    """Starts the command over the model."""
    port = free_port()
    command = [options.serve, "serve", "--model", options.folder, "--library", options.library]
    command += ["--threads", options.threads, "--port", port, *words]
    # The defaults, whatever was tuned on this machine.
    return service(options, "docvector-embed", command, port=port, environment={"DOCVECTOR_EMBED_TUNING": ""}, **more)


def over_fake(options):
    return service(options, "serve_fake", [options.fake, "--dimensions", DIMENSIONS])


# The texts.


def texts_of(options, corpus):
    lines = (pathlib.Path(options.work) / f"{corpus}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write_texts(options, corpus, texts):
    lines = "".join(f"{json.dumps(text)}\n" for text in texts)
    (pathlib.Path(options.work) / f"{corpus}.jsonl").write_text(lines, encoding="utf-8")


def make_texts(options):
    """Makes the texts of scripts/bench-peers, more of them. The service itself counts their tokens."""
    work = pathlib.Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    key = f"{options.mixed} {options.queries} {options.docs}\n"
    made = work / "texts"
    if not (made.exists() and made.read_text().startswith(key)):
        note("making the texts ...")
        with ours(options) as counter:
            connection = http.client.HTTPConnection("127.0.0.1", counter.port, timeout=60)

            def count(text):
                connection.request("POST", "/tokenize", json.dumps({"inputs": text}))
                return len(json.loads(connection.getresponse().read())[0])

            options.repeated = 1
            source, corpora = bench_peers.make_texts(options, count)
            told = []
            for corpus in ("mixed", "queries"):
                write_texts(options, corpus, corpora[corpus])
                # The model truncates what is longer.
                tokens = [min(count(text), 256) for text in corpora[corpus]]
                told.append(
                    f"{len(tokens)} {bench_peers.TITLES[corpus].lower()} of {min(tokens)} to {max(tokens)} tokens, "
                    f"median {statistics.median(tokens):.0f}, mean {statistics.mean(tokens):.0f}"
                )
            # One that fills a batch of the engine alone.
            chunk = min(corpora["mixed"], key=lambda text: abs(count(text) - 200))
            write_texts(options, "one", [chunk])
            connection.close()
        made.write_text(f"{key}Texts from {source}: {'; '.join(told)}.\n")
    print(made.read_text().partition("\n")[2].strip())


# Figures.


def spread(values, digits=2):
    return f"{min(values):.{digits}f} ... {max(values):.{digits}f}"


def middle(rounds, what):
    return statistics.median(what(turn) for turn in rounds)


def rounds_of(options, sides):
    """Lets the sides take turns, and returns what each gave. A first round warms up."""
    given = {name: [] for name in sides}
    for round_ in range(options.rounds + 1):
        names = list(sides)[:: 1 if round_ % 2 == 0 else -1]
        turn = {name: sides[name]() for name in names}
        if round_ > 0:
            for name, told in turn.items():
                given[name].append(told)
            speeds = ", ".join(f"{name} {told['texts'] / told['seconds']:,.1f}" for name, told in turn.items())
            note(f"round {round_} of {options.rounds}, texts/s: {speeds}")
    return given


# The parts.


def fake(options):
    """The service without a model."""
    file = pathlib.Path(options.work) / "mixed.jsonl"
    seconds = options.seconds
    load = {**CHUNKS, "per-request": 64, "seconds": seconds}

    def alone():
        words = [options.fake, "--alone", file, "--dimensions", DIMENSIONS, "--seconds", seconds / 2]
        done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, check=True, text=True)
        told = json.loads(done.stdout)
        return {**told, "server_cpu": told["cpu_seconds"], "share": 0.0}

    alone_name = "`Fake` alone, in process, one thread"
    with over_fake(options) as running:
        given = rounds_of(
            options,
            {
                alone_name: alone,
                "rows": lambda: running.load(load, reply="rows"),
                "JSON": lambda: running.load(load, reply="json"),
                "OpenAI's dialect, base64": lambda: running.load(
                    load, reply="base64", dialect="openai", path="/v1/embeddings", model="fake"
                ),
            },
        )
        idle = running.mib()
    rows = [["", "texts/s per core of the process", "from ... to", "us per text", "texts/s", SHARE]]
    for name, turns in given.items():
        each = [turn["texts"] / turn["server_cpu"] for turn in turns]
        rows.append(
            [
                name,
                f"{statistics.median(each):,.0f}",
                f"{min(each):,.0f} ... {max(each):,.0f}",
                f"{1e6 / statistics.median(each):.1f}",
                f"{middle(turns, lambda turn: turn['texts'] / turn['seconds']):,.0f}",
                f"{middle(turns, lambda turn: turn['share']):.0%}",
            ]
        )
    print(
        f"\n## fake\n\nRequests of {load['per-request']} chunks over `Fake`, {DIMENSIONS} components, "
        f"{load['connections']} connections, {options.rounds} rounds of {seconds:g} s, medians. {idle:.0f} MiB after.\n"
    )
    bench_peers.table(rows)
    per_core = middle(given["rows"], lambda turn: turn["texts"] / turn["server_cpu"])
    own = middle(given[alone_name], lambda turn: turn["texts"] / turn["server_cpu"])
    print(f"\nOf the time per text of `rows`, `Fake` takes {per_core / own:.0%}.")
    wanted("fake: texts/s per core, binary", f"{per_core:,.0f}", "20,000", per_core >= 20_000)


def beside_library(options, title, load, goal):
    """The service over the model beside the library in process."""
    corpus = load["corpus"]
    texts = len(texts_of(options, corpus))
    words = [options.local, "--folder", options.folder, "--texts", options.work, "--library", options.library]
    library = bench_peers.Side("ours", [*words, "--threads", options.threads], {"DOCVECTOR_EMBED_TUNING": ""})
    pid = library.process.pid

    def in_process():
        before = cpu_of(pid)
        seconds = library.run(corpus, "default", texts)
        return {"texts": texts, "seconds": seconds, "server_cpu": cpu_of(pid) - before, "share": 0.0}

    with ours(options) as running:
        given = rounds_of(
            options, {"the library, one call": in_process, "the service": lambda: running.load(load, reply="rows")}
        )
        engine = running.engine()
    library.end()
    one, other = given.values()
    rows = [["", "texts/s", "from ... to", "CPU ms per text", "cores in use", SHARE, "p50 ms", "p99 ms"]]
    for name, turns in given.items():
        speeds = [turn["texts"] / turn["seconds"] for turn in turns]
        has_latency = name == "the service"
        rows.append(
            [
                name,
                f"{statistics.median(speeds):.1f}",
                spread(speeds, 1),
                f"{middle(turns, lambda turn: turn['server_cpu'] / turn['texts'] * 1e3):.3f}",
                f"{middle(turns, lambda turn: turn['server_cpu'] / turn['seconds']):.2f}",
                f"{middle(turns, lambda turn: turn['share']):.1%}",
                f"{middle(turns, lambda turn: turn['p50_ms']):.1f}" if has_latency else "",
                f"{middle(turns, lambda turn: turn['p99_ms']):.1f}" if has_latency else "",
            ]
        )
    speed = [a["seconds"] / b["seconds"] for a, b in zip(one, other)]
    cost = [b["server_cpu"] / a["server_cpu"] for a, b in zip(one, other)]
    print(
        f"\n## {title}\n\n{texts} texts, over HTTP in requests of {load['per-request']} from {load['connections']} "
        f"connections, rows in binary; {options.rounds} rounds, medians.\n"
    )
    bench_peers.table(rows)
    parts = {name: middle(other, lambda turn: turn["server_ms"].get(name, 0.0)) for name in other[0]["server_ms"]}
    told = ", ".join(f"{name} {millis:.2f}" for name, millis in parts.items())
    print(
        f"\nThe service's speed is {statistics.median(speed):.3f} of the library's ({spread(speed, 3)}), its CPU time "
        f"per text {statistics.median(cost):.3f} times the library's ({spread(cost, 3)}). `server-timing`, mean ms of "
        f"a request: {told}. Its engine embedded {engine['texts'] / engine['batches']:.1f} texts per batch, "
        f"with {engine['padded_tokens'] / engine['tokens']:.2f} padded tokens per token; the library has all texts to "
        "choose from, so it pads less."
    )
    found = statistics.median(speed)
    wanted(f"{title}: speed of the library in bulk", f"{found:.3f}", f"{goal:.3f}", found >= goal)
    if title == "chunks":
        found = statistics.median(cost)
        wanted("chunks: CPU time, times the library's", f"{found:.3f}", "1.10 at most", found <= 1.1)


def chunks(options):
    beside_library(options, "chunks", CHUNKS, 1 / 1.1)


def queries(options):
    beside_library(options, "queries", QUERIES, 0.8)


def peers(options):
    """The service beside others, over the same routes, with the same texts."""
    print(
        "\n## peers\n\nThe same model on the same cores, the same requests. The peers have as many threads as "
        "the service."
    )
    port = free_port()
    here = pathlib.Path(__file__).parent
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TRANSFORMERS_VERBOSITY": "error",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "OMP_NUM_THREADS": str(options.threads),
        "MKL_NUM_THREADS": str(options.threads),
    }
    command = [options.fastapi, here / "bench_serve_fastapi.py", "--folder", options.folder, "--port", port]
    fastapi = ("FastAPI", [*command, "--threads", options.threads], "native", "/embed", port)
    port = free_port()
    command = [options.infinity, "v2", "--model-id", options.folder, "--served-model-name", NAME, "--port", port]
    command += ["--host", "127.0.0.1", "--engine", "torch", "--device", "cpu", "--dtype", "float32", "--batch-size", 32]
    command += ["--no-bettertransformer", "--url-prefix", "/v1", "--log-level", "warning"]
    infinity = ("infinity", command, "openai", "/v1/embeddings", port)
    for (name, command, dialect, path, port), program, goals in (
        (fastapi, options.fastapi, {"chunks": 1.3, "queries": 4}),
        (infinity, options.infinity, {"chunks": 1.3, "queries": 1.3}),
    ):
        try:
            if not program:
                raise Unusable(f"{name} is not installed: {options.why or 'no program was given'}")
            beside_peer(options, name, command, dialect, path, port, quiet, goals)
        except Unusable as why:
            print(f"\n{name} was not measured: {why}")
            for what, goal in goals.items():
                wanted(f"{what}: times {name}", "not measured", f"{goal:g}", False)


def beside_peer(options, name, command, dialect, path, port, environment, goals):
    asked = {"native": "json", "openai": "base64"}[dialect]
    with (
        service(options, name, command, dialect, path, environment, port) as peer,
        ours(options, dialect=dialect, path=path) as running,
    ):
        sample = texts_of(options, "mixed")[:8] + texts_of(options, "queries")[:8]
        pairs = zip(running.rows(sample, must=True), peer.rows(sample, must=True))
        least = min(bench_peers.cosine(mine, theirs) for mine, theirs in pairs)
        if not least >= 0.9999:
            raise Unusable(f"its vectors are others: cosine {least:.6f}")
        rows = [["", "texts/s", "from ... to", "p50 ms", "p99 ms", SHARE]]
        told = []
        for what, load, limit in (("chunks", CHUNKS, options.peer_mixed), ("queries", QUERIES, options.peer_queries)):
            given = rounds_of(
                options,
                {
                    f"this crate, {what}": lambda: running.load(load, reply=asked, limit=limit),
                    f"{name}, {what}": lambda: peer.load(load, reply=asked, limit=limit),
                },
            )
            for side, turns in given.items():
                speeds = [turn["texts"] / turn["seconds"] for turn in turns]
                rows.append(
                    [
                        side,
                        f"{statistics.median(speeds):.1f}",
                        spread(speeds, 1),
                        f"{middle(turns, lambda turn: turn['p50_ms']):.0f}",
                        f"{middle(turns, lambda turn: turn['p99_ms']):.0f}",
                        f"{middle(turns, lambda turn: turn['share']):.1%}",
                    ]
                )
            mine, theirs = given.values()
            ratios = [b["seconds"] / a["seconds"] for a, b in zip(mine, theirs)]
            found, goal = statistics.median(ratios), goals[what]
            told.append(f"{what}: {found:.2f} times {name} ({spread(ratios)})")
            wanted(f"{what}: times {name}", f"{found:.2f}", f"{goal:g}", found >= goal)
        memory = f"Resident memory: this crate {running.mib():.0f} MiB, {name} {peer.mib():.0f} MiB."
    print(
        f"\n### {name}\n\n{options.peer_mixed} chunks in requests of {CHUNKS['per-request']} from "
        f"{CHUNKS['connections']} connections, {options.peer_queries} queries in requests of one from "
        f"{QUERIES['connections']}; replies in {asked}; {options.rounds} rounds, medians. Least cosine between the "
        f"two: {least:.6f}.\n"
    )
    bench_peers.table(rows)
    print(f"\nThis crate on {'; on '.join(told)}. {memory}")


def steady(options):
    """Resident memory over time."""
    print("\n## steady\n")
    total = options.steady_texts
    with over_fake(options) as running:
        running.load({**CHUNKS, "per-request": 64, "passes": 4}, reply="rows")
        rows = [["texts over `Fake`", "MiB"], ["warmed up", f"{running.mib():.1f}"]]
        first = running.mib()
        done = 0
        for part in range(1, 6):
            passes = -(-(total * part // 5 - done) // options.mixed)
            done += passes * options.mixed
            for reply in ("rows", "json"):
                running.load({**CHUNKS, "per-request": 64, "passes": -(-passes // 2)}, reply=reply)
            rows.append([f"{done:,}", f"{running.mib():.1f}"])
        last = running.mib()
    bench_peers.table(rows)
    print(f"\n{last - first:+.1f} MiB after {done:,} texts.\n")
    wanted("steady: MiB more after many texts over Fake", f"{last - first:.1f}", "5 at most", last - first <= 5)

    seconds = options.minutes * 60
    step = min(60, seconds / 5)
    with ours(options) as running:
        rows = [["seconds", "MiB", "texts so far", "under way"], ["0", f"{running.mib():.1f}", "0", "0"]]
        start = time.monotonic()
        loads = [
            running.begin(CHUNKS, reply="rows", seconds=seconds),
            running.begin({**CHUNKS, "connections": 2}, reply="json", seconds=seconds),
            running.begin({**QUERIES, "connections": 16}, reply="json", seconds=seconds),
        ]
        samples = []
        while time.monotonic() - start + step <= seconds + 0.5:
            time.sleep(max(0, start + step * (len(samples) + 1) - time.monotonic()))
            now = running.status()
            samples.append(running.mib())
            texts, under_way = now["totals"]["texts"], now["requests_under_way"]
            rows.append([f"{step * len(samples):.0f}", f"{samples[-1]:.1f}", f"{texts:,}", f"{under_way}"])
            note(", ".join(f"{name}: {value}" for name, value in zip(rows[0], rows[-1])))
        told = [json.loads(client.communicate()[0]) for client in loads]
        after = running.mib()
    bench_peers.table(rows)
    statuses = {}
    for one in told:
        for status, count in one["statuses"].items():
            statuses[status] = statuses.get(status, 0) + count
    share = sum(one["cpu_seconds"] for one in told) / seconds / options.threads
    print(
        f"\nMixed load for {options.minutes:g} minutes: chunks in requests of {CHUNKS['per-request']} from 6 "
        f"connections, single queries from 16. {sum(one['texts'] for one in told):,} texts, statuses {statuses}; "
        f"queries p50 {told[2]['p50_ms']:.0f} ms, p99 {told[2]['p99_ms']:.0f} ms; the client took {share:.1%} of the "
        f"cores. {after:.1f} MiB after."
    )
    found = samples[-1] / samples[0]
    wanted("steady: memory at the end, times that after the first step", f"{found:.2f}", "1.10 at most", found <= 1.1)


def overload(options):
    """Twice the load that the service can take, from a generator that does not wait for it."""
    print("\n## overload\n")
    if not options.oha:
        print("Not measured: oha is not installed.")
        wanted("overload", "not measured", "", False)
        return
    load = {**CHUNKS, "corpus": "one", "per-request": 1, "connections": 8}
    with ours(options) as running:
        running.load(load, reply="rows", seconds=1)
        client = running.begin(load, reply="rows", seconds=options.seconds)
        time.sleep(options.seconds / 2)
        queue = running.status()["queue"]["bulk"]
        told = json.loads(client.communicate()[0])
    tokens = queue["tokens"] / queue["requests"]
    capacity = told["texts_per_second"]
    limit = round(tokens * capacity * QUEUE_SECONDS)
    rate = round(2 * capacity)
    seconds = options.overload_seconds
    body = pathlib.Path(options.work) / "body.json"
    body.write_text(json.dumps({"texts": texts_of(options, "one")}))
    with ours(options, "--queue-tokens", limit) as running:
        alone = running.load({**load, "connections": 1}, reply="rows", seconds=options.seconds)["p50_ms"] / 1e3
        running.load(load, reply="rows", seconds=1)
        before = running.mib()
        command = [options.oha, "--no-tui", "--output-format", "json", "-z", f"{seconds:g}s", "-q", rate]
        command += ["--latency-correction", "-w", "-c", 512, "-m", "POST", "-D", body, "-T", "application/json"]
        command += ["-A", "application/octet-stream", "--stats-success-breakdown"]
        command += [f"http://127.0.0.1:{running.port}/embed"]
        cpu, engine = running.cpu(), running.engine()
        start = time.monotonic()
        generator = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        # Beside it, a client that looks at the refusals. It pauses after each reply, so that it does not get the place
        # in the queue that it has just left.
        sample = running.begin({**load, "connections": 8}, reply="rows", seconds=seconds, pause_ms=100)
        most, queued, usage = before, 0, []
        while generator.poll() is None and sample.poll() is None and time.monotonic() - start < seconds:
            time.sleep(0.2)
            most = max(most, running.mib())
            queued = max(queued, running.status()["queue"]["bulk"]["tokens"])
            with contextlib.suppress(OSError):
                usage.append(cpu_of(generator.pid))
        cpu = (running.cpu() - cpu) / (time.monotonic() - start)
        engine = {name: value - engine[name] for name, value in running.engine().items()}
        looked = json.loads(sample.communicate()[0])
        report = json.loads(generator.communicate()[0])
        after = running.mib()
        if not running.rows(["still there?"]):
            sys.exit("the service does not answer after the overload")
    statuses, errors = report["statusCodeDistribution"], report["errorDistribution"]
    accepted = statuses.get("200", 0)
    # By both clients, in the time that the load lasted.
    done = (accepted + looked["statuses"].get("200", 0)) / report["summary"]["total"]
    good = report.get("latencyPercentilesSuccessful") or report["latencyPercentiles"]
    p99 = good["p99"]
    # As the batches were under this load, and not as one is alone.
    batch = engine["inference_seconds"] / engine["batches"]
    bound = limit / (tokens * done) + 2 * batch
    refused = looked["statuses"].get("429", 0)
    missing = looked["without_retry_after"]
    print(
        f"One chunk per request, {tokens:.0f} tokens by the service's estimate, {alone * 1e3:.0f} ms alone. At most "
        f"{capacity:.1f} requests/s with 8 connections, so {rate} requests/s for {seconds:g} s, and a queue of "
        f"{limit:,} tokens: {QUEUE_SECONDS} s of work.\n"
    )
    told = ", ".join(f"{name}: {count}" for name, count in errors.items()) or "none"
    failed = sum(count for status, count in statuses.items() if status not in ("200", "429"))
    bench_peers.table(
        [
            ["", ""],
            ["replies by status", ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))],
            ["errors of the generator", told],
            ["requests served per second, both clients", f"{done:.1f}"],
            ["the same, of the speed before", f"{done / capacity:.2f}"],
            ["the service's cores, the generator's", f"{cpu:.2f}, {(usage[-1] if usage else 0) / seconds:.2f}"],
            ["most tokens in the queue, of the limit", f"{queued:,} of {limit:,}"],
            ["refusals looked at, without a usable retry-after", f"{refused}, {missing}"],
            ["memory before, most, after", f"{before:.0f}, {most:.0f}, {after:.0f} MiB"],
            ["latency of those served: p50, p99", f"{good['p50']:.2f} s, {p99:.2f} s"],
            ["time of a batch under this load", f"{batch * 1e3:.0f} ms"],
            ["queue limit / rate + two batches", f"{bound:.2f} s"],
        ]
    )
    wanted("overload: p99 of those served, s", f"{p99:.2f}", f"{bound:.2f} at most", p99 <= bound)
    other = failed + sum(errors.values())
    wanted("overload: replies that are neither 200 nor 429", f"{other}", "0", other == 0)
    wanted("overload: refusals without retry-after", f"{missing} of {refused}", "0", refused > 0 and missing == 0)
    wanted("overload: served, of the most before", f"{done / capacity:.2f}", "0.8", done >= 0.8 * capacity)


PARTS = {part.__name__: part for part in (fake, chunks, queries, peers, steady, overload)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--serve", required=True, help="the command docvector-embed")
    parser.add_argument("--fake", required=True, help="the program serve_fake")
    parser.add_argument("--client", required=True, help="the program serve, the client")
    parser.add_argument("--local", required=True, help="the program local, the library in process")
    parser.add_argument("--folder", required=True, help="the model")
    parser.add_argument("--library", required=True, help="ONNX Runtime's file")
    parser.add_argument("--work", required=True, help="the folder for texts and logs")
    parser.add_argument("--docs", help="the documentation of Rust, as HTML; without, Python's is taken")
    parser.add_argument("--fastapi", help="a Python with FastAPI and sentence-transformers")
    parser.add_argument("--infinity", help="the command infinity_emb")
    parser.add_argument("--why", help="why a peer is missing")
    parser.add_argument("--oha", help="the command oha")
    parser.add_argument("--quick", action="store_true", help="little of everything: to see that all works")
    parser.add_argument("--rounds", type=int, help="turns of each side; default 7")
    parser.add_argument("--seconds", type=float, help="of a turn of `fake`, and of other short loads; default 5")
    parser.add_argument("--mixed", type=int, help="chunks, default 480")
    parser.add_argument("--queries", type=int, help="default 2400")
    parser.add_argument("--peer-mixed", type=int, help="chunks for the peers, default 240")
    parser.add_argument("--peer-queries", type=int, help="default 960")
    parser.add_argument("--steady-texts", type=int, help="texts over Fake in `steady`, default 1000000")
    parser.add_argument("--minutes", type=float, help="of the mixed load of `steady`, default 10")
    parser.add_argument("--overload-seconds", type=float, help="default 60")
    parser.add_argument("--threads", type=int, default=2, help="number of threads and of cores; default 2")
    options = parser.parse_args()
    for name, full, quick in (
        ("rounds", 7, 2),
        ("seconds", 5, 1),
        ("mixed", 480, 64),
        ("queries", 2400, 256),
        ("peer_mixed", 240, 32),
        ("peer_queries", 960, 128),
        ("steady_texts", 1_000_000, 50_000),
        ("minutes", 10, 0.4),
        ("overload_seconds", 60, 8),
    ):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < options.threads:
        sys.exit(f"there are {len(cores)} cores, but --threads asks for {options.threads}")
    # The same cores for all.
    os.sched_setaffinity(0, cores[: options.threads])
    began = time.monotonic()
    print(
        f"{NAME} in fp32, {options.threads} threads on {options.threads} cores that services, clients and peers share. "
        f"Load of the machine before: {os.getloadavg()[0]:.1f}."
    )
    make_texts(options)
    for part in options.parts:
        note(f"{part} ...")
        PARTS[part](options)
        sys.stdout.flush()
    print("\n## What is wanted\n")
    bench_peers.table([["", "found", "wanted", "reached"], *WANTED])
    print(f"\nAll of it took {(time.monotonic() - began) / 60:.0f} minutes.")


if __name__ == "__main__":
    main()
