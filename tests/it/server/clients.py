"""Asks the embedding service through clients that nobody here wrote.

    python clients.py BASE_URL MODEL CASE    runs one case; BASE_URL has no path, the names of the cases are in CASES
    python clients.py texts                  prints the texts: {"texts": [...], "long": ...}

scripts/fetch-clients makes the Python that has the clients. A case prints one JSON object:

    {"case": name, "vectors": {text: [numbers]}, "query_vectors": {text: [numbers]}, "notes": {...}}

or exits with 1 and says on stderr what is wrong. The texts in "vectors" were sent as documents, those in
"query_vectors" as queries. Whoever runs this compares the vectors with those of the library. Only clients that let the
server cut long texts send the long one. Where a client asks for the same text in several ways, the case compares the
vectors itself.

Every client sends `Authorization: Bearer sk-test`. No case may reach anything but BASE_URL: whatever tries is refused
and fails the case.
"""

import asyncio
import base64
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import socket
import struct
import sys
import traceback
import urllib.parse

KEY = "sk-test"
TIMEOUT = 60
# The largest difference between two vectors of one text, per component. The texts lie in different batches, and numbers
# in base64 have fewer digits than those in JSON.
TOLERANCE = 1e-5

# No text begins or ends with a blank or holds a line break: LangChain and LlamaIndex change these before they send.
TEXTS = [
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "How do I read a file line by line?",
    "fn main() { println!(\"{}\\n\", 'x' as u8 & 0x7f); }",
    "Grüße aus Köln: die Straßenbahn fährt über die Brücke nach Deutz.",
    "Zażółć gęślą jaźń, a potem wróć do źródła.",
    "東京の天気は晴れ、気温は二十度です。",
    "向量数据库存储文本的嵌入。",
    "Поиск по документации без сети",
    "مرحبا بالعالم",
    "Ship it 🚀 with the family 👨‍👩‍👧‍👦 and the flag 🇩🇪",
    "cafe\u0301 is not café, and <|endoftext|> is plain text\there",
]
WORDS = "river stone cloud paper window garden letter summer engine market silver island winter bridge candle".split()
# Longer than the model takes.
LONG = " ".join(WORDS[(index * 3 + index // 14) % len(WORDS)] for index in range(2000))
QUERIES = TEXTS[1:4]
# A text that no message may repeat.
SECRET = "Zebrafinch 4711 sings at dawn"

# Set by main().
BASE = MODEL = ""
# Addresses that a client tried to reach although it must not.
STRAYS: list[str] = []


class Wrong(Exception):
    """The service, or a client, did not do what the case wants."""


def require(condition, message: str) -> None:
    if not condition:
        raise Wrong(message)


# ---- nothing but the service -----------------------------------------------------------------------------------------


def set_environment(case: str) -> None:
    """Must run before the clients are imported: they read these variables then."""
    own = ("OPENAI_", "AZURE_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_", "LLAMA_", "HF_", "HUGGING")
    for name in list(os.environ):
        if name.upper().startswith(own) or name.lower().endswith("_proxy"):
            del os.environ[name]
    # huggingface_hub refuses every request while it is offline, those to the service too. Without its telemetry it asks
    # no hub by itself.
    offline = case not in ("huggingface-hub", "langchain-tei")
    os.environ.update(
        NO_PROXY="*",
        no_proxy="*",
        DO_NOT_TRACK="1",
        ANONYMIZED_TELEMETRY="false",
        HF_HUB_OFFLINE="1" if offline else "0",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_IMPLICIT_TOKEN="1",
        HF_HUB_DISABLE_UPDATE_CHECK="1",
        LANGCHAIN_TRACING_V2="false",
        LANGSMITH_TRACING="false",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOCAL_BLOG_POSTS="True",
        LITELLM_OFFLINE_MODE="true",
        LITELLM_TELEMETRY="False",
    )
    # tiktoken looks for the vocabulary cl100k in this folder. The name of the file is the SHA-1 of the address that it
    # would be fetched from: 9b5ad71b2ce5302211f9c61530b329a4922fc6a4. LiteLLM brings the file along, with the SHA-256
    # that tiktoken wants. So the caller needs to set nothing, and may set another folder.
    litellm = importlib.util.find_spec("litellm")
    if litellm and "TIKTOKEN_CACHE_DIR" not in os.environ:
        (folder,) = litellm.submodule_search_locations
        os.environ["TIKTOKEN_CACHE_DIR"] = os.path.join(folder, "litellm_core_utils", "tokenizers")


def close_the_network() -> None:
    """Refuses connections and names beside those of BASE_URL, and remembers them: telemetry swallows its errors."""
    url = urllib.parse.urlsplit(BASE)
    port = url.port or 80
    known = {found[4][:2] for found in socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)}
    hosts = {url.hostname} | {host for host, _ in known}

    def watch(event: str, arguments: tuple) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            target = arguments[1]
            # Sockets of Unix have names, not addresses.
            stray = isinstance(target, tuple) and tuple(target[:2]) not in known
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            target = arguments[0]
            name = target.decode() if isinstance(target, bytes) else target
            stray = name is not None and name not in hosts
        else:
            return
        if stray:
            STRAYS.append(f"{event} {target}")
            raise OSError(f"this case may not reach {target}")

    sys.addaudithook(watch)


# ---- what the cases have in common -----------------------------------------------------------------------------------


def same(what: str, left: list[list[float]], right: list[list[float]]) -> None:
    """Fails unless two lists of vectors are alike."""
    require(len(left) == len(right), f"{what}: {len(left)} and {len(right)} vectors")
    for index, (one, other) in enumerate(zip(left, right)):
        require(len(one) == len(other), f"{what}: vector {index} has {len(one)} and {len(other)} components")
        apart = max(abs(a - b) for a, b in zip(one, other))
        require(apart <= TOLERANCE, f"{what}: vector {index} differs by {apart}")


def by_text(texts: list[str], vectors: list[list[float]]) -> dict[str, list[float]]:
    require(len(texts) == len(vectors), f"{len(vectors)} vectors for {len(texts)} texts")
    lengths = {len(vector) for vector in vectors}
    require(len(lengths) == 1 and 0 not in lengths, f"the vectors have these numbers of components: {sorted(lengths)}")
    return {text: [float(number) for number in vector] for text, vector in zip(texts, vectors)}


def versions(*packages: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}


def answer(vectors: dict, queries: dict | None = None, **notes) -> dict:
    return {"vectors": vectors, **({"query_vectors": queries} if queries else {}), "notes": notes}


def sum_up(error: Exception) -> dict:
    """What an error of OpenAI's client says."""
    found = {name: getattr(error, name) for name in ("status_code", "code", "type", "param", "message")}
    return {"error": type(error).__name__, **found}


def refused(what: str, kind: type[Exception], call) -> dict:
    """Runs a call that must fail with this error of OpenAI's client, and looks for the text in what it says."""
    try:
        call()
    except kind as error:
        told = f"{error} {error.message} {error.response.text}"
        require(SECRET not in told and LONG[:40] not in told, f"{what}: the message repeats the text")
        require(error.request_id, f"{what}: the reply has no x-request-id")
        require(error.type, f"{what}: the error has no type")
        return sum_up(error)
    raise Wrong(f"{what}: the service answers, {kind.__name__} is expected")


def check_type(value) -> None:
    """Fails unless an object of OpenAI's client has all fields that its type needs, no other, and right values."""
    raw = json.loads(value.to_json(exclude_unset=True))
    fields = type(value).model_fields
    needed = {name for name, field in fields.items() if field.is_required()}
    require(needed <= set(raw) <= set(fields), f"{type(value).__name__} has the fields {sorted(raw)}")
    type(value).model_validate(raw)


def rows(reply) -> list[list[float]]:
    """The vectors of a reply to OpenAI's client."""
    check_type(reply)
    check_type(reply.usage)
    for row in reply.data:
        check_type(row)
    order = [row.index for row in reply.data]
    require(order == list(range(len(order))), f"the rows are not in the order of the texts: {order}")
    require(reply.usage.prompt_tokens == reply.usage.total_tokens > 0, f"the usage is {reply.usage}")
    return [row.embedding for row in reply.data]


# ---- OpenAI's own client ---------------------------------------------------------------------------------------------


def options(**more) -> dict:
    return {"api_key": KEY, "base_url": f"{BASE}/v1", "max_retries": 0, "timeout": TIMEOUT, **more}


def openai_sync() -> dict:
    import openai

    client = openai.OpenAI(**options())
    reply = client.embeddings.create(model=MODEL, input=TEXTS)
    vectors = rows(reply)
    require(reply.model == MODEL, f"the reply names the model {reply.model}")
    floats = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float", user="somebody")
    same("floats and base64", rows(floats), vectors)
    one = client.embeddings.create(model=MODEL, input=TEXTS[4])
    same("a text alone and in a list", rows(one), [vectors[4]])
    sized = client.embeddings.create(model=MODEL, input=TEXTS[4], dimensions=len(vectors[4]))
    same("with the dimension of the space", rows(sized), [vectors[4]])
    return answer(by_text(TEXTS, vectors), **versions("openai"), usage=reply.usage.to_dict())


def openai_async() -> dict:
    import openai

    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(**options()) as client:
            asked = [client.embeddings.create(model=MODEL, input=input) for input in [TEXTS, *TEXTS]]
            whole, *alone = [rows(reply) for reply in await asyncio.gather(*asked)]
            same("texts alone and in a list", [vector for (vector,) in alone], whole)
            return whole

    return answer(by_text(TEXTS, asyncio.run(ask())), **versions("openai"))


def openai_base64_default() -> dict:
    import openai

    asked: list[dict] = []
    hooks = {"request": [lambda request: asked.append(json.loads(request.content))]}
    client = openai.OpenAI(**options(http_client=openai.DefaultHttpxClient(event_hooks=hooks)))
    reply = client.embeddings.with_raw_response.create(model=MODEL, input=TEXTS)
    require(len(asked) == 1, f"the client made {len(asked)} requests")
    require(asked[0].get("encoding_format") == "base64", f"the client asked for {asked[0].get('encoding_format')}")
    vectors = rows(reply.parse())
    sent = [row["embedding"] for row in reply.http_response.json()["data"]]
    require(all(isinstance(row, str) for row in sent), "the rows on the wire are not base64")
    # Exactly the same numbers: the client must have read them as little-endian.
    unpacked = [list(struct.unpack(f"<{len(vectors[0])}f", base64.b64decode(row, validate=True))) for row in sent]
    require(unpacked == [list(vector) for vector in vectors], "the client read other numbers than the base64 holds")
    return answer(by_text(TEXTS, vectors), **versions("openai"))


def openai_models() -> dict:
    import openai

    client = openai.OpenAI(**options())
    listed = list(client.models.list())
    for model in listed:
        check_type(model)
    names = [model.id for model in listed]
    require(MODEL in names, f"the list of models has {names}, not {MODEL}")
    found = {}
    # The client escapes the slash of a name in the path.
    for name in (MODEL, f"{MODEL}:query", f"{MODEL}:document"):
        model = client.models.retrieve(name)
        check_type(model)
        found[name] = model.id
    require(found[MODEL] == MODEL, f"the model {MODEL} says that it is {found[MODEL]}")
    unknown = refused("an unknown model", openai.NotFoundError, lambda: client.models.retrieve("nobody/none"))
    return answer({}, **versions("openai"), listed=names, found=found, unknown=unknown)


def openai_query_kind() -> dict:
    import openai

    client = openai.OpenAI(**options())

    def ask(model: str = MODEL, **more) -> list[list[float]]:
        return rows(client.embeddings.create(model=model, input=QUERIES, **more))

    queries = ask(extra_body={"input_type": "query"})
    same("input_type query and the name of the model", ask(f"{MODEL}:query"), queries)
    same("input_type query and search_query", ask(extra_body={"input_type": "search_query"}), queries)
    same("input_type query and x-embed-kind", ask(extra_headers={"x-embed-kind": "query"}), queries)
    documents = ask()
    same("no kind and the name of the model", ask(f"{MODEL}:document"), documents)
    for kind in ("document", "passage", "search_document"):
        same(f"no kind and input_type {kind}", ask(extra_body={"input_type": kind}), documents)
    return answer(by_text(QUERIES, documents), by_text(QUERIES, queries), **versions("openai"))


def openai_errors() -> dict:
    import openai

    client = openai.OpenAI(**options())

    def ask(input, model: str = MODEL, **more):
        return lambda: client.embeddings.create(model=model, input=input, **more)

    dimension = len(rows(ask(TEXTS[0])())[0])
    bad = openai.BadRequestError
    found = {
        "unknown model": refused("an unknown model", openai.NotFoundError, ask(SECRET, model="nobody/none")),
        "empty list": refused("an empty list", bad, ask([])),
        "empty text": refused("an empty text", bad, ask([SECRET, ""])),
        "empty text alone": refused("an empty text alone", bad, ask("")),
        "wrong dimensions": refused("wrong dimensions", bad, ask(SECRET, dimensions=dimension + 1)),
        "long text": refused("a text that is too long", bad, ask([SECRET, LONG])),
    }
    require(found["unknown model"]["code"] == "model_not_found", f"an unknown model: {found['unknown model']}")
    for what, error in found.items():
        require(error["type"] == "invalid_request_error", f"{what}: {error}")
    # The service goes on.
    return answer(by_text(TEXTS[:1], rows(ask(TEXTS[0])())), **versions("openai"), errors=found)


# ---- LangChain -------------------------------------------------------------------------------------------------------


def ask_langchain(embeddings, texts: list[str]) -> dict[str, list[float]]:
    """Asks in the four ways that LangChain has."""
    vectors = embeddings.embed_documents(texts)
    same("embed_query and embed_documents", [embeddings.embed_query(texts[1])], [vectors[1]])

    async def again() -> None:
        same("aembed_documents and embed_documents", await embeddings.aembed_documents(texts), vectors)
        same("aembed_query and embed_documents", [await embeddings.aembed_query(texts[1])], [vectors[1]])

    asyncio.run(again())
    return by_text(texts, vectors)


def langchain_openai() -> dict:
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False, **options())
    queries = OpenAIEmbeddings(model=f"{MODEL}:query", check_embedding_ctx_length=False, **options())
    return answer(
        ask_langchain(embeddings, TEXTS),
        by_text(QUERIES, [queries.embed_query(text) for text in QUERIES]),
        **versions("langchain-openai", "openai"),
    )


def langchain_openai_token_ids() -> dict:
    """By default, LangChain sends token ids of cl100k. The service must say clearly that it does not take them."""
    import openai
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(model=MODEL, **options())
    error = refused("token ids", openai.BadRequestError, lambda: embeddings.embed_documents([TEXTS[1], SECRET]))
    require(re.search(r"\btoken ids?\b", error["message"], re.IGNORECASE), f"the message names no token ids: {error}")
    return answer({}, **versions("langchain-openai", "openai", "tiktoken"), error=error)


def langchain_openai_token_ids_taken() -> dict:
    """The same where the operator lets the service take ids of cl100k: it must make the texts of them again."""
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(model=MODEL, **options())
    return answer(ask_langchain(embeddings, TEXTS), **versions("langchain-openai", "openai", "tiktoken"))


def langchain_tei() -> dict:
    from langchain_huggingface import HuggingFaceEndpointEmbeddings

    def embeddings(**more):
        return HuggingFaceEndpointEmbeddings(model=BASE, huggingfacehub_api_token=KEY, **more)

    queries = embeddings(model_kwargs={"prompt_name": "query", "normalize": True})
    return answer(
        ask_langchain(embeddings(), [*TEXTS, LONG]),
        by_text(QUERIES, queries.embed_documents(QUERIES)),
        **versions("langchain-huggingface", "huggingface-hub"),
    )


# ---- huggingface_hub -------------------------------------------------------------------------------------------------


def huggingface_hub() -> dict:
    from huggingface_hub import AsyncInferenceClient, InferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    texts = [*TEXTS, LONG]
    client = InferenceClient(model=BASE, token=KEY, timeout=TIMEOUT)
    vectors = client.feature_extraction(texts).tolist()
    same("a text alone and in a list", client.feature_extraction(TEXTS[4]).tolist(), [vectors[4]])
    every = {"normalize": True, "truncate": True, "truncation_direction": "right", "dimensions": len(vectors[0])}
    same("all parameters and none", client.feature_extraction(texts, **every).tolist(), vectors)
    route = InferenceClient(model=f"{BASE}/embed", token=KEY, timeout=TIMEOUT)
    same("/embed and /", route.feature_extraction(texts).tolist(), vectors)

    async def again() -> None:
        async with AsyncInferenceClient(model=BASE, token=KEY, timeout=TIMEOUT) as other:
            same("the asynchronous client", (await other.feature_extraction(texts)).tolist(), vectors)

    asyncio.run(again())
    try:
        client.feature_extraction([SECRET, LONG], truncate=False)
        raise Wrong("a text that is too long: the service answers although it may not truncate")
    except HfHubHTTPError as error:
        status = error.response.status_code
        require(status in (413, 422), f"a text that is too long: the status is {status}")
        require(SECRET not in str(error) and LONG[:40] not in str(error), "the message repeats the text")
        message = str(error)
    queries = client.feature_extraction(QUERIES, prompt_name="query").tolist()
    notes = {**versions("huggingface-hub"), "too long": {"status": status, "message": message}}
    return answer(by_text(texts, vectors), by_text(QUERIES, queries), **notes)


# ---- LlamaIndex ------------------------------------------------------------------------------------------------------


def ask_llama_index(embedding, texts: list[str]) -> dict[str, list[float]]:
    """Asks in the ways that LlamaIndex has. By itself it puts ten texts into one request."""
    vectors = embedding.get_text_embedding_batch(texts)
    same("a text alone and in a list", [embedding.get_text_embedding(texts[4])], [vectors[4]])
    same("a query and a text", [embedding.get_query_embedding(texts[1])], [vectors[1]])

    async def again() -> None:
        same("aget_text_embedding_batch", await embedding.aget_text_embedding_batch(texts), vectors)
        same("aget_query_embedding", [await embedding.aget_query_embedding(texts[1])], [vectors[1]])

    asyncio.run(again())
    return by_text(texts, vectors)


def llama_index_openai() -> dict:
    from llama_index.embeddings.openai import OpenAIEmbedding
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    ways = {"api_key": KEY, "api_base": f"{BASE}/v1", "max_retries": 0, "timeout": TIMEOUT}
    vectors = ask_llama_index(OpenAILikeEmbedding(model_name=MODEL, **ways), TEXTS)
    other = OpenAIEmbedding(model_name=MODEL, **ways).get_text_embedding_batch(TEXTS)
    same("OpenAIEmbedding and OpenAILikeEmbedding", other, list(vectors.values()))
    queries = OpenAILikeEmbedding(model_name=f"{MODEL}:query", **ways)
    return answer(
        vectors,
        by_text(QUERIES, [queries.get_query_embedding(text) for text in QUERIES]),
        **versions("llama-index-core", "llama-index-embeddings-openai", "llama-index-embeddings-openai-like", "openai"),
    )


def llama_index_tei() -> dict:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    # Without the two instructions, the client would put one of its own before texts for models that it knows by name.
    embedding = TextEmbeddingsInference(
        base_url=BASE,
        model_name=MODEL,
        timeout=TIMEOUT,
        truncate_text=True,
        auth_token=KEY,
        text_instruction="",
        query_instruction="",
    )
    vectors = ask_llama_index(embedding, [*TEXTS, LONG])
    return answer(vectors, **versions("llama-index-core", "llama-index-embeddings-text-embeddings-inference"))


# ---- LiteLLM ---------------------------------------------------------------------------------------------------------


def litellm() -> dict:
    import litellm

    litellm.suppress_debug_info = True
    # For its client of TEI, it asks a hub how long texts may be, after the reply and although it is offline.
    litellm.utils._get_max_position_embeddings = lambda model_name: None
    texts = [*TEXTS, LONG]
    name = "huggingface/" + MODEL.rpartition("/")[2]

    async def ask(model: str, input: list[str], path: str, **more) -> list[list[float]]:
        more |= {"model": model, "input": input, "api_base": BASE + path}
        more |= {"api_key": KEY, "timeout": TIMEOUT, "max_retries": 0}
        replies = [await asyncio.to_thread(litellm.embedding, **more), await litellm.aembedding(**more)]
        for reply in replies:
            order = [row["index"] for row in reply.data]
            require(order == list(range(len(input))), f"{model}: the rows are not in the order of the texts: {order}")
        one, other = ([row["embedding"] for row in reply.data] for reply in replies)
        same(f"embedding and aembedding of {model}", one, other)
        return one

    async def ask_all() -> dict:
        vectors = await ask(f"openai/{MODEL}", TEXTS, "/v1")
        same("floats and the default", await ask(f"openai/{MODEL}", TEXTS, "/v1", encoding_format="float"), vectors)
        queries = await ask(f"openai/{MODEL}:query", QUERIES, "/v1")
        # The client of TEI posts to api_base as it is. It asks a hub what the model is for unless input_type says so,
        # and it sends another form of request where the name has "sentence-transformers".
        for path in ("/embed", "/"):
            found = await ask(name, texts, path, input_type="embed")
            same(f"the route {path} and /v1/embeddings", found[: len(TEXTS)], vectors)
        return answer(by_text(texts, found), by_text(QUERIES, queries), **versions("litellm", "openai"))

    return asyncio.run(ask_all())


CASES = {
    "openai-sync": openai_sync,
    "openai-async": openai_async,
    "openai-base64-default": openai_base64_default,
    "openai-models": openai_models,
    "openai-query-kind": openai_query_kind,
    "openai-errors": openai_errors,
    "langchain-openai": langchain_openai,
    "langchain-openai-token-ids": langchain_openai_token_ids,
    # For a service that takes token ids of cl100k.
    "langchain-openai-token-ids-taken": langchain_openai_token_ids_taken,
    "langchain-tei": langchain_tei,
    "huggingface-hub": huggingface_hub,
    "llama-index-openai": llama_index_openai,
    "llama-index-tei": llama_index_tei,
    "litellm": litellm,
}


def main() -> None:
    global BASE, MODEL
    if sys.argv[1:] == ["texts"]:
        print(json.dumps({"texts": TEXTS, "long": LONG}))
        return
    if len(sys.argv) != 4 or sys.argv[3] not in CASES:
        sys.exit(f"usage: clients.py BASE_URL MODEL CASE, or clients.py texts\ncases: {' '.join(CASES)}")
    BASE, MODEL, case = sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3]
    set_environment(case)
    close_the_network()
    try:
        # Some clients print on stdout.
        with contextlib.redirect_stdout(sys.stderr):
            found = CASES[case]()
    except Wrong as error:
        sys.exit(f"{case}: {error}")
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{case}: {type(error).__name__}: {error}")
    finally:
        if STRAYS:
            print(f"{case}: a client tried to reach {', '.join(STRAYS)}", file=sys.stderr)
    if STRAYS:
        sys.exit(1)
    print(json.dumps({"case": case, **found}))


if __name__ == "__main__":
    main()
