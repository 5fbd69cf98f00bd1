"""The training loop's state and its step. Knows rows of tokens, no text and no files.

Source: karpathy/nanochat (initial weights, Muon for matrices with AdamW for the rest).
"""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from tinybrain.engine.gpt import GPT
from tinybrain.engine.variants import V1
from tinybrain.training.muon import Muon
from tinybrain.training.recipe import Recipe
from tinybrain.training.rows import PackedRows, Rows


@dataclass(slots=True)
class Counters:
    """How far a run is; rows of each epoch are read in an order of its own."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    epoch: int = 0
    row: int = 0


def initialise(model: GPT, seed: int) -> None:
    """Give a model its first weights; what adds to the residual stream begins at nothing."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        weight = torch.zeros(parameter.shape)
        if name.endswith("wte.weight"):
            weight.normal_(generator=generator)
        elif not name.endswith(("c_proj.weight", "lm_head.weight")):
            fan_out, fan_in = parameter.shape
            std = min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)
            weight.normal_(std=std, generator=generator)
        parameter.data.copy_(weight)


class Trainer:
    """A model in training. Two runs of one recipe on one CPU have equal weights, bit by bit."""

    def __init__(
        self, recipe: Recipe, rows: Rows, *, vocab_size: int, device: torch.device
    ) -> None:
        if len(rows) < recipe.batch:
            raise ValueError(f"{len(rows)} rows are fewer than a batch of {recipe.batch}")
        self.recipe = recipe
        self.counters = Counters()
        self.model = GPT(recipe.config(vocab_size), V1)
        initialise(self.model, recipe.seed)
        self.model.to(device)
        self._rows = rows.to(device)
        self._device = device
        self._order = self._order_of_epoch()
        self._optimizers = _optimizers(self.model, recipe)
        self._base_lrs = [g["lr"] for o in self._optimizers for g in o.param_groups]
        self._loss = torch.compile(self._weighted_loss) if recipe.compile else self._weighted_loss

    @property
    def progress(self) -> float:
        """Which share of the budget is spent."""
        return self.recipe.progress(self.counters.tokens, self.counters.seconds)

    def step(self) -> float:
        """Learn from the next batch; gives the loss before it.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        began, batch = time.monotonic(), self._next_batch()
        self._set_lrs()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.recipe.short_floats):
            loss = self._loss(batch.ids.long(), batch.weights, batch.documents)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        value: float = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of step {self.counters.step} is {value}")
        self.counters.step += 1
        self.counters.tokens += batch.ids.shape[0] * self.recipe.row
        self.counters.seconds += time.monotonic() - began
        return value

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "counters": asdict(self.counters),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a run of the same recipe and rows was."""
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.counters = Counters(**state["counters"])
        self._order = self._order_of_epoch()

    def _weighted_loss(self, ids: Tensor, weights: Tensor, documents: Tensor) -> Tensor:
        inputs, targets, weights = ids[:, :-1], ids[:, 1:], weights[:, 1:]
        hidden = self.model(inputs, PackedRows(inputs, documents[:, :-1]))
        logits = self.model.logits(hidden)
        losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return (losses * weights.flatten()).sum() / weights.sum()

    def _next_batch(self) -> Rows:
        counters, batch = self.counters, self.recipe.batch
        if counters.row + batch > len(self._rows):
            counters.epoch, counters.row = counters.epoch + 1, 0
            self._order = self._order_of_epoch()
        chosen = self._order[counters.row : counters.row + batch]
        counters.row += batch
        return self._rows.take(chosen)

    def _order_of_epoch(self) -> Tensor:
        generator = torch.Generator().manual_seed(
            self.recipe.seed * 1_000_003 + self.counters.epoch
        )
        return torch.randperm(len(self._rows), generator=generator).to(self._device)

    def _set_lrs(self) -> None:
        scale = self.recipe.lr_scale(self.counters.step, self.progress)
        groups = (group for o in self._optimizers for group in o.param_groups)
        for group, base in zip(groups, self._base_lrs, strict=True):
            group["lr"] = base * scale


def _optimizers(model: GPT, recipe: Recipe) -> list[Optimizer]:
    dtype = torch.bfloat16 if recipe.short_floats else torch.float32
    matrices = Muon(model.transformer.h.parameters(), lr=recipe.matrix_lr, dtype=dtype)
    rest = AdamW(
        [
            {"params": model.transformer.wte.parameters(), "lr": recipe.embedding_lr},
            {"params": model.lm_head.parameters(), "lr": recipe.head_lr},
        ],
        betas=(0.8, 0.95),
        eps=1e-10,
        weight_decay=0,
    )
    return [matrices, rest]
