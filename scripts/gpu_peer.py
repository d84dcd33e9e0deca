"""sentence-transformers and PyTorch beside this crate, where they are installed: vectors, speed, and memory of a GPU."""

import contextlib
import importlib.util
import json
import pathlib
import subprocess
import time

# Texts per batch that are tried.
BATCHES = {"cuda": (32, 128, 256), "cpu": (16, 32)}
# Seconds between two looks at the memory.
LOOK = 0.02


def find(device):
    """Returns the peer, or nothing if it is not installed or has no such device."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "sentence_transformers")):
        return None
    peer = Peer(device)
    return peer if peer.device == "cpu" or peer.torch.cuda.is_available() else None


class Peer:
    def __init__(self, device):
        import sentence_transformers
        import torch

        self.torch, self.sentence_transformers, self.device = torch, sentence_transformers, device
        self.version = f"{sentence_transformers.__version__}, PyTorch {torch.__version__}"

    def load(self, folder, dtype):
        from transformers.utils import logging

        logging.set_verbosity_error()
        model = self.sentence_transformers.SentenceTransformer(str(folder), device=self.device, local_files_only=True)
        return model.to(getattr(self.torch, dtype))

    def rows(self, folder, texts, dtype):
        with self.loaded(folder, dtype) as model:
            return model.encode(read(texts), batch_size=16, show_progress_bar=False).astype("float64").tolist()

    def speed(self, folder, texts, tokens, dtype):
        """Returns tokens/s by texts per batch, the better of two passes each. `tokens` is the number in all texts."""
        lines, speeds = read(texts), {}
        with self.loaded(folder, dtype) as model:
            model.encode(lines[:64], show_progress_bar=False)
            for size in BATCHES["cpu" if self.device == "cpu" else "cuda"]:
                best = min(self.seconds(model, lines, size) for _ in range(2))
                speeds[str(size)] = tokens / best
        return speeds

    def seconds(self, model, lines, size):
        start = time.perf_counter()
        model.encode(lines, batch_size=size, show_progress_bar=False)
        return time.perf_counter() - start

    @contextlib.contextmanager
    def loaded(self, folder, dtype):
        """Gives the memory back afterwards: what is measured next needs it."""
        model = self.load(folder, dtype)
        try:
            yield model
        finally:
            del model
            if self.device != "cpu":
                self.torch.cuda.empty_cache()

    # Memory of the GPU.

    def used_mib(self):
        free, total = self.torch.cuda.mem_get_info(self.device)
        return (total - free) >> 20

    def peak_mib(self, command, environment, seconds):
        """Runs a command and returns the most memory that was in use meanwhile."""
        peak, end = 0, time.monotonic() + max(1, seconds)
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while process.poll() is None:
                peak = max(peak, self.used_mib())
                if time.monotonic() > end:
                    process.kill()
                time.sleep(LOOK)
            if process.returncode:
                said = process.stderr.read().decode(errors="replace").strip()[-600:]
                raise ValueError(f"exit status {process.returncode}: {said}")
        return peak

    @contextlib.contextmanager
    def memory_taken(self, left_mib):
        """Takes all memory of the GPU but so many MiB."""
        free, _ = self.torch.cuda.mem_get_info(self.device)
        taken = self.torch.empty(max(0, free - (left_mib << 20)), dtype=self.torch.uint8, device=self.device)
        try:
            yield
        finally:
            del taken
            self.torch.cuda.empty_cache()


def read(texts):
    return [json.loads(line)["text"] for line in pathlib.Path(texts).read_text(encoding="utf-8").splitlines()]
