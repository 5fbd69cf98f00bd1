import queue
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tinybrain.config import load_settings
from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import CheckpointFiles
from tinybrain.engine.engine import Engine
from tinybrain.engine.gpt import GPT
from tinybrain.engine.kv_cache import KVCache
from tinybrain.engine.loading import load_tinychat
from tinybrain.engine.request import Completed, Failed, Request, SampledToken
from tinybrain.engine.tinychat import TinyChat
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import read_tokenizer
from tinybrain.engine.variants import V4_MARCH, VARIANTS

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture
def several_threads():
    """More than one, however many CPUs there are: what they share shows."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Golden:
    """A tiny random model of a variant, and what nanochat's own code computes for it."""

    def __init__(self, variant: str) -> None:
        home = DATA / variant
        self.variant = variant
        self.files = CheckpointFiles(
            home / "model_000001.pt", home / "meta_000001.json", DATA / "tokenizer/tokenizer.pkl"
        )
        # Nothing in its file says that it is one.
        name = variant if variant == V4_MARCH.name else None
        self.model = load_model(self.files, torch.device("cpu"), variant_name=name)
        with np.load(home / "golden.npz") as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in arrays}
        self.ids = found["ids"].long()
        self.positions = found["positions"]
        self.logits = found["logits"]
        self.greedy = found["greedy"].tolist()
        self.perplexity = found["perplexity"].item()

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states [T, C] of ids [T], without a cache."""
        return self.model(ids[None], WholeSequence(ids[None]))[0]


@pytest.fixture(scope="session", params=list(VARIANTS))
def each(request) -> Golden:
    """The golden model of each variant."""
    with torch.inference_mode():
        return Golden(request.param)


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden model of V1, where the variant does not matter."""
    with torch.inference_mode():
        return Golden("V1")


@pytest.fixture(scope="session")
def golden_files(golden) -> CheckpointFiles:
    return golden.files


@pytest.fixture(scope="session")
def golden_model(golden) -> GPT:
    return golden.model


@pytest.fixture
def shapes(golden_model):
    """The shapes [rows, tokens] of all forward passes."""
    shapes = []
    with golden_model.register_forward_pre_hook(
        lambda _, inputs: shapes.append(tuple(inputs[0].shape))
    ):
        yield shapes


@pytest.fixture
def new_cache():
    def build(model, *, slots, dtype=torch.float32):
        return KVCache(model.config, slots, dtype=dtype, device=torch.device("cpu"))

    return build


@pytest.fixture(scope="session")
def golden_tokenizer(golden_files) -> Tokenizer:
    return Tokenizer(read_tokenizer(golden_files.tokenizer))


@pytest.fixture(scope="session")
def tinychat() -> TinyChat:
    """The model that ships."""
    model = load_tinychat(load_settings(device="cpu"), slots=4)
    yield model
    model.close()


@pytest.fixture
def engine(golden_model):
    engine = Engine(golden_model, slots=4, max_waiting=4)
    yield engine
    engine.close()


@pytest.fixture
def engine_of_each(each):
    engine = Engine(each.model, slots=4, max_waiting=4, prefill_chunk=64)
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
