"""Makes the golden vectors: what sentence-transformers itself computes, on the CPU, for texts and tiny models.

Usage: python make_golden.py --model ../../assets/all-MiniLM-L6-v2 [--only all-MiniLM-L6-v2|tiny]
"""

import argparse
import datetime
import hashlib
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"      # nothing here comes from a network
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import sentence_transformers
import tokenizers
import torch
import transformers
from sentence_transformers import SentenceTransformer

from golden_texts import golden_texts
from tiny_models import check_tokens, make_tiny_models

HERE = Path(__file__).resolve().parent
VERSIONS = {"sentence-transformers": sentence_transformers.__version__, "transformers": transformers.__version__,
            "torch": torch.__version__.split("+")[0], "tokenizers": tokenizers.__version__}


def sha256_of(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_texts(path, texts):
    lines = [json.dumps({"id": name, "text": text}, ensure_ascii=True) for name, text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def make_vectors(source, target, date):
    """The vectors of a real model for all golden texts."""
    model = SentenceTransformer(str(source), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})

    def count_tokens(text):
        return len(model.tokenizer(text, truncation=False)["input_ids"])

    texts = golden_texts(count_tokens)
    check_tokens(source.name, source, model, [text for _, text in texts])
    target.mkdir(parents=True, exist_ok=True)
    write_texts(target / "texts.jsonl", texts)
    vectors = model.encode([text for _, text in texts], batch_size=1, show_progress_bar=False)
    vectors = np.ascontiguousarray(vectors, dtype="<f4")
    assert np.isfinite(vectors).all() and vectors.shape == (len(texts), 384)
    np.save(target / "vectors.npy", vectors)
    meta = {"model": source.name, "date": date, "versions": VERSIONS,
            "model_sha256": sha256_of(source / "model.safetensors"),
            "max_seq_length": model.max_seq_length, "dimension": vectors.shape[1],
            "computed_in": "float32, one text at a time",
            "tokens": [count_tokens(text) for _, text in texts]}
    (target / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    print(f"{source.name}: {len(texts)} texts, texts.jsonl {(target / 'texts.jsonl').stat().st_size / 1024:.0f} KiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", choices=["all-MiniLM-L6-v2", "tiny"])
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    if options.only != "tiny":
        make_vectors(options.model.resolve(), HERE / "all-MiniLM-L6-v2", date)
    if options.only != "all-MiniLM-L6-v2":
        make_tiny_models(HERE / "tiny", VERSIONS, date, write_texts, sha256_of)


if __name__ == "__main__":
    main()
