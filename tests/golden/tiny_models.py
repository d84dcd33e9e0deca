"""Makes the tiny random sentence-transformers folders that exercise every way a model may be stored."""

import json
import shutil
import string
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (BertConfig, BertModel, DistilBertConfig, DistilBertModel, MPNetConfig, MPNetModel,
                          XLMRobertaConfig, XLMRobertaModel)

HIDDEN, POSITIONS = 16, 40

TEXTS = [
    ("word", "river"),
    ("query", "where is the old bridge?"),
    ("sentence", "The old bridge over the river was built from stone and timber, then painted green."),
    ("mixed-case", "HARBOUR Lights Are BRIGHT at NIGHT"),
    ("pieces", "unlocking repainted boathouses quickly"),
    ("numbers", "Pier 42 opens at 06:30, closes at 23:15!"),
    ("unicode", "CAFÉ Straße 海山 жизнь αβγ"),
    ("unknown", "☂ 漢 ☃"),
    ("blank", " \t\r\n \u3000\u00a0 "),
    ("special-tokens", "mind the [SEP] or [PAD], the <mask> and <pad> in a text"),
    ("over-limit",
     "The night train follows the river to the north, past the stone wall and the green garden, over the old bridge, "
     "and stops at the harbour before the sun is up; then the lights of the town go out, one by one, and the boats "
     "leave the pier with the first wind of the morning."),
    ("over-limit-repeated", "stone and water " * 30),
    ("control", "har\x00bour\u200b li\ufeffghts \u00ad"),
]

WORDS = ("the a an and or of to in on at is are was were be not no with from over under before after then for by as it "
         "find text query where what how old new green first last one two night day sun wind rain river stone water "
         "bridge harbour boat pier train town wall garden light road house timber north south morning follow stop go "
         "leave build built open close paint mind past out up quick lock bright end make read write file").split()
PIECES = "s ed ing er ly est ness house houses ing un re pre tion able ful less al ity out in on le en th an".split()
OTHERS = "é ß 海 山 ж и з н ь α β γ".split()


def vocabulary(special):
    tokens = list(special)
    tokens += list(string.ascii_lowercase) + list(string.digits) + list(".,:;!?'\"()-/#[]<>")
    tokens += WORDS + ["un", "re"]
    tokens += ["##" + piece for piece in list(string.ascii_lowercase) + list(string.digits) + PIECES]
    for other in OTHERS:
        tokens += [other, "##" + other]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def make_tokenizer(style, lowercase=True):
    """A WordPiece tokenizer; `style` says which special tokens there are and in which order."""
    special = {
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "xlm": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "mpnet": ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"],
    }[style]
    pad, unk, start, end = {"bert": (0, 1, 2, 3), "xlm": (1, 3, 0, 2), "mpnet": (1, 3, 0, 2)}[style]
    tokenizer = Tokenizer(models.WordPiece(vocabulary(special), unk_token=special[unk]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special[start]} $A {special[end]}", pair=f"{special[start]} $A {special[end]} $B:1 {special[end]}:1",
        special_tokens=[(special[start], start), (special[end], end)])
    tokenizer.add_special_tokens(special)
    names = {"unk_token": special[unk], "pad_token": special[pad], "cls_token": special[start],
             "sep_token": special[end], "mask_token": special[4]}
    if style == "mpnet":
        names.update(bos_token=special[start], eos_token=special[end])
    return tokenizer, names


def fill(model, seed):
    """Sets all weights by chance, so large that no two texts come out alike."""
    chance = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = chance.standard_normal(tuple(parameter.shape), dtype=np.float32)
            if "LayerNorm.weight" in name or "layer_norm.weight" in name:
                values = 1 + 0.3 * values
            elif parameter.dim() == 1:
                values *= 0.2
            elif "embeddings" not in name:
                values *= 0.4
            parameter.copy_(torch.from_numpy(values))
    return model.eval()


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


def bert(seed, **options):
    tokens = len(make_tokenizer("bert")[0].get_vocab())
    settings = dict(vocab_size=tokens, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=32, max_position_embeddings=POSITIONS, pad_token_id=0)
    return fill(BertModel(BertConfig(**{**settings, **options})), seed)


