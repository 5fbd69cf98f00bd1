"""Serving weights kept on disk, so that the next start converts nothing and maps what it needs.

A directory for a checkpoint and a kind: one file of tensors, each where a cache line begins, and
one that says what they are. Replicas on a machine share its memory. It is made anew when the
checkpoint's file has changed; losing or damaging it costs nothing but time.
"""

import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from tinybrain.engine.checkpoint import read_checkpoint
from tinybrain.engine.checkpoint_files import CheckpointFiles
from tinybrain.engine.gpt import GPTConfig
from tinybrain.engine.kernels import Kind
from tinybrain.engine.serving_weights import FromCheckpoint, Group, ServingWeights
from tinybrain.engine.variants import VARIANTS

ABOUT, WEIGHTS = "about.json", "weights"
ALIGNMENT = 64
FORMAT = 2
"""What another version of this module has written is made anew."""
WORTH_KEEPING_BYTES = 100_000_000
"""Smaller checkpoints are converted in less than a second."""

log = logging.getLogger(__name__)


class PackedFiles:
    """`ServingWeights` from such a directory; `digest` is the checkpoint's."""

    def __init__(self, home: Path) -> None:
        about = json.loads((home / ABOUT).read_bytes())
        self.config = GPTConfig(**about["config"])
        self.variant = VARIANTS[about["variant"]]
        self.digest: str = about["digest"]
        self.stamp: object = about["stamp"]
        with (home / WEIGHTS).open("rb") as file:
            pages = mmap.mmap(file.fileno(), about["bytes"], access=mmap.ACCESS_COPY)
        self._groups: list[Group] = [
            {name: tuple(_tensor(pages, **part) for part in parts) for name, parts in group.items()}
            for group in about["groups"]
        ]

    def group(self, layer: int | None) -> Group:
        """See `ServingWeights`; mapped, not read."""
        return self._groups[-1 if layer is None else layer]


def _tensor(pages: mmap.mmap, dtype: str, shape: list[int], offset: int) -> Tensor:
    return torch.frombuffer(
        pages, dtype=getattr(torch, dtype), count=math.prod(shape), offset=offset
    ).view(shape)


def serving_weights(
    files: CheckpointFiles, kind: Kind, *, variant_name: str | None, home: Path
) -> tuple[ServingWeights, str]:
    """A checkpoint's weights for a kind, and its digest: those kept in `home`, where there are.

    Nothing is kept of small checkpoints, or where nothing can be written.

    Raises:
        ConfigError: See `read_checkpoint`.
    """
    if files.weights.stat().st_size < WORTH_KEEPING_BYTES:
        checkpoint = read_checkpoint(files, variant_name=variant_name)
        return FromCheckpoint(checkpoint, kind), files.digest()
    name = f"{files.weights.resolve()} {variant_name}"
    place = home / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{kind.name}"
    stamp = _stamp(files)
    if kept := _open(place, stamp):
        return kept, kept.digest
    prepared = FromCheckpoint(read_checkpoint(files, variant_name=variant_name), kind)
    digest = files.digest()
    _keep(prepared, place, {"digest": digest, "stamp": stamp})
    return _open(place, stamp) or prepared, digest


def _open(home: Path, stamp: object) -> PackedFiles | None:
    """What is kept there, if it is whole and of the very files of this stamp."""
    try:
        kept = PackedFiles(home)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError):
        return None
    return kept if kept.stamp == stamp else None


def _keep(weights: ServingWeights, home: Path, about: dict[str, object]) -> None:
    config = {name: value for name, value in asdict(weights.config).items() if value is not None}
    about |= {"config": config, "variant": weights.variant.name}
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            made = Path(scratch) / home.name
            made.mkdir()
            about |= _write(weights, made / WEIGHTS)
            with (made / ABOUT).open("w", encoding="utf-8") as file:
                json.dump(about, file)
                _to_disk(file)
            shutil.rmtree(home, ignore_errors=True)
            made.rename(home)  # whole or not at all
    except OSError as error:
        log.warning("The converted weights are not kept in %s: %s", home, error)


def _write(weights: ServingWeights, path: Path) -> dict[str, object]:
    with path.open("wb") as file:
        groups = [
            {
                name: [_append(file, tensor) for tensor in tensors]
                for name, tensors in weights.group(layer).items()
            }
            for layer in _layers(weights.config)
        ]
        _to_disk(file)
        return {"bytes": file.tell(), "groups": groups}


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _append(file: BinaryIO, tensor: Tensor) -> dict[str, object]:
    """Write a tensor, and say what `_tensor` finds it by."""
    offset = file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
    file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": list(tensor.shape), "offset": offset}


def _layers(config: GPTConfig) -> Iterator[int | None]:
    yield from range(config.n_layer)
    yield None


def _stamp(files: CheckpointFiles) -> list[list[object]]:
    """What changes when a checkpoint's files do, in the form in which JSON gives it back."""
    paths = (files.weights, files.config, files.tokenizer)
    return [[FORMAT, str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
