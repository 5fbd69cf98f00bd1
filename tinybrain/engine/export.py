"""A checkpoint in the form that ships with the package: no pickle, weights in bf16."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from tinybrain.engine.checkpoint import read_config, read_weights
from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.engine.tokenizer_file import read_tokenizer, write_tokenizer


def export_checkpoint(source_dir: Path, out_dir: Path) -> None:
    """Write `model.safetensors`, `config.json` and `tokenizer.json` of a checkpoint directory.

    Raises:
        ConfigError: The source is incomplete or damaged.
    """
    files = find_checkpoint(checkpoint=source_dir, nanochat_base_dir=None, source="sft", step=None)
    config, tokenizer = read_config(files.config), read_tokenizer(files.tokenizer)
    weights = {name: t.to(torch.bfloat16) for name, t in read_weights(files.weights).items()}
    out_dir.mkdir(parents=True, exist_ok=True)
    save_file(weights, out_dir / "model.safetensors", metadata={"format": "pt"})
    sizes = {name: value for name, value in asdict(config).items() if value is not None}
    document = json.dumps({"model_config": sizes}, indent=2)
    (out_dir / "config.json").write_text(document + "\n", encoding="utf-8")
    write_tokenizer(tokenizer, out_dir / "tokenizer.json")