def saved_by_library(folder, model, tokenizer_style, modules, tokenizer_class=None, max_length=512, edit=None, **options):
    """Writes the folder as this version of sentence-transformers does."""
    with tempfile.TemporaryDirectory() as plain:
        plain = Path(plain)
        model.save_pretrained(plain)
        tokenizer, names = make_tokenizer(tokenizer_style)
        tokenizer.save(str(plain / "tokenizer.json"), pretty=False)
        write_json(plain / "tokenizer_config.json",
                   {**names, "tokenizer_class": tokenizer_class or "PreTrainedTokenizerFast",
                    "model_max_length": max_length,
                    **({"model_input_names": ["input_ids", "attention_mask"]} if tokenizer_style == "mpnet" else {})})
        chain = [Transformer(str(plain)), *modules]
        SentenceTransformer(modules=chain, device="cpu", **options).save(str(folder), create_model_card=False)
    if edit:
        edit(folder)


def written_by_hand(folder, config, weights, tokenizer, tokenizer_config, **files):
    """Writes the folder in the form of older versions; `files`: further JSON files by path."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    for path, value in files.items():
        write_json(folder / path, value)


def old_config(model, architecture, **options):
    """config.json as transformers 4 wrote it."""
    config = model.config
    keys = ("attention_probs_dropout_prob hidden_act hidden_dropout_prob hidden_size initializer_range "
            "intermediate_size layer_norm_eps max_position_embeddings model_type num_attention_heads "
            "num_hidden_layers pad_token_id type_vocab_size vocab_size").split()
    return {"architectures": [architecture], **{key: getattr(config, key) for key in keys},
            "position_embedding_type": "absolute", "transformers_version": "4.40.0", "use_cache": True, **options}


def old_modules(*kinds):
    paths = [""] + [f"{number}_{kind}" for number, kind in enumerate(kinds) if number]
    return [{"idx": number, "name": str(number), "path": paths[number], "type": f"sentence_transformers.models.{kind}"}
            for number, kind in enumerate(kinds)]


def old_pooling(**modes):
    keys = ("cls_token mean_tokens max_tokens mean_sqrt_len_tokens weightedmean_tokens lasttoken").split()
    return {"word_embedding_dimension": HIDDEN, **{f"pooling_mode_{key}": modes.get(key, False) for key in keys}}


OLD_VERSIONS = {"__version__": {"sentence_transformers": "2.2.2", "transformers": "4.40.0", "pytorch": "2.1.0"}}


def bert_cls(folder, seed):
    saved_by_library(folder, bert(seed), "bert", [Pooling(HIDDEN, "cls"), Normalize()], "BertTokenizer")


def dense_layer(seed, inputs, outputs, bias, activation):
    chance = np.random.default_rng(seed)
    layer = Dense(inputs, outputs, bias=bias, activation_function=activation)
    with torch.no_grad():
        for parameter in layer.parameters():
            spread = 0.8 if parameter.dim() == 2 else 0.3
            values = spread * chance.standard_normal(tuple(parameter.shape), dtype=np.float32)
            parameter.copy_(torch.from_numpy(values))
    return layer


def bert_dense(folder, seed):
    saved_by_library(folder, bert(seed, num_attention_heads=4), "bert",
                     [Pooling(HIDDEN, "mean"), dense_layer(seed + 1, HIDDEN, 24, True, torch.nn.Tanh()),
                      dense_layer(seed + 2, 24, 8, False, torch.nn.Identity()), Normalize()], "BertTokenizer")


def bert_multi(folder, seed):
    model = bert(seed, layer_norm_eps=1e-3)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    weights["embeddings.position_ids"] = torch.arange(POSITIONS).unsqueeze(0)      # older files carry this buffer
    tokenizer, names = make_tokenizer("bert")
    every = {key: True for key in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens",
                                   "weightedmean_tokens", "lasttoken")}
    written_by_hand(folder, old_config(model, "BertModel"), weights, tokenizer,
                    {**names, "do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True,
                     "model_max_length": 512, "tokenizer_class": "BertTokenizer"}, **{
                        "special_tokens_map.json": names,
                        "modules.json": old_modules("Transformer", "Pooling"),
                        "sentence_bert_config.json": {"max_seq_length": 28, "do_lower_case": False},
                        "config_sentence_transformers.json": OLD_VERSIONS,
                        "1_Pooling/config.json": old_pooling(**every)})


def bert_prompts(folder, seed):
    saved_by_library(folder, bert(seed), "bert", [Pooling(HIDDEN, "mean", include_prompt=False), Normalize()],
                     "BertTokenizer", prompts={"query": "find: ", "document": "text: "})


def bert_prompts_multi(folder, seed):
    pooling = Pooling(HIDDEN, ("mean", "cls", "weightedmean", "max"), include_prompt=False)
    saved_by_library(folder, bert(seed), "bert", [pooling], "BertTokenizer", prompts={"query": "find: ", "passage": "text: "})


def bert_lower(folder, seed):
    model = bert(seed, hidden_act="relu")
    weights = {f"bert.{name}": tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()
               if not name.startswith("pooler.")}
    weights["cls.predictions.bias"] = torch.zeros(model.config.vocab_size, dtype=torch.float16)
    tokenizer, names = make_tokenizer("bert", lowercase=False)
    written_by_hand(folder, old_config(model, "BertForMaskedLM", torch_dtype="float16"), weights, tokenizer,
                    {**names, "do_lower_case": False, "model_max_length": 32, "tokenizer_class": "BertTokenizer"}, **{
                        "modules.json": old_modules("Transformer", "Pooling", "Normalize"),
                        "sentence_bert_config.json": {"max_seq_length": None, "do_lower_case": True},
                        "1_Pooling/config.json": old_pooling(mean_tokens=True)})


def bert_tanh(folder, seed):
    model = bert(seed, hidden_act="gelu_new", type_vocab_size=2)
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    tokenizer, names = make_tokenizer("bert")
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=8, pad_id=0, pad_token="[PAD]")
    written_by_hand(folder, old_config(model, "BertModel", torch_dtype="bfloat16"), weights, tokenizer,
                    {**names, "do_lower_case": True, "model_max_length": 1000000000000000019884624838656,
                     "tokenizer_class": "BertTokenizer"})


def xlm_roberta(folder, seed):
    tokens = len(make_tokenizer("xlm")[0].get_vocab())
    config = XLMRobertaConfig(
        vocab_size=tokens, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=POSITIONS + 2, type_vocab_size=1, layer_norm_eps=1e-5,
        pad_token_id=1, bos_token_id=0, eos_token_id=2)
    saved_by_library(folder, fill(XLMRobertaModel(config), seed), "xlm", [Pooling(HIDDEN, "mean"), Normalize()],
                     max_length=POSITIONS)


def mpnet(folder, seed):
    tokens = len(make_tokenizer("mpnet")[0].get_vocab())
    config = MPNetConfig(
        vocab_size=tokens, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=POSITIONS + 2, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    saved_by_library(folder, fill(MPNetModel(config), seed), "mpnet", [Pooling(HIDDEN, "mean"), Normalize()],
                     "MPNetTokenizer", max_length=POSITIONS)


def bert_truncate(folder, seed):
    saved_by_library(folder, bert(seed), "bert", [Pooling(HIDDEN, "mean"), Normalize()], "BertTokenizer",
                     max_length=24, truncate_dim=8)


def distilbert(folder, seed):
    tokens = len(make_tokenizer("bert")[0].get_vocab())
    config = DistilBertConfig(
        vocab_size=tokens, dim=HIDDEN, n_layers=2, n_heads=4, hidden_dim=32, max_position_embeddings=POSITIONS,
        pad_token_id=0)
    saved_by_library(folder, fill(DistilBertModel(config), seed), "bert", [Pooling(HIDDEN, "mean"), Normalize()],
                     max_length=POSITIONS)


# name -> (how it is made, what it is for, where its maximum length is found)
CASES = {
    "bert-cls": (bert_cls, "the file dialect of sentence-transformers 5.4 and newer; cls pooling; normalised",
                 "tokenizer_config.json, which the library wrote with the number of positions as the limit"),
    "bert-dense": (bert_dense, "two Dense modules after mean pooling: Tanh with bias, Identity without; normalised",
                   "tokenizer_config.json, which the library wrote with the number of positions as the limit"),
    "bert-multi": (bert_multi, "the older file dialect; all six pooling modes at once; not normalised; "
                   "layer_norm_eps 1e-3; a position_ids buffer among the weights",
                   "max_seq_length of sentence_bert_config.json, over tokenizer_config.json and the positions"),
    "bert-prompts": (bert_prompts, "prompts that are left out of mean pooling (include_prompt false); normalised",
                     "tokenizer_config.json, which the library wrote with the number of positions as the limit"),
    "bert-prompts-multi": (bert_prompts_multi, "several poolings in another order than the usual one, all without the prompt's "
                           "tokens; a passage prompt, which encode_document does not take up; not normalised",
                           "tokenizer_config.json, which the library wrote with the number of positions as the limit"),
    "bert-lower": (bert_lower, "do_lower_case of sentence_bert_config.json over a tokenizer that keeps case; relu; "
                   "weights in float16 whose names begin with 'bert.', no pooler, one weight that is not used; normalised",
                   "tokenizer_config.json, as max_seq_length is null and there are more positions"),
    "bert-tanh": (bert_tanh, "a plain transformers folder without modules.json (mean pooling, not normalised); gelu_new; "
                  "weights in bfloat16; tokenizer.json with truncation and padding to 8, which do not count",
                  "max_position_embeddings, as tokenizer_config.json has no real limit"),
    "xlm-roberta": (xlm_roberta, "positions that begin after the padding id; one token type; mean; normalised",
                    "tokenizer_config.json; two less than max_position_embeddings"),
    "mpnet": (mpnet, "relative attention bias, no token types; positions after the padding id; mean; normalised",
              "tokenizer_config.json; two less than max_position_embeddings"),
    "bert-truncate": (bert_truncate, "truncate_dim of config_sentence_transformers.json, applied after Normalize, so that "
                      "the vectors do not have unit length", "tokenizer_config.json"),
    "distilbert": (distilbert, "DistilBertModel: no token types, other names for all settings and weights; mean; normalised",
                   "tokenizer_config.json"),
}


def encode(model, which, texts):
    function = model.encode_query if which == "query" else model.encode_document
    return np.ascontiguousarray(function(texts, batch_size=1, show_progress_bar=False), dtype="<f4")


def check_vectors(name, vectors):
    assert np.isfinite(vectors).all(), name
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T - np.eye(len(unit), dtype=np.float32)
    assert alike.max() < 0.999, (name, np.unravel_index(alike.argmax(), alike.shape), alike.max())


def check_tokens(name, folder, model, texts):
    """The library's tokens must be those of tokenizer.json: some of its tokenizer classes do not read all of it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=model.max_seq_length)
    if model[0].do_lower_case:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), tokenizer.normalizer])
    for text in texts:
        ids = model.preprocess([text])["input_ids"][0].tolist()
        assert ids == tokenizer.encode(text).ids, (name, text)


