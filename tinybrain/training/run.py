"""A training run on disk: begins or goes on, shows its progress, writes nanochat's files."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tinybrain.engine.checkpoint_files import SOURCE_DIRECTORIES
from tinybrain.errors import ConfigError
from tinybrain.training.conversations import read_conversations
from tinybrain.training.recipe import Recipe
from tinybrain.training.rows import Rows, pack
from tinybrain.training.tokens import encode, load_nanochat_tokenizer
from tinybrain.training.trainer import Trainer

SAVE_EVERY_S = 180
LOG_EVERY_STEPS = 20
SMOOTHING = 0.95
RESUME_FILE = "resume.pt"


def load_rows(conversations: Path, base_dir: Path, recipe: Recipe) -> tuple[Rows, int]:
    """The corpus, packed, and the size of the vocabulary.

    Raises:
        ConfigError: The corpus or the tokenizer is missing.
    """
    tokenizer = load_nanochat_tokenizer(base_dir)
    documents = (encode(c, tokenizer) for c in read_conversations(conversations))
    rows = pack(documents, length=recipe.row, padding=tokenizer.special("bos"))
    return rows, tokenizer.vocab_size


def train(
    trainer: Trainer, directory: Path, *, resume: bool, console: Console | None = None
) -> Path:
    """Train until the budget is spent, and write model and meta file; gives the model's path.

    Every few minutes the state is saved; with `resume` a run goes on from there.

    Raises:
        ConfigError: There is nothing to resume, or it is of another recipe; or a run is there
            and is not to be resumed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if resume:
        _load(trainer, directory / RESUME_FILE)
    elif any(directory.iterdir()):
        raise ConfigError(
            f"{directory} holds another run. Go on with it with --resume, name this one with "
            "--tag, or delete the directory."
        )
    saved, smooth = time.monotonic(), None
    with _bar(console) as (progress, task), (directory / "log.jsonl").open("a") as log:
        while trainer.progress < 1:
            loss = trainer.step()
            smooth = loss if smooth is None else SMOOTHING * smooth + (1 - SMOOTHING) * loss
            _show(progress, task, trainer, smooth)
            if trainer.counters.step % LOG_EVERY_STEPS == 0:
                log.write(json.dumps({**asdict(trainer.counters), "loss": round(smooth, 4)}) + "\n")
                log.flush()
            if time.monotonic() - saved > SAVE_EVERY_S:
                save(trainer, directory)
                saved = time.monotonic()
    save(trainer, directory)
    return write_model(trainer, directory)


def save(trainer: Trainer, directory: Path) -> None:
    """Keep all that a later run needs to go on; the file before is replaced at once or not."""
    state = {"recipe": asdict(trainer.recipe), **trainer.state_dict()}
    path, partial = directory / RESUME_FILE, directory / f"{RESUME_FILE}.partial"
    torch.save(state, partial)
    partial.replace(path)


def write_model(trainer: Trainer, directory: Path) -> Path:
    """Write `model_NNNNNN.pt` (bf16) and `meta_NNNNNN.json` as nanochat names them."""
    step = trainer.counters.step
    weights = {name: t.to("cpu", torch.bfloat16) for name, t in trainer.model.state_dict().items()}
    path = directory / f"model_{step:06d}.pt"
    torch.save(weights, path)
    config = asdict(trainer.model.config)
    del config["window_pattern"]  # V1 has none
    meta = {"step": step, "model_config": config, "recipe": asdict(trainer.recipe)}
    meta["counters"] = asdict(trainer.counters)
    meta_path = directory / f"meta_{step:06d}.json"
    meta_path.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return path


def checkpoint_directory(base_dir: Path, tag: str) -> Path:
    """Where nanochat keeps chat checkpoints of that tag."""
    return base_dir / SOURCE_DIRECTORIES["sft"] / tag


def results_file(base_dir: Path, checkpoint: str) -> Path:
    """Where the evaluation of the checkpoint of that hash is kept."""
    return base_dir / f"results-{checkpoint}.json"


def _load(trainer: Trainer, path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"There is no {path} to resume from. Start the run without --resume.")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    recipe = asdict(trainer.recipe)
    # More of a budget is no other recipe; what has been learned so far is the same.
    other = [
        name
        for name, value in state.pop("recipe").items()
        if name not in {"tokens", "minutes"} and recipe[name] != value
    ]
    if other:
        raise ConfigError(
            f"{path} was trained with another {other[0]}. Give the options that run was begun "
            "with, or start without --resume."
        )
    trainer.load_state_dict(state)


@contextmanager
def _bar(console: Console | None) -> Iterator[tuple[Progress, TaskID]]:
    columns = chain(
        (TextColumn("training"), BarColumn(), TextColumn("{task.percentage:>3.0f}%")),
        (TextColumn("{task.fields[status]}"), TimeElapsedColumn()),
    )
    with Progress(*columns, console=console) as progress:
        yield progress, progress.add_task("training", total=1.0, status="")


def _show(progress: Progress, task: TaskID, trainer: Trainer, loss: float) -> None:
    counters = trainer.counters
    speed = counters.tokens / counters.seconds
    status = f"step {counters.step:,} loss {loss:.3f} {speed:,.0f} tokens/s"
    progress.update(task, completed=trainer.progress, status=status)
