"""Embeds texts with this crate, fastembed-rs and sentence-transformers, in turns, and prints tables.

    bench_peers.py --ours PROGRAM --fastembed PROGRAM --folder DIR --library FILE --work DIR [--docs DIR] [--quick]
    bench_peers.py --client float32|bfloat16 --folder DIR --texts DIR --max-tokens N --threads N

The first form runs everything (scripts/bench-peers calls it). The second is sentence-transformers alone, which obeys
lines as the two programs do (benches/peers/src/bin/local.rs has the list).

Every side loads the model once, in a process of its own, from the same weights, and truncates texts at the same length.
There is no cache, and no side looks for repeated texts. First each side's best batch size is searched; then all vectors
are compared; then the sides take turns, each peer right before or after a turn of this crate. A ratio is that of such a
pair. A turn is one call with all texts: the clock starts with the texts in memory and stops when all vectors are there.
"""

import argparse
import dataclasses
import hashlib
import html.parser
import importlib
import inspect
import json
import math
import os
import pathlib
import pkgutil
import platform
import random
import statistics
import struct
import subprocess
import sys
import time
import warnings

MAX_TOKENS = 512
# The batch sizes that are tried, in texts per batch.
SIZES = {"fastembed": (1, 2, 4, 8, 16, 32, 64, 128, 256), "float32": (1, 4, 8, 16, 32, 64), "bfloat16": (1, 8, 32)}
# Their defaults.
DEFAULTS = {"fastembed": 256, "float32": 32, "bfloat16": 32}
NAMES = {
    "ours": "this crate",
    "fastembed": "fastembed-rs",
    "float32": "sentence-transformers, float32",
    "bfloat16": "sentence-transformers, bfloat16",
}
# Cosine to sentence-transformers in float32, at least.
AGREES = {"ours": 0.9999, "fastembed": 0.9999, "float32": 0.9999, "bfloat16": 0.99}
TITLES = {"mixed": "Mixed documentation chunks", "queries": "Short queries", "repeated": "One repeated sentence"}
SENTENCE = "Ownership is a set of rules that govern how a Rust program manages memory."


# The texts.


class Page(html.parser.HTMLParser):
    """Collects the paragraphs of a page's main part."""

    BLOCKS = {"p", "pre", "li", "h1", "h2", "h3", "h4", "td", "th", "dt", "dd", "blockquote", "div"}
    LEFT_OUT = {"script", "style", "button", "svg", "nav"}

    def __init__(self):
        super().__init__()
        self.paragraphs, self.text, self.inside, self.out = [], [], False, 0

    def handle_starttag(self, tag, _):
        self.inside |= tag == "main"
        self.out += tag in self.LEFT_OUT
        if tag in self.BLOCKS:
            self.finish()

    def handle_endtag(self, tag):
        if tag in self.BLOCKS or tag == "main":
            self.finish()
        self.inside &= tag != "main"
        self.out -= tag in self.LEFT_OUT

    def handle_data(self, data):
        if self.inside and self.out <= 0:
            self.text.append(data)

    def finish(self):
        text = "".join(self.text).strip()
        self.text = []
        if text:
            self.paragraphs.append(text)


def pages_of_rust(docs):
    """Reads the books that come with the compiler: prose and code, as people index them."""
    for book in ("book", "reference", "nomicon", "cargo", "rustc", "rust-by-example", "edition-guide"):
        for path in sorted((docs / book).rglob("*.html")):
            # All pages of the book once more.
            if path.name not in ("print.html", "toc.html"):
                page = Page()
                page.feed(path.read_text(encoding="utf-8"))
                yield page.paragraphs


def pages_of_python():
    """Returns the text that pydoc shows: the documentation of modules, classes and functions of Python's library."""
    for name in sorted(module.name for module in pkgutil.iter_modules() if module.name in sys.stdlib_module_names):
        # These do something when they are imported.
        if name.startswith("_") or name in ("antigravity", "this", "idlelib"):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                module = importlib.import_module(name)
        except ImportError:
            continue
        seen, found, paragraphs = set(), [module], []
        while found:
            thing = found.pop(0)
            if id(thing) in seen or getattr(thing, "__module__", name) != name:
                continue
            seen.add(id(thing))
            if isinstance(thing.__doc__, str) and thing.__doc__.strip():
                parts = inspect.cleandoc(thing.__doc__).split("\n\n")
                paragraphs += [part.strip() for part in parts if part.strip()]
            if inspect.ismodule(thing) or inspect.isclass(thing):
                found += [inner for _, inner in sorted(vars(thing).items()) if callable(inner)]
        yield paragraphs


