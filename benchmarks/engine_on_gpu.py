"""TinyBrain's engine on a CUDA GPU, beside transformers with a static cache, compiled.

A random nanochat d20 (561M parameters), prompts of 512 random tokens, greedy answers. The roof is
what the device reads in a second, measured first, over what a step of a batch has to read: the
weights once, each request's keys and values.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from generating import ANSWER, PROMPT, Ours, _step, prompts
from latency import Row, markdown
from random_nanochat import write_checkpoint
from transformers_engines import Transformers, static_cache

from tinybrain.engine.checkpoint_files import CheckpointFiles, find_checkpoint
from tinybrain.engine.gpt import GPTConfig
from tinybrain.engine.graphs import Graphs

BATCHES = (1, 8, 32, 128, 256)
DEPTH, QUICK_DEPTH = 20, 4
BANDWIDTH_BYTES = 8 << 30
CUDA = torch.device("cuda")


class Static(Transformers):
    """In bf16, with a static cache, decoding by torch.compile's own CUDA graphs."""

    def __init__(self, files: CheckpointFiles) -> None:
        super().__init__(files, torch.bfloat16)
        self.model = self.model.to(CUDA)
        self.prefill = self.model.forward
        self.decode = torch.compile(self.model.forward, mode="reduce-overhead", dynamic=False)
        self._caches: dict[int, Any] = {}

    def cache(self, batch: int) -> Any:
        """The one cache of a batch size, whose addresses the graphs are for."""
        if batch not in self._caches:
            self._caches[batch] = static_cache(self.model.config, batch, PROMPT + 2 * ANSWER, CUDA)
        self._caches[batch].reset()
        return self._caches[batch]

    def answers(
        self, prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[tuple[list[int], list[float]]]:
        with CUDA:
            return super().answers(prompts, tokens)


def bandwidth() -> float:
    """Bytes a second that the device reads."""
    block = torch.ones(BANDWIDTH_BYTES // 4, device=CUDA)
    return BANDWIDTH_BYTES / Graphs(CUDA).milliseconds(block.sum) * 1000


def read_bytes(config: GPTConfig, batch: int) -> int:
    """What a step in 16 bits reads in the middle of the answers."""
    weights = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    cached = 2 * config.n_layer * config.n_kv_head * config.head_dim * (PROMPT + ANSWER)
    return 2 * (weights + batch * cached)


def rows(
    engine: Ours | Transformers,
    name: str,
    batches: Sequence[int],
    roof: Callable[[int], float],
) -> list[Row]:
    """A row for each batch; `roof` gives the seconds that a step takes at least.

    The first time is thrown away, in which things are compiled.
    """
    prompt, found = prompts(seed=1), []
    for batch in batches:
        answers = [engine.answers([prompt() for _ in range(batch)], 2 * ANSWER) for _ in range(3)]
        steps = [_step([times for _, times in answer]) for answer in answers[1:]]
        firsts = [max(times[0] for _, times in answer) for answer in answers[1:]]
        step = median(steps)
        found.append(
            {
                "engine": name,
                "batch": batch,
                "all prompts read s": round(median(firsts), 3),
                "step ms": round(step * 1000, 3),
                "tok/s": round(batch / step),
                "of the roof": f"{roof(batch) / step:.0%}",
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there too")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="N")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a CUDA device; benchmarks/engine.py is for CPUs.")
    read_bytes_s = bandwidth()
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        home = Path(scratch)
        write_checkpoint(home / "nanochat", depth=QUICK_DEPTH if arguments.quick else DEPTH)
        files = find_checkpoint(
            checkpoint=home / "nanochat", nanochat_base_dir=None, source="sft", step=None
        )
        ours = Ours("16-bit", files, home, device="cuda", slots=max(arguments.batches))
        config = ours.model.config

        def roof(batch: int) -> float:
            return read_bytes(config, batch) / read_bytes_s

        told = rows(ours, f"ours, {ours.model.precision}", arguments.batches, roof)
        ours.engine.close()
        told += rows(Static(files), "transformers, static cache", arguments.batches, roof)
    name = torch.cuda.get_device_name()
    print(f"{name}, {read_bytes_s / 1e9:.0f} GB/s, torch {torch.__version__}\n\n{markdown(told)}")
    if arguments.json:
        report = {"device": name, "GB/s": read_bytes_s / 1e9, "rows": told}
        arguments.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
