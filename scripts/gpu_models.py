"""Writes models of random weights in the shapes of known ones, as sentence-transformers saves them.

Speed does not depend on the values of weights, and neither does the question whether two programs compute the same. So
a machine without a network needs no weights of these models, only a tokenizer.
"""

import array
import json
import os
import pathlib
import random
import shutil

# hidden size, layers, heads, inner size; vocabulary, positions, family, pooling.
SHAPES = {
    "bge-base": (768, 12, 12, 3072, 30522, 512, "bert", "cls"),
    "bge-large": (1024, 24, 16, 4096, 30522, 512, "bert", "cls"),
    "bge-m3": (1024, 24, 16, 4096, 250002, 8194, "xlm-roberta", "cls"),
    "bge-base-mean": (768, 12, 12, 3072, 30522, 512, "bert", "mean"),
}
# The most tokens of a text in these models. (bge-m3 takes more; the checks need no more.)
MAX_TOKENS = 512
# Numbers that are drawn; a tensor takes them from a random place on, again and again.
DRAWN = 1 << 20


def small(shape):
    """Returns a shape of the same kind that a CPU can run in a moment."""
    hidden, layers, heads, inner, vocabulary, positions, family, pooling = shape
    return hidden // 8, min(layers, 2), heads // 4, inner // 8, min(vocabulary, 31000), positions, family, pooling


def names_and_sizes(shape):
    """Lists the tensors: name, sizes, and the range of the values. A range of 0 means all ones, None all zeros."""
    hidden, layers, _, inner, vocabulary, positions, family, _ = shape
    types = 1 if family == "xlm-roberta" else 2

    def norm(name):
        return [(f"{name}.weight", [hidden], 0), (f"{name}.bias", [hidden], None)]

    def dense(name, outputs, inputs):
        return [(f"{name}.weight", [outputs, inputs], 0.08), (f"{name}.bias", [outputs], 0.02)]

    tensors = [
        ("embeddings.word_embeddings.weight", [vocabulary, hidden], 1.0),
        ("embeddings.position_embeddings.weight", [positions, hidden], 0.2),
        ("embeddings.token_type_embeddings.weight", [types, hidden], 0.2),
        *norm("embeddings.LayerNorm"),
    ]
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            tensors += dense(f"{at}.attention.self.{part}", hidden, hidden)
        tensors += dense(f"{at}.attention.output.dense", hidden, hidden) + norm(f"{at}.attention.output.LayerNorm")
        tensors += dense(f"{at}.intermediate.dense", inner, hidden) + dense(f"{at}.output.dense", hidden, inner)
        tensors += norm(f"{at}.output.LayerNorm")
    return tensors


class Numbers:
    """Draws values once for each range, and gives each tensor a part of them, as 16-bit brain floats."""

    def __init__(self, seed):
        self.random, self.drawn = random.Random(seed), {}

    def block(self, size):
        if size not in self.drawn:
            floats = array.array("f", (self.random.uniform(-size, size) for _ in range(DRAWN)))
            # The upper half of a 32-bit float is the brain float.
            self.drawn[size] = array.array("H", memoryview(floats.tobytes()).cast("H")[1::2].tolist()).tobytes()
        return self.drawn[size]

    def write(self, file, count, size):
        if not size:
            file.write((b"\0\0" if size is None else b"\x80\x3f") * count)
            return
        block, at, left = self.block(size), 2 * self.random.randrange(DRAWN), 2 * count
        while left:
            part = block[at : at + left]
            file.write(part)
            left, at = left - len(part), 0


def write_weights(path, shape):
    tensors, header, end = names_and_sizes(shape), {}, 0
    for name, sizes, _ in tensors:
        count = sizes[0] * (sizes[1] if len(sizes) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [end, end + 2 * count]}
        end += 2 * count
    header["__metadata__"] = {"format": "pt"}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = Numbers(20261128)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, sizes, size in tensors:
            start, after = header[name]["data_offsets"]
            numbers.write(file, (after - start) // 2, size)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def write_model(folder, shape, tokenizer):
    """Writes a model's folder, unless it is there. `tokenizer` is a `tokenizer.json` of BERT's kind."""
    hidden, layers, heads, inner, vocabulary, positions, family, pooling = shape
    folder = pathlib.Path(folder)
    if (folder / "done").exists():
        return folder
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    bert = family == "bert"
    config = {
        "architectures": ["BertModel" if bert else "XLMRobertaModel"],
        "model_type": family,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": 2 if bert else 1,
        "pad_token_id": 0 if bert else 1,
        "layer_norm_eps": 1e-12 if bert else 1e-5,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "torch_dtype": "bfloat16",
    }
    write_json(folder / "config.json", config)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    kinds = "sentence_transformers.models."
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": kinds + kind} for i, (path, kind) in enumerate(modules)],
    )
    modes = {"cls": "cls_token", "mean": "mean_tokens"}
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": hidden}
        | {f"pooling_mode_{mode}": mode == modes[pooling] for mode in ("cls_token", "mean_tokens", "max_tokens")},
    )
    (folder / "2_Normalize").mkdir(exist_ok=True)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    # The generic class takes `tokenizer.json` as it is. The padding must have the id of the configuration.
    tokens = {"unk": "[UNK]", "sep": "[SEP]", "cls": "[CLS]", "mask": "[MASK]", "pad": "[PAD]" if bert else "[unused0]"}
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_TOKENS}
        | {f"{name}_token": token for name, token in tokens.items()},
    )
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    write_weights(folder / "model.safetensors", shape)
    (folder / "done").touch()
    return folder


def words(tokenizer):
    """Returns words that are one token each."""
    vocabulary = json.loads(pathlib.Path(tokenizer).read_text(encoding="utf-8"))["model"]["vocab"]
    return sorted(word for word in vocabulary if len(word) > 3 and word.isascii() and word.isalpha() and word.islower())


def write_texts(path, known, lengths, seed):
    """Writes JSON lines with one text per length, which is in tokens, with the two special ones."""
    order = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for length in lengths:
            text = " ".join(order.choices(known, k=max(1, length - 2)))
            file.write(json.dumps({"text": text}) + os.linesep)


def mixed_lengths(count, seed):
    """Draws lengths like those of chunks of documentation: a median of about 120 tokens, and a long tail."""
    order = random.Random(seed)
    return [min(MAX_TOKENS, max(8, round(order.lognormvariate(4.8, 0.7)))) for _ in range(count)]
