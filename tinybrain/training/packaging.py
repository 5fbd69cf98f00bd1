"""The checkpoint as it ships: packed by the engine, with a model card made from its results."""

import json
from pathlib import Path
from string import Template
from typing import Any

from tinybrain.engine.checkpoint import read_config
from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.engine.export import export_checkpoint
from tinybrain.engine.gpt import count_parameters
from tinybrain.engine.variants import V1
from tinybrain.errors import ConfigError
from tinybrain.training.data_files import read_text
from tinybrain.training.evaluation import markdown
from tinybrain.training.relations import read_relations
from tinybrain.training.run import checkpoint_directory, results_file


def package_model(base_dir: Path, tag: str, out: Path) -> None:
    """Write the packed form of a checkpoint, and its model card, into `out`.

    Raises:
        ConfigError: The checkpoint is incomplete, or has not been evaluated.
    """
    directory = checkpoint_directory(base_dir, tag)
    files = find_checkpoint(checkpoint=directory, nanochat_base_dir=None, source="sft", step=None)
    results = _read_results(results_file(base_dir, files.digest()))
    export_checkpoint(directory, out)
    meta = max(directory.glob("meta_*.json"))
    (out / "MODEL_CARD.md").write_text(_card(meta, results), encoding="utf-8")


def _read_results(path: Path) -> dict[str, Any]:
    try:
        results: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing, and the model card needs it. "
            "Make it with: python -m tinybrain.training evaluate"
        ) from error
    return results


def _card(meta: Path, results: dict[str, Any]) -> str:
    config = read_config(meta)
    counters = json.loads(meta.read_bytes())["counters"]
    return Template(read_text("model_card.md")).substitute(
        parameters=f"{count_parameters(config, V1):,}",
        layers=config.n_layer,
        width=config.n_embd,
        heads=config.n_head,
        vocab_size=f"{config.vocab_size:,}",
        context=config.sequence_len,
        tokens=f"{counters['tokens'] / 1e6:.1f}",
        minutes=round(counters["seconds"] / 60),
        families=len(read_relations()),
        results=markdown(results).strip(),
    )
