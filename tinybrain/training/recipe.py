"""What a training run is made with."""

from dataclasses import dataclass

from tinybrain.engine.gpt import GPTConfig
from tinybrain.errors import ConfigError

HEAD_WIDTH = 64
WARM_UP_STEPS = 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes, learning rates and the budget: tokens or minutes, of which the first spent ends it.

    Learning rates are those of nanochat, for embeddings divided by three: batches here are small.
    """

    layers: int = 6
    width: int = 320
    context: int = 512
    row: int = 256
    batch: int = 16
    seed: int = 1
    matrix_lr: float = 0.02
    embedding_lr: float = 0.1
    head_lr: float = 0.006
    cool_down: float = 0.7
    """Share of the budget over which the learning rate falls to nothing."""
    short_floats: bool = True
    compile: bool = False
    tokens: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.tokens is None and self.minutes is None:
            raise ConfigError("A training run needs a budget: give --tokens, --minutes or both.")
        if self.width % HEAD_WIDTH:
            raise ConfigError(f"The width {self.width} is no multiple of {HEAD_WIDTH}.")

    def config(self, vocab_size: int) -> GPTConfig:
        """The model's sizes."""
        heads = self.width // HEAD_WIDTH
        return GPTConfig(self.context, vocab_size, self.layers, heads, heads, self.width)

    def progress(self, tokens: int, seconds: float) -> float:
        """Which share of the budget is spent; from 1 on, it is all of it."""
        spent = [tokens / self.tokens] if self.tokens else []
        spent += [seconds / 60 / self.minutes] if self.minutes else []
        return max(spent)

    def lr_scale(self, step: int, progress: float) -> float:
        """What learning rates are multiplied by: up quickly, level, then down to 0."""
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        return warm * min(1.0, max(0.0, 1 - progress) / self.cool_down)
