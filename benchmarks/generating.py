"""One engine in a process of its own: how fast it starts, reads a prompt and decodes.

Called by engine.py with the engine's name, a checkpoint's folder and a folder for converted
weights; prints one JSON document. Prompts are random, so that no two share a prefix.
"""

import json
import queue
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from transformers_engines import Int8Compiled, Transformers

from tinybrain.config import load_settings
from tinybrain.engine.checkpoint import read_config
from tinybrain.engine.checkpoint_files import CheckpointFiles, find_checkpoint
from tinybrain.engine.engine import Engine
from tinybrain.engine.loading import load_model_of
from tinybrain.engine.request import Completed, Failed, PromptRead, Request, SampledToken

PROMPT = 512
ANSWER = 48
TURN = 32
PROMPTS = 3
STEPS = 30
"""So many are timed of every engine; ours, which reads prompts in turn, takes 31 with all of 32."""
OURS = ("fp32", "16-bit", "int8")
THEIRS = ("transformers fp32", "transformers bf16")
COMPILED = "transformers int8 compiled"


@dataclass(slots=True)
class Figures:
    """Seconds, bytes and tokens a second; decoding by batch size."""

    load_s: float = 0.0
    compile_s: float | None = None
    first_token_s: float = 0.0
    second_turn_s: float | None = None
    step_s: dict[int, float] = field(default_factory=dict)
    peak_bytes: int = 0
    read_bytes: int = 0
    """What a decode step of one request reads: weights of linear layers, keys and values."""
    logit_error: float | None = None


class Ours:
    """TinyBrain's engine as a replica runs it; without speculation, which random text lacks."""

    def __init__(
        self,
        precision: str,
        files: CheckpointFiles,
        home: Path,
        *,
        device: str = "cpu",
        slots: int = 32,
    ) -> None:
        settings = load_settings(precision=precision, home=home, device=device)
        self.model, _ = load_model_of(files, torch.device(device), settings)
        self.engine = Engine(self.model, slots=slots, max_waiting=64, speculative_rows=0)
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


def load(name: str, files: CheckpointFiles, home: Path) -> Ours | Transformers:
    """An engine that is ready, or has to compile first."""
    if name in OURS:
        return Ours(name, files, home)
    if name == COMPILED:
        return Int8Compiled(files, PROMPT + 2 * ANSWER)
    engine = Transformers(files, torch.bfloat16 if name.endswith("bf16") else torch.float32)
    engine.answers([[1]], 1)
    return engine


def prompts(*, seed: int) -> Callable[[], list[int]]:
    """What makes one random prompt after the other."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randint(0, 60_000, (PROMPT,), generator=generator).tolist()


def measure(engine: Ours | Transformers, figures: Figures, batches: Sequence[int]) -> None:
    """Fill in what is measured of a loaded engine; every engine gets the same prompts."""
    prompt = prompts(seed=1)
    firsts, seconds = [], []
    for _ in range(PROMPTS):
        first = prompt()
        ((ids, times),) = engine.answers([first], ANSWER)
        firsts.append(times[0])
        turn = [*first, *ids, *prompt()[:TURN]]
        if isinstance(engine, Ours):
            ((_, again),) = engine.answers([turn], 1)
            seconds.append(again[0])
    figures.first_token_s = median(firsts)
    figures.second_turn_s = median(seconds) if seconds else None
    for batch in batches:
        asked = [prompt() for _ in range(batch)]
        if isinstance(engine, Ours):  # read before, so that all are soon decoded together
            read = engine.answers(asked, 1)
            asked = [[*ids, *first] for ids, (first, _) in zip(asked, read, strict=True)]
        heard = engine.answers(asked, ANSWER + batch)
        figures.step_s[batch] = _step([times for _, times in heard])
        if batch == 1:  # larger ones keep more conversations, not more of the model
            figures.peak_bytes = _peak_bytes()


def _step(answers: Sequence[Sequence[float]]) -> float:
    """Median time of the first STEPS in which all decoded: after the last had its first token."""
    begin, end = max(times[0] for times in answers), min(times[-1] for times in answers)
    steps = []
    for times in answers:
        together = [at for at in times if begin <= at <= end][: STEPS + 1]
        steps += [later - earlier for earlier, later in pairwise(together)]
    return median(steps)


def _peak_bytes() -> int:
    # Not getrusage: that begins with the size of the process that started this one.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024


def _read_bytes(name: str, files: CheckpointFiles) -> int:
    config = read_config(files.config)
    weights = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    cached = 2 * config.n_layer * config.n_kv_head * config.head_dim * (PROMPT + ANSWER // 2)
    by_weight = {"int8": 1, "16-bit": 2, "transformers bf16": 2, COMPILED: 1}.get(name, 4)
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
        engine = load(name, files, Path(home))
        figures.load_s = time.perf_counter() - start
        if isinstance(engine, Int8Compiled):
            prompt = prompts(seed=2)()
            figures.compile_s = engine.compile(prompt)
            figures.logit_error = engine.logit_error(prompt)
        if batches:
            measure(engine, figures, [int(batch) for batch in batches.split(",")])
        if isinstance(engine, Ours):
            engine.engine.close()  # a thread inside torch would abort the interpreter's end
    figures.read_bytes = _read_bytes(name, files)
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