def make_texts(options, count):
    """Makes the corpora, always the same from the same documentation. `count` counts a text's tokens."""
    docs = pathlib.Path(options.docs) if options.docs else None
    if docs and (docs / "book").is_dir():
        source, pages = "the books that come with Rust's compiler", pages_of_rust(docs)
    else:
        source, pages = "the documentation in Python's library", pages_of_python()
    order = random.Random(20261123)
    pages = list(pages)
    order.shuffle(pages)
    chunks, sentences = {}, {}
    for paragraphs in pages:
        # Enough to choose from, without counting the tokens of everything.
        if len(chunks) >= 10 * options.mixed and len(sentences) >= 2 * options.queries:
            break
        chunk, wanted = [], 0
        for paragraph in paragraphs:
            words = paragraph.split()
            if 6 <= len(words) and paragraph[:1].isupper():
                # As people ask: mostly a few words, now and then many.
                length = max(2, round(7 * math.exp(order.gauss(0, 0.4))))
                sentences.setdefault(" ".join(words[:length]).rstrip(".,:;"))
            # Whole paragraphs up to a random length: most chunks have some 100 tokens, a few are short or long.
            wanted = wanted or 90 * math.exp(order.gauss(0, 0.8))
            chunk.append(paragraph)
            text = "\n\n".join(chunk)
            if count(text) >= min(wanted, 400):
                chunks.setdefault(text[:6000])
                chunk, wanted = [], 0
    mixed, queries = list(chunks), list(sentences)
    if len(mixed) < options.mixed or len(queries) < options.queries:
        sys.exit(f"{source}: {len(mixed)} chunks and {len(queries)} sentences, fewer than are wanted")
    corpora = {
        "mixed": order.sample(mixed, options.mixed),
        "queries": order.sample(queries, options.queries),
        "repeated": [SENTENCE] * options.repeated,
    }
    return source, corpora


# The model as a file of ONNX, which fastembed-rs needs.


def export(options):
    """Exports it once as optimum does: three inputs, `last_hidden_state`, any batch and length."""
    weights = (pathlib.Path(options.folder) / "model.safetensors").read_bytes()
    # The key covers this function's source, so that a change of it exports the model again.
    key = hashlib.sha256(weights + inspect.getsource(export).encode()).hexdigest()[:16]
    file = pathlib.Path(options.work) / f"model-{key}.onnx"
    if file.exists():
        return file
    import torch
    from transformers import BertModel
    from transformers.utils import logging

    print("exporting the model ...", file=sys.stderr)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertModel.from_pretrained(
                options.folder, add_pooling_layer=False, attn_implementation="eager", dtype=torch.float32
            )

        def forward(self, input_ids, attention_mask, token_type_ids):
            bert = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return bert.last_hidden_state

    ids = torch.arange(32).reshape(2, 16) + 1000
    names = ["input_ids", "attention_mask", "token_type_ids", "last_hidden_state"]
    for old in file.parent.glob("model-*.onnx"):
        old.unlink()
    part = file.with_suffix(".part")
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            Model().eval(),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            str(part),
            input_names=names[:3],
            output_names=names[3:],
            dynamic_axes={name: {0: "batch_size", 1: "sequence_length"} for name in names},
            opset_version=14,
            dynamo=False,
        )
    part.rename(file)
    return file


# sentence-transformers, in a process of its own.


def run_client(options):
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.client)
    model = SentenceTransformer(options.folder, device="cpu", model_kwargs={"dtype": dtype}, local_files_only=True)
    model.max_seq_length = options.max_tokens
    assert next(model.parameters()).dtype == dtype
    corpora = {}
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        corpus, setting, texts, *file = line.split()
        if corpus not in corpora:
            lines = (pathlib.Path(options.texts) / f"{corpus}.jsonl").read_text(encoding="utf-8").splitlines()
            corpora[corpus] = [json.loads(line) for line in lines]
        part = corpora[corpus][: int(texts)]
        size = {} if setting == "default" else {"batch_size": int(setting)}
        start = time.perf_counter()
        rows = model.encode(part, show_progress_bar=False, **size)
        seconds = time.perf_counter() - start
        assert len(rows) == len(part)
        if file:
            pathlib.Path(file[0]).write_bytes(rows.astype("<f4").tobytes())
        print(json.dumps({"texts": len(part), "seconds": seconds}), flush=True)


