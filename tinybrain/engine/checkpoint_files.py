"""Where a checkpoint's files are, in the layouts that exist.

- the shipped form: `model.safetensors`, `config.json`, `tokenizer.json` in one directory
- nanochat's files in one directory: `model_NNNNNN.pt`, `meta_NNNNNN.json`, a tokenizer beside them
- a nanochat base directory: `chatsft_checkpoints/d20/...` and `tokenizer/tokenizer.pkl`
"""

import hashlib
import importlib.resources
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tinybrain.errors import ConfigError

SHIPPED_MODEL = "tinychat-10m"
SOURCE_DIRECTORIES: Mapping[str, str] = MappingProxyType(
    {
        "base": "base_checkpoints",
        "mid": "mid_checkpoints",
        "sft": "chatsft_checkpoints",
        "rl": "chatrl_checkpoints",
    }
)


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The three files of a checkpoint."""

    weights: Path
    config: Path
    tokenizer: Path

    def digest(self) -> str:
        """Identity of the checkpoint: the first 16 hexadecimal digits of a SHA-256 of its files."""
        whole = hashlib.sha256()
        for path in (self.weights, self.config, self.tokenizer):
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()[:16]

    def parameters(self) -> int | None:
        """How many weights there are, by a safetensors header; torch's own files tell only torch.

        Source: the safetensors format, a length in 8 bytes and then JSON.
        """
        if self.weights.suffix != ".safetensors":
            return None
        with self.weights.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(
            math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
        )


def find_checkpoint(
    *, checkpoint: Path | None, nanochat_base_dir: Path | None, source: str, step: int | None
) -> CheckpointFiles:
    """The files of a checkpoint directory, else of a nanochat base directory, else as shipped.

    `source` ("sft", "mid", "rl", "base") chooses among a base directory's checkpoints; of several
    depths the deepest is taken, of several steps the given or the last.

    Raises:
        ConfigError: A file is missing; the message says which and where it was looked for.
    """
    if checkpoint is not None:
        return _in_directory(checkpoint, step)
    if nanochat_base_dir is not None:
        return _in_directory(_deepest(nanochat_base_dir, source), step)
    package = Path(str(importlib.resources.files("tinybrain")))
    return _in_directory(package / "models" / SHIPPED_MODEL, step=None)


def _in_directory(directory: Path, step: int | None) -> CheckpointFiles:
    if step is None and (directory / "model.safetensors").is_file():
        weights, config = directory / "model.safetensors", directory / "config.json"
    else:
        name = "model_*.pt" if step is None else f"model_{step:06d}.pt"
        found = sorted(directory.glob(name))
        if not found:
            raise ConfigError(
                f"No checkpoint in {directory}: neither model.safetensors nor {name}. Check "
                "TINYBRAIN_CHECKPOINT, NANOCHAT_BASE_DIR and TINYBRAIN_CHECKPOINT_STEP."
            )
        weights = found[-1]
        config = weights.with_name(weights.name.replace("model_", "meta_")).with_suffix(".json")
    if not config.is_file():
        raise ConfigError(f"{config} is missing: it says how large the model in {weights.name} is.")
    return CheckpointFiles(weights, config, _tokenizer(directory))


def _tokenizer(directory: Path) -> Path:
    # In a nanochat base directory the one tokenizer lies beside the checkpoint directories.
    homes = (directory, directory / "tokenizer", directory.parent.parent / "tokenizer")
    for home in homes:
        for name in ("tokenizer.json", "tokenizer.pkl"):
            if (home / name).is_file():
                return home / name
    raise ConfigError(
        "tokenizer.json or tokenizer.pkl is missing; looked in " + ", ".join(map(str, homes))
    )


def _deepest(base: Path, source: str) -> Path:
    if source not in SOURCE_DIRECTORIES:
        raise ConfigError(f"{source!r} is no checkpoint source: {', '.join(SOURCE_DIRECTORIES)}.")
    home = base / SOURCE_DIRECTORIES[source]
    tags = [path for path in home.glob("*") if path.is_dir()]
    if not tags:
        raise ConfigError(f"No checkpoint in {home}. Check NANOCHAT_BASE_DIR and the source.")
    depths = {int(match[1]): tag for tag in tags if (match := re.fullmatch(r"d(\d+)", tag.name))}
    return depths[max(depths)] if depths else max(tags, key=lambda tag: tag.stat().st_mtime)
