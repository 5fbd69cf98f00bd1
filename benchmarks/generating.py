"""One engine in a process of its own: how fast it starts, reads a prompt and decodes.

Called by engine.py with the engine's name, a checkpoint's folder and a folder for converted
weights; prints one JSON document. Prompts are random, so that no two share a prefix.
"""

import json
import queue
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from tinybrain.config import load_settings
from tinybrain.engine.checkpoint import load_model, read_config
from tinybrain.engine.checkpoint_files import CheckpointFiles, find_checkpoint
from tinybrain.engine.engine import Engine
from tinybrain.engine.loading import load_model_of
from tinybrain.engine.request import Completed, Failed, PromptRead, Request, SampledToken

PROMPT = 512
ANSWER = 48
TURN = 32
PROMPTS = 3
OURS = ("fp32", "16-bit", "int8")


@dataclass(slots=True)
class Figures:
    """Seconds, bytes and tokens a second; decoding by batch size."""

    load_s: float = 0.0
    first_token_s: float = 0.0
    second_turn_s: float | None = None
    step_s: dict[int, float] = field(default_factory=dict)
    peak_bytes: int = 0
    read_bytes: int = 0
    """What a decode step of one request reads: weights of linear layers, keys and values."""


class Ours:
    """TinyBrain's engine as a replica runs it; without speculation, which random text lacks."""

    def __init__(self, precision: str, files: CheckpointFiles, home: Path) -> None:
        settings = load_settings(precision=precision, home=home, device="cpu")
        self.model, _ = load_model_of(files, torch.device("cpu"), settings)
        self.engine = Engine(self.model, slots=32, max_waiting=64, speculative_rows=0)
        self.answers([[1]], 1)

    def answers(
        self, prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[tuple[list[int], list[float]]]:
        """Of answers asked for together, the ids and the times from submission to each."""
        events: queue.SimpleQueue = queue.SimpleQueue()
        start = time.perf_counter()
        for index, prompt in enumerate(prompts):

            def emit(event, index=index) -> None:
                events.put((index, time.perf_counter() - start, event))

            self.engine.submit(Request(prompt, emit, tokens))
        heard: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]
        left = len(prompts)
        while left:
            index, at, event = events.get()
            match event:
                case SampledToken():
                    heard[index][0].append(event.id)
                    heard[index][1].append(at)
                case Completed():
                    left -= 1
                case Failed(error):
                    raise error
                case PromptRead():
                    pass
        return heard


class Transformers:
    """transformers' NanoChat, with the cache it takes by default; it tells no perplexity."""

    def __init__(self, name: str, files: CheckpointFiles) -> None:
        from tests.engine.in_transformers import in_transformers  # noqa: PLC0415  # takes seconds

        dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
        self.model = in_transformers(load_model(files, torch.device("cpu"))).to(dtype)
        self.answers([[1]], 1)

    def answers(
        self, prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[tuple[list[int], list[float]]]:
        ids = torch.tensor(prompts)
        start, cache, times, chosen = time.perf_counter(), None, [], []
        for _ in range(tokens):
            found = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, ids = found.past_key_values, found.logits[:, -1].argmax(-1, keepdim=True)
            chosen.append(ids[:, 0].tolist())
            times.append(time.perf_counter() - start)
        return [([step[row] for step in chosen], times) for row in range(len(prompts))]


def measure(engine: Ours | Transformers, figures: Figures, batches: Sequence[int]) -> None:
    """Fill in what is measured of a loaded engine."""
    generator = torch.Generator().manual_seed(1)

    def prompt() -> list[int]:
        return torch.randint(0, 60_000, (PROMPT,), generator=generator).tolist()

    firsts, seconds = [], []
    for _ in range(PROMPTS):
        first = prompt()
        ((ids, times),) = engine.answers([first], ANSWER)
        firsts.append(times[0])
        if isinstance(engine, Ours):
            turn = [*first, *ids, *prompt()[:TURN]]
            ((_, again),) = engine.answers([turn], 1)
            seconds.append(again[0])
    figures.first_token_s = median(firsts)
    figures.second_turn_s = median(seconds) if seconds else None
    for batch in batches:
        heard = engine.answers([prompt() for _ in range(batch)], ANSWER * (1 if batch < 8 else 2))
        figures.step_s[batch] = _step([times for _, times in heard])
        if batch == 1:  # larger ones keep more conversations, not more of the model
            figures.peak_bytes = _peak_bytes()


def _step(answers: Sequence[Sequence[float]]) -> float:
    """Median time of a step in which all requests decoded: after the last had its first token."""
    begin, end = max(times[0] for times in answers), min(times[-1] for times in answers)
    steps = [
        later - earlier
        for times in answers
        for earlier, later in pairwise(times)
        if begin <= earlier and later <= end
    ]
    return median(steps)


def _peak_bytes() -> int:
    # Not getrusage: that begins with the size of the process that started this one.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024


def _read_bytes(name: str, files: CheckpointFiles) -> int:
    config = read_config(files.config)
    weights = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    cached = 2 * config.n_layer * config.n_kv_head * config.head_dim * (PROMPT + ANSWER // 2)
    by_weight = {"int8": 1, "16-bit": 2, "transformers bf16": 2}.get(name, 4)
    return weights * by_weight + cached * max(2, by_weight)


def main() -> None:
    name, checkpoint, home, batches = sys.argv[1:5]
    torch.set_num_threads(int(sys.argv[5]))
    files = find_checkpoint(
        checkpoint=Path(checkpoint), nanochat_base_dir=None, source="sft", step=None
    )
    figures = Figures()
    start = time.perf_counter()
    with torch.inference_mode():
        engine = Ours(name, files, Path(home)) if name in OURS else Transformers(name, files)
        figures.load_s = time.perf_counter() - start
        if batches:
            measure(engine, figures, [int(batch) for batch in batches.split(",")])
        if isinstance(engine, Ours):
            engine.engine.close()  # a thread inside torch would abort the interpreter's end
    figures.read_bytes = _read_bytes(name, files)
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
