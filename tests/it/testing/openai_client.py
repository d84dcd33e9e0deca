"""Drives the simulator of OpenAI's Files and Batches API with OpenAI's own client: python3 openai_client.py BASE_URL

tests/it/testing/python.rs starts the simulator and this program. Every object must have exactly the fields that the
client's types have, with values that the types permit.
"""

import base64
import json
import struct
import sys
import urllib.request

import openai

MODEL = "text-embedding-3-small"
BASE_URL = sys.argv[1]

client = openai.OpenAI(api_key="sk-test", base_url=BASE_URL, max_retries=0, timeout=60)


def advance(seconds: float) -> None:
    body = json.dumps({"seconds": seconds}).encode()
    address = BASE_URL.removesuffix("/v1") + "/_simulator/advance"
    # Without this, a proxy would be asked for loopback too.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(address, body, {"Content-Type": "application/json"}), timeout=60):
        pass


def check_type(value) -> None:
    """Fails unless an object has the fields of its type, no other, and values that the type permits."""
    raw = json.loads(value.to_json(exclude_unset=True))
    wanted = set(type(value).model_fields)
    assert set(raw) == wanted, f"{type(value).__name__}: {sorted(set(raw) ^ wanted)}"
    type(value).model_validate(raw)


def line(custom_id: str, texts: list[str]) -> str:
    body = {"model": MODEL, "input": texts, "dimensions": 8, "encoding_format": "base64"}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}) + "\n"


def upload(lines: str) -> openai.types.FileObject:
    return client.files.create(file=("input.jsonl", lines.encode()), purpose="batch")


def create(file_id: str) -> openai.types.Batch:
    return client.batches.create(
        input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h", metadata={"job": "python"}
    )


def files() -> None:
    content = line("a", ["one"])
    file = upload(content)
    check_type(file)
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).text == content
    kept = client.files.create(
        file=("input.jsonl", content.encode()),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert kept.expires_at == kept.created_at + 7200
    # The client asks for the pages one after the other.
    assert [found.id for found in client.files.list(limit=1, order="asc")] == [file.id, kept.id]
    for page in (file, kept):
        assert client.files.delete(page.id).deleted
    try:
        client.files.retrieve(file.id)
        raise AssertionError("a file that was deleted is there")
    except openai.NotFoundError as error:
        assert error.status_code == 404 and error.request_id, error


def batches() -> None:
    texts = {"a": ["one", "two"], "b": ["three"]}
    file = upload("".join(line(custom_id, texts) for custom_id, texts in texts.items()))
    batch = create(file.id)
    check_type(batch)
    assert batch.status == "validating" and batch.metadata == {"job": "python"}
    advance(100)
    batch = client.batches.retrieve(batch.id)
    check_type(batch)
    assert batch.status == "in_progress" and batch.request_counts.total == 2
    advance(3600)
    batch = client.batches.retrieve(batch.id)
    check_type(batch)
    check_type(batch.usage)
    check_type(batch.request_counts)
    assert batch.status == "completed" and batch.error_file_id is None and batch.usage.input_tokens == 4
    seen = {}
    for text in client.files.content(batch.output_file_id).iter_lines():
        result = json.loads(text)
        body = result["response"]["body"]
        # The type knows vectors as numbers alone.
        for row in body["data"]:
            row["embedding"] = list(struct.unpack("<8f", base64.b64decode(row["embedding"])))
        reply = openai.types.CreateEmbeddingResponse.model_validate(body)
        check_type(reply.usage)
        seen[result["custom_id"]] = [tuple(row.embedding) for row in sorted(reply.data, key=lambda row: row.index)]
    assert set(seen) == set(texts)
    # The same vectors as at once, from the form that the client asks for by itself.
    for custom_id, of_line in texts.items():
        at_once = client.embeddings.create(model=MODEL, input=of_line, dimensions=8)
        assert [tuple(row.embedding) for row in at_once.data] == seen[custom_id]
    floats = client.embeddings.create(model=MODEL, input="one", dimensions=8, encoding_format="float")
    assert tuple(floats.data[0].embedding) == seen["a"][0]


def lists_and_cancels() -> None:
    file = upload(line("a", ["one"]))
    made = [create(file.id).id for _ in range(5)]
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert listed[:5] == made[::-1], (listed, made)
    assert client.batches.cancel(made[0]).status == "cancelling"
    advance(60)
    batch = client.batches.retrieve(made[0])
    check_type(batch)
    assert batch.status == "cancelled"
    try:
        client.batches.cancel(made[0])
        raise AssertionError("a cancelled batch was cancelled")
    except openai.ConflictError as error:
        assert error.type == "invalid_request_error", error


def failures() -> None:
    batch = create(upload(line("a", ["one"]) * 2).id)
    advance(3600)
    batch = client.batches.retrieve(batch.id)
    check_type(batch)
    assert batch.status == "failed" and batch.errors.object == "list"
    (error,) = batch.errors.data
    check_type(error)
    assert (error.code, error.line) == ("duplicate_custom_id", 2)
    batch = create(upload(line("a", ["one", ""])).id)
    advance(3600)
    batch = client.batches.retrieve(batch.id)
    assert batch.output_file_id is None
    (result,) = client.files.content(batch.error_file_id).text.splitlines()
    assert json.loads(result)["response"]["status_code"] == 400
    try:
        client.embeddings.create(model="unknown", input="one")
        raise AssertionError("an unknown model answered")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    assert MODEL in [model.id for model in client.models.list()]


for part in (files, batches, lists_and_cancels, failures):
    part()
    print(f"{part.__name__}: passed", flush=True)
print(f"openai {openai.__version__}")
