"""Checkpoints read from disk, refusing whatever this engine would get wrong.

Reads nanochat's variants V1 to V6 (`variants.py`); what fits none of them is refused by name.
"""

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tinybrain.engine.checkpoint_files import CheckpointFiles
from tinybrain.engine.gpt import GPT, GPTConfig
from tinybrain.engine.variants import VARIANTS, Variant, variant_of
from tinybrain.errors import ConfigError

VOCAB_TENSORS = re.compile(r"transformer\.wte\.weight|lm_head\.weight|value_embeds\.\d+\.weight")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A nanochat model on disk: its weights, mapped, under nanochat's names."""

    config: GPTConfig
    variant: Variant
    weights: Mapping[str, Tensor]


def read_checkpoint(files: CheckpointFiles, *, variant_name: str | None = None) -> Checkpoint:
    """Read a checkpoint; its variant is told from it, unless a name of VARIANTS is given.

    Raises:
        ConfigError: A file is damaged, or is no nanochat checkpoint; the message names the first
            key or field that is unknown or missing.
    """
    config = read_config(files.config)
    weights = read_weights(files.weights)
    if variant_name is None:
        widths = {name: tensor.shape[-1] for name, tensor in weights.items() if tensor.ndim}
        variant = variant_of(widths, has_windows=config.window_pattern is not None)
    else:
        variant = VARIANTS[variant_name]
    for name in filter(VOCAB_TENSORS.fullmatch, weights):
        # From December 2025 nanochat pads the vocabulary to a multiple of 64.
        weights[name] = weights[name][: config.vocab_size]
    with torch.device("meta"):
        expected = GPT(config, variant).state_dict()
    _refuse_other_keys(set(weights), set(expected), files.weights, variant)
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise ConfigError(
                f"{files.weights} does not fit {files.config.name}: {name} has the shape "
                f"{list(weights[name].shape)}, not {list(tensor.shape)}."
            )
    return Checkpoint(config, variant, weights)


def reference_model(checkpoint: Checkpoint, device: torch.device) -> GPT:
    """The model as gpt.py defines it; bf16 on CUDA, fp32 elsewhere."""
    with torch.device("meta"):
        model = GPT(checkpoint.config, checkpoint.variant)
    model.load_state_dict(checkpoint.weights, assign=True)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return model.to(device=device, dtype=dtype).requires_grad_(requires_grad=False).eval()


def load_model(
    files: CheckpointFiles, device: torch.device, *, variant_name: str | None = None
) -> GPT:
    """`reference_model` of `read_checkpoint`."""
    return reference_model(read_checkpoint(files, variant_name=variant_name), device)


def read_config(path: Path) -> GPTConfig:
    """Read `model_config` of a meta or config file.

    Raises:
        ConfigError: The file is no such JSON document, or has other fields.
    """
    try:
        found = json.loads(path.read_bytes())["model_config"]
        _refuse_other_fields(set(found), path)
        return GPTConfig(**found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no description of a nanochat model: {error!r}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` or `.safetensors` file, mapped from disk, names without `_orig_mod.`.

    Raises:
        ConfigError: The file is damaged, or holds anything but named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ConfigError(f"{path} holds something else than named tensors.")
    return {str(name).removeprefix("_orig_mod."): tensor for name, tensor in found.items()}


def _refuse_other_fields(found: set[str], where: Path) -> None:
    if unknown := sorted(found - {field.name for field in fields(GPTConfig)}):
        raise ConfigError(
            f"{where} holds {unknown[0]!r}, which no nanochat that this engine knows has."
        )


def _refuse_other_keys(found: set[str], expected: set[str], where: Path, variant: Variant) -> None:
    if unknown := sorted(found - expected):
        raise ConfigError(
            f"{where} holds {unknown[0]!r}, which nanochat {variant.name} (from {variant.since}) "
            f"does not have. This engine reads {', '.join(VARIANTS)} and guesses at no other."
        )
    if missing := sorted(expected - found):
        raise ConfigError(f"{where} lacks {missing[0]!r}, which nanochat {variant.name} has.")