# The comparison.


class Side:
    """A process that has the model loaded and obeys lines."""

    def __init__(self, name, command, environment=()):
        self.name = name
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict(environment)},
        )
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{NAMES[self.name]} failed: exit code {self.process.wait()}")
        return json.loads(line)

    def run(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return self.answer()["seconds"]

    def end(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


@dataclasses.dataclass(frozen=True)
class Peer:
    """One row of a table."""

    side: str
    # Texts per batch, or "default".
    setting: str
    # The row's purpose; both if the default is the best.
    default: bool
    best: bool
    texts: int

    def __str__(self):
        size = DEFAULTS[self.side] if self.default else self.setting
        what = " and ".join(
            word for word, applies in (("with defaults", self.default), ("at its best", self.best)) if applies
        )
        return f"{NAMES[self.side]}, {what}: batches of {size}"


def search(options, side, corpus, texts):
    """Finds the best batch size of a side. The faster of two passes counts, so that one disturbance decides nothing."""
    # A first turn warms it up, and shows how many texts the search can afford.
    first = min(8, texts)
    side.run(corpus, 8, first)
    each = side.run(corpus, 8, first) / first
    # Batches larger than the number of texts show nothing, so short texts are all taken.
    part = max(first, min(texts, 64 if corpus == "mixed" else texts, int(options.search_seconds / each)))
    seconds, slower = {}, 0
    for pass_ in range(2):
        for size in SIZES[side.name]:
            # Two sizes that both hold all texts are the same.
            if size > part and any(part <= smaller < size for smaller in seconds):
                continue
            if pass_ == 1 and (size not in seconds or seconds[size] > 1.3 * min(seconds.values())):
                continue
            took = side.run(corpus, size, part)
            seconds[size] = min(took, seconds.get(size, took))
            # Two sizes in a row take twice as long: larger ones only get slower. A single one may have been disturbed.
            slower = slower + 1 if took > 2 * min(seconds.values()) else 0
            if slower == 2:
                break
    told = ", ".join(f"{size}: {part / took:.1f}" for size, took in seconds.items())
    print(f"{corpus}, {NAMES[side.name]}, {part} texts, texts/s by batch: {told}", file=sys.stderr)
    return min(seconds, key=seconds.get), part / min(seconds.values())


def peers_of(options, sides, corpus, texts):
    peers, speeds = [], {}
    for side in sides[1:]:
        best, speed = speeds[side.name] = search(options, side, corpus, texts)
        # A processor without instructions for bfloat16 is many times slower with it. Then its best is enough, with
        # fewer texts, and as few for this crate beside it.
        slow = side.name == "bfloat16" and speed < speeds["float32"][1] / 2
        part = min(texts, max(16, int(speed * options.slow_seconds))) if slow else texts
        same = best == DEFAULTS[side.name]
        if same or not slow:
            peers.append(Peer(side.name, "default", True, same, part))
        if not same:
            peers.append(Peer(side.name, str(best), False, True, part))
    return peers


def check(options, sides, corpus, texts):
    """Checks that all sides give the same vectors, by the least cosine of each to sentence-transformers in float32."""
    file = pathlib.Path(options.work) / "vectors"
    rows = {}
    for side in sides:
        # A slow side need not show it for all texts.
        some = texts if side.name != "bfloat16" else min(texts, 32)
        side.run(corpus, "default" if side.name == "ours" else 8, some, file)
        data = file.read_bytes()
        width = len(data) // 4 // some
        rows[side.name] = list(struct.iter_unpack(f"<{width}f", data))
    file.unlink()
    told = []
    for name, vectors in rows.items():
        least = min(cosine(one, other) for one, other in zip(vectors, rows["float32"]))
        if not least >= AGREES[name]:
            sys.exit(f"{corpus}: vectors of {NAMES[name]} are not those of the others: cosine {least:.6f}")
        if name != "float32":
            told.append(f"{NAMES[name]} {least:.6f}")
    print(f"Least cosine to {NAMES['float32']}: {', '.join(told)}.\n")


def cosine(one, other):
    dot = math.fsum(a * b for a, b in zip(one, other))
    return dot / math.sqrt(math.fsum(a * a for a in one) * math.fsum(b * b for b in other))


def measure(options, sides, corpus, peers):
    """Returns for each peer its seconds and, in the same order, this crate's beside it."""
    by_name = {side.name: side for side in sides}
    pairs = {peer: [] for peer in peers}
    # Two peers share a turn of this crate that lies between them, if they have the same texts.
    groups = []
    for peer in peers:
        if groups and len(groups[-1]) == 1 and groups[-1][0].texts == peer.texts:
            groups[-1].append(peer)
        else:
            groups.append([peer])
    for round_ in range(options.rounds):
        # The first of a round is the last of the next.
        turn = 1 if round_ % 2 == 0 else -1
        for group in groups[::turn]:
            run = {}
            for what in ([group[0], None, *group[1:]])[::turn]:
                if what is None:
                    run[None] = by_name["ours"].run(corpus, "default", group[0].texts)
                else:
                    run[what] = by_name[what.side].run(corpus, what.setting, what.texts)
            for peer in group:
                pairs[peer].append((run[peer], run[None]))
        told = ", ".join(f"{taken[-1][0] / taken[-1][1]:.2f}" for taken in pairs.values())
        print(f"{corpus}, round {round_ + 1} of {options.rounds}, ratios: {told}", file=sys.stderr)
    return pairs


def tell(pairs, tokens, names):
    rows = [["", "texts", "seconds", "from ... to", "texts/s", "tokens/s", "ratio", "from ... to"]]
    full = max(peer.texts for peer in pairs)

    def row(name, texts, seconds, ratios):
        middle = statistics.median(seconds)
        rows.append(
            [
                name,
                str(texts),
                f"{middle:.2f}",
                f"{min(seconds):.2f} ... {max(seconds):.2f}",
                f"{texts / middle:.1f}",
                f"{sum(tokens[:texts]) / middle:,.0f}",
                f"{statistics.median(ratios):.2f}" if ratios else "",
                f"{min(ratios):.2f} ... {max(ratios):.2f}" if ratios else "",
            ]
        )

    ours = [mine for peer, taken in pairs.items() if peer.texts == full for _, mine in taken]
    row(names, full, ours, [])
    for peer, taken in pairs.items():
        row(str(peer), peer.texts, [theirs for theirs, _ in taken], [theirs / mine for theirs, mine in taken])
    table(rows)


def table(rows):
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            lines = ["-" * (widths[0] + 2), *(f"{'-' * (width + 1)}:" for width in widths[1:])]
            print(f"|{'|'.join(lines)}|")


def judge(results):
    """Prints the targets beside the results."""

    def ratio(corpus, side, which):
        taken = [pairs for peer, pairs in results[corpus].items() if peer.side == side and getattr(peer, which)]
        return statistics.median(theirs / mine for theirs, mine in taken[0])

    def least(corpus, *names):
        return min(ratio(corpus, name, "best") for name in names)

    rows = [["this crate against", "found", "wanted"]]
    for corpus, name, found, wanted in (
        ("mixed", "fastembed-rs with defaults", ratio("mixed", "fastembed", "default"), "5, aim 7"),
        ("mixed", "fastembed-rs at its best", ratio("mixed", "fastembed", "best"), "0.97, aim 1.2"),
        ("mixed", "sentence-transformers float32 at its best", least("mixed", "float32"), "1.4"),
        ("queries", "fastembed-rs with defaults", ratio("queries", "fastembed", "default"), "5"),
        ("queries", "fastembed-rs at its best", ratio("queries", "fastembed", "best"), "1.05"),
        ("repeated", "the best of all in float32", least("repeated", "fastembed", "float32"), "0.97"),
    ):
        rows.append([f"{TITLES[corpus].lower()}: {name}", f"{found:.2f}", wanted])
    print("\n### What is wanted\n")
    table(rows)


def run_all(options):
    import sentence_transformers
    import tokenizers
    import torch
    import transformers

    began = time.monotonic()
    load = os.getloadavg()[0]
    # The same cores for all, so that a side with one thread per core has as many as a side that is given a number.
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < options.threads:
        sys.exit(f"there are {len(cores)} cores, but --threads asks for {options.threads}")
    os.sched_setaffinity(0, cores[: options.threads])
    work = pathlib.Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers.Tokenizer.from_file(str(pathlib.Path(options.folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def count(text):
        return len(tokenizer.encode(text).ids)

    source, corpora = make_texts(options, count)
    for name, texts in corpora.items():
        lines = "".join(f"{json.dumps(text)}\n" for text in texts)
        (work / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    onnx = export(options)
    common = ["--folder", options.folder, "--texts", work, "--max-tokens", options.max_tokens]
    client = [sys.executable, __file__, "--threads", options.threads, *common, "--client"]
    quiet = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error"}
    library = {"ORT_DYLIB_PATH": options.library}
    # Each side takes its default, which is one thread for each of the cores above; torch is given a number.
    sides = [
        Side("ours", [options.ours, *common], library),
        Side("fastembed", [options.fastembed, *common, "--onnx", onnx], library),
        Side("float32", [*client, "float32"], quiet),
        Side("bfloat16", [*client, "bfloat16"], quiet),
    ]
    if sides[0].about.get("threads", options.threads) != options.threads:
        sys.exit(f"this crate took {sides[0].about['threads']} threads on {options.threads} cores")
    print(
        f"{pathlib.Path(options.folder).name} in fp32 from the same weights, texts truncated at {options.max_tokens} "
        f"tokens, {options.threads} threads each on the same {options.threads} cores; ONNX Runtime "
        f"{sides[0].about.get('library', 'of the file given')} for both, fastembed-rs {options.fastembed_version}, "
        f"sentence-transformers {sentence_transformers.__version__} with torch {torch.__version__} and transformers "
        f"{transformers.__version__}, Python {platform.python_version()}. {options.rounds} rounds, medians. A ratio is "
        f"a peer's seconds divided by this crate's beside it, the median of {options.rounds} pairs. Texts from "
        f"{source}. Load of the machine before: {load:.1f}."
    )
    results = {}
    for corpus, texts in corpora.items():
        tokens = [min(count(text), options.max_tokens) for text in texts]
        print(
            f"\n### {TITLES[corpus]}\n\n{len(texts)} texts of {min(tokens)} to {max(tokens)} tokens, median "
            f"{statistics.median(tokens):.0f}, mean {statistics.mean(tokens):.0f}."
        )
        peers = peers_of(options, sides, corpus, len(texts))
        check(options, sides, corpus, len(texts))
        results[corpus] = measure(options, sides, corpus, peers)
        tell(results[corpus], tokens, f"{NAMES['ours']}, with defaults")
    judge(results)
    for side in sides:
        side.end()
    print(f"\nAll of it took {(time.monotonic() - began) / 60:.0f} minutes.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", help="this crate's program")
    parser.add_argument("--fastembed", help="fastembed-rs's program")
    parser.add_argument("--fastembed-version", default="", help="for the report")
    parser.add_argument("--folder", required=True, help="the model, as sentence-transformers saves it")
    parser.add_argument("--library", help="ONNX Runtime's file")
    parser.add_argument("--work", help="the folder for the texts and the exported model")
    parser.add_argument("--docs", help="the documentation of Rust, as HTML; without, Python's is taken")
    parser.add_argument("--quick", action="store_true", help="fewer texts and rounds: to see that all works")
    parser.add_argument("--rounds", type=int, help="default 7")
    parser.add_argument("--mixed", type=int, help="chunks, default 200")
    parser.add_argument("--queries", type=int, help="default 300")
    parser.add_argument("--repeated", type=int, help="copies of the sentence, default 300")
    parser.add_argument("--threads", type=int, default=2, help="number of threads and of cores; default 2")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help=f"default {MAX_TOKENS}")
    parser.add_argument("--search-seconds", type=float, default=3, help="of one try of a batch size, about; default 3")
    parser.add_argument("--slow-seconds", type=float, default=4, help="of a turn of a slow bfloat16; default 4")
    parser.add_argument("--client", choices=["float32", "bfloat16"], help="obey lines with this one")
    parser.add_argument("--texts", help="the folder with the texts; with --client")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 7)
    options.mixed = options.mixed or (24 if options.quick else 200)
    options.queries = options.queries or (64 if options.quick else 300)
    options.repeated = options.repeated or (64 if options.quick else 300)
    if options.client:
        run_client(options)
    elif options.ours and options.fastembed and options.library and options.work:
        run_all(options)
    else:
        parser.error("--ours, --fastembed, --library and --work, or --client")


if __name__ == "__main__":
    main()
