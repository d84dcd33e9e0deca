"""Serves a model of sentence-transformers with FastAPI, as guides write such a service.

    bench_serve_fastapi.py --folder DIR --port N --threads N

scripts/bench_serve.py starts it as a peer. One worker; the log of requests is off, which guides leave on.
"""

import argparse

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

parser = argparse.ArgumentParser()
parser.add_argument("--folder", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
options = parser.parse_args()

torch.set_num_threads(options.threads)
model = SentenceTransformer(options.folder, device="cpu", local_files_only=True)
app = FastAPI()


class EmbedRequest(BaseModel):
    texts: list[str]
    batch_size: int = 32


@app.post("/embed")
async def embed(request: EmbedRequest):
    embeddings = model.encode(
        request.texts, batch_size=request.batch_size, normalize_embeddings=True, show_progress_bar=False
    )
    return {
        "embeddings": embeddings.tolist(),
        "model": "all-MiniLM-L6-v2",
        "dimension": embeddings.shape[1],
    }


uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")
