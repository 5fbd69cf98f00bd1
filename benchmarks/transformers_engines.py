"""transformers' NanoChat as engines: as it comes, and the fastest that it is made on a CPU.

Both decode greedily through transformers' own caches, and tell no perplexity.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import CheckpointFiles

CHECKED = 4
FAR_OFF = 0.2


class Transformers:
    """transformers' NanoChat with the cache it takes by default."""

    def __init__(self, files: CheckpointFiles, dtype: torch.dtype) -> None:
        from tests.engine.in_transformers import in_transformers  # noqa: PLC0415  # takes seconds

        self.model = in_transformers(load_model(files, torch.device("cpu"))).to(dtype)
        self.prefill: Callable[..., Any] = self.model.forward
        self.decode: Callable[..., Any] = self.model.forward

    def cache(self, _batch: int) -> Any:
        from transformers import DynamicCache  # noqa: PLC0415  # takes seconds

        return DynamicCache(config=self.model.config)

    def steps(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each step's likeliest ids [B, 1], which the next one reads, and its logits [B, V]."""
        ids, cache, forward = torch.tensor(prompts), self.cache(len(prompts)), self.prefill
        while True:
            found = forward(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = found.logits[:, -1]
            ids, forward = logits.argmax(-1, keepdim=True), self.decode
            yield ids, logits

    def answers(
        self, prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[tuple[list[int], list[float]]]:
        """Of each answer the ids, and the seconds from the start to each."""
        start, chosen, times = time.perf_counter(), [], []
        for ids, _ in islice(self.steps(prompts), tokens):
            chosen.append(ids[:, 0].tolist())
            times.append(time.perf_counter() - start)
        return [([step[row] for step in chosen], times) for row in range(len(prompts))]


def static_cache(config: Any, batch: int, length: int, device: torch.device) -> Any:
    """A bf16 cache of `length` tokens for each request."""
    from transformers import StaticCache  # noqa: PLC0415  # takes seconds

    cache = StaticCache(config=config, max_cache_len=length)
    size = config.hidden_size // config.num_attention_heads
    cache.early_initialization(batch, config.num_key_value_heads, size, torch.bfloat16, device)
    return cache


class Int8Compiled(Transformers):
    """bf16 with torchao's int8 weights, a static cache and torch.compile.

    bf16 because torch.compile has an int8 kernel for it alone: for fp32 it makes fp32 weights anew
    at each step, which took ten times as long.
    """

    def __init__(self, files: CheckpointFiles, length: int) -> None:
        """Load and quantise; caches hold `length` tokens of each request."""
        from torchao.quantization import Int8WeightOnlyConfig, quantize_  # noqa: PLC0415  # likewise

        super().__init__(files, torch.bfloat16)
        quantize_(self.model, Int8WeightOnlyConfig())
        torch.compiler.config.force_disable_caches = True  # compiling is measured
        self.prefill = self.decode = torch.compile(self.model.forward, dynamic=False)
        self._files = files
        self._length = length
        self._caches: dict[int, Any] = {}

    def cache(self, batch: int) -> Any:
        """The one cache of a batch size: the compiled code is for its addresses."""
        if batch not in self._caches:
            self._caches[batch] = static_cache(
                self.model.config, batch, self._length, torch.device("cpu")
            )
        self._caches[batch].reset()
        return self._caches[batch]

    def compile(self, prompt: Sequence[int]) -> float:
        """Seconds to compile for one request; prompts are read eagerly where that is faster."""
        first, again = (self.answers([prompt], 2)[0][1][-1] for _ in range(2))

        def prefill_s(forward: Callable[..., Any]) -> float:
            self.prefill = forward
            return min(self.answers([prompt], 1)[0][1][0] for _ in range(2))

        self.prefill = min(self.prefill, self.model.forward, key=prefill_s)
        return first - again

    def logit_error(self, prompt: Sequence[int]) -> float:
        """How far the first logits of an answer are from the fp32 model's, relative to those.

        Raises ArithmeticError where int8 cannot be the reason.
        """
        steps = list(islice(self.steps([prompt]), CHECKED))
        found = torch.cat([logits for _, logits in steps]).float()
        ids = torch.tensor([[*prompt, *(int(chosen) for chosen, _ in steps[:-1])]])
        reference = load_model(self._files, torch.device("cpu"))
        expected = reference.logits(reference(ids, WholeSequence(ids))[0, -CHECKED:])
        error = ((found - expected).norm() / expected.norm()).item()
        if not error < FAR_OFF:  # a NaN too
            raise ArithmeticError(
                f"The compiled model's logits differ from the fp32 model's by {error:.0%}: it does "
                "not compute this model, and its speed means nothing. Compare torch, torchao and "
                "transformers with requirements.lock."
            )
        return error