def make_tiny_models(target, versions, date, write_texts, sha256_of):
    """Makes all folders below `target`, with the vectors that the library gives for them."""
    making = target.with_name(target.name + ".new")     # so that a run that fails leaves the old ones whole
    shutil.rmtree(making, ignore_errors=True)
    ids, texts = [name for name, _ in TEXTS], [text for _, text in TEXTS]
    for name, (make, purpose, length_from) in CASES.items():
        folder = making / name
        seed = zlib.crc32(name.encode())
        make(folder, seed)
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True,
                                    model_kwargs={"dtype": torch.float32})
        check_tokens(name, folder, model, texts)
        write_texts(folder / "texts.jsonl", TEXTS)
        meta = {"case": name, "purpose": purpose, "date": date, "versions": versions, "seed": seed,
                "model_sha256": sha256_of(folder / "model.safetensors"),
                "modules": [type(module).__name__ for module in model],
                "pooling": next(module.pooling_mode for module in model if isinstance(module, Pooling)),
                "max_seq_length": model.max_seq_length, "max_seq_length_from": length_from,
                "truncate_dim": model.truncate_dim,
                "prompts": model.prompts, "default_prompt_name": model.default_prompt_name,
                "computed_in": "float32, one text at a time"}
        sets = {which: encode(model, which, texts) for which in ("document", "query")}
        meta["dimension"] = sets["document"].shape[1]
        meta["unit_length"] = all(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) for vectors in sets.values())
        for which, vectors in sets.items():
            check_vectors(name, vectors)
            np.save(folder / {"document": "documents.npy", "query": "queries.npy"}[which], vectors)
            counts = [len(model.tokenizer(model.prompts[which] + text, truncation=False)["input_ids"]) for text in texts]
            meta[which] = {"prompt": model.prompts[which], "tokens": counts,
                           "truncated": [id for id, count in zip(ids, counts) if count > model.max_seq_length]}
        write_json(folder / "meta.json", meta)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{name:<18} max {model.max_seq_length:>3}  dim {meta['dimension']:>3}  {size / 1024:6.1f} KiB")
        assert size < 120 * 1024, name
    shutil.rmtree(target, ignore_errors=True)
    making.rename(target)
