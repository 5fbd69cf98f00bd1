"""Serving weights kept on disk, so that the next start reads a quarter and converts nothing.

A directory for a checkpoint and a kind, with one safetensors file a group. It is made anew when the
checkpoint's file has changed; losing or damaging it costs nothing but time.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinybrain.engine.checkpoint import read_checkpoint
from tinybrain.engine.checkpoint_files import CheckpointFiles
from tinybrain.engine.gpt import GPTConfig
from tinybrain.engine.kernels import Kind
from tinybrain.engine.serving_weights import FromCheckpoint, Group, ServingWeights
from tinybrain.engine.variants import VARIANTS

ABOUT = "about.json"
FORMAT = 1
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
        self._home = home

    def group(self, layer: int | None) -> Group:
        """See `ServingWeights`; mapped, not read."""
        found: dict[str, list[Tensor]] = {}
        for name, tensor in sorted(load_file(self._home / _file(layer)).items()):
            found.setdefault(name.partition(".")[0], []).append(tensor)
        return {name: tuple(tensors) for name, tensors in found.items()}


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
        if kept.stamp != stamp:
            return None
        for layer in _layers(kept.config):
            kept.group(layer)  # maps it: a damaged file shows now
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return kept


def _keep(weights: ServingWeights, home: Path, about: dict[str, object]) -> None:
    config = {name: value for name, value in asdict(weights.config).items() if value is not None}
    about |= {"config": config, "variant": weights.variant.name}
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            made = Path(scratch) / home.name
            made.mkdir()
            for layer in _layers(weights.config):
                group = weights.group(layer)
                tensors = {
                    f"{n}.{i}": t.contiguous() for n in group for i, t in enumerate(group[n])
                }
                save_file(tensors, made / _file(layer))
            (made / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            shutil.rmtree(home, ignore_errors=True)
            made.rename(home)  # whole or not at all
    except (OSError, SafetensorError) as error:
        log.warning("The converted weights are not kept in %s: %s", home, error)


def _layers(config: GPTConfig) -> Iterator[int | None]:
    yield from range(config.n_layer)
    yield None


def _file(layer: int | None) -> str:
    return "rest.safetensors" if layer is None else f"{layer:03d}.safetensors"


def _stamp(files: CheckpointFiles) -> list[list[object]]:
    """What changes when a checkpoint's files do, in the form in which JSON gives it back."""
    paths = (files.weights, files.config, files.tokenizer)
    return [[FORMAT, str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
