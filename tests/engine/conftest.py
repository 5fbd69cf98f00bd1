import queue
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import CheckpointFiles
from tinybrain.engine.engine import Engine
from tinybrain.engine.gpt import GPT
from tinybrain.engine.request import Completed, Failed, Request
from tinybrain.engine.sampler import SampledToken
from tinybrain.engine.tinychat import TinyChat, load_tinychat
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import read_tokenizer

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def golden_files() -> CheckpointFiles:
    home = DATA / "V1"
    return CheckpointFiles(
        home / "model_000001.pt", home / "meta_000001.json", DATA / "tokenizer/tokenizer.pkl"
    )


@pytest.fixture(scope="session")
def golden_model(golden_files) -> GPT:
    return load_model(golden_files, torch.device("cpu"))


@pytest.fixture(scope="session")
def golden():
    """What nanochat's own code computes for the golden model."""
    with np.load(DATA / "V1/golden.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="session")
def golden_tokenizer(golden_files) -> Tokenizer:
    return Tokenizer(read_tokenizer(golden_files.tokenizer))


@pytest.fixture(scope="session")
def tinychat() -> TinyChat:
    """The model that ships."""
    model = load_tinychat(
        checkpoint=None, nanochat_base_dir=None, source="sft", step=None, device="cpu", slots=4
    )
    yield model
    model.close()


@pytest.fixture
def engine(golden_model):
    engine = Engine(golden_model, slots=4, max_waiting=4)
    yield engine
    engine.close()


class Listener:
    """Collects one request's events; `gate` closed, it holds the engine's thread at each event."""

    def __init__(self, prompt, max_tokens=16, **options):
        self.events = queue.SimpleQueue()
        self.gate = threading.Event()
        self.gate.set()
        self.request = Request(prompt, self._hear, max_tokens, **options)

    def _hear(self, event):
        self.events.put(event)
        self.gate.wait(30)

    def next(self):
        return self.events.get(timeout=30)

    def to_end(self):
        """All further events up to the last."""
        heard = [self.next()]
        while not isinstance(heard[-1], Completed | Failed):
            heard.append(self.next())
        return heard

    def tokens(self):
        return [event.id for event in self.to_end() if isinstance(event, SampledToken)]


@pytest.fixture
def listener():
    return Listener
