"""From settings to a TinyChat that answers."""

import torch

from tinybrain.config import Settings
from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import CheckpointFiles, find_checkpoint
from tinybrain.engine.fast_gpt import FastGPT
from tinybrain.engine.model import Model
from tinybrain.engine.packed_files import serving_weights
from tinybrain.engine.precision import choose_gpu_kind, choose_kind
from tinybrain.engine.tinychat import TinyChat
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import read_tokenizer
from tinybrain.errors import ConfigError


def load_tinychat(settings: Settings, *, slots: int | None = None) -> TinyChat:
    """Load the checkpoint that is set, else the model that ships, and start its engine.

    The number of threads torch uses on a CPU is left to the caller.

    Raises:
        ConfigError: The checkpoint cannot be found or used, or there is no such device.
    """
    files = find_checkpoint(
        checkpoint=settings.checkpoint,
        nanochat_base_dir=settings.nanochat_base_dir,
        source=settings.checkpoint_source,
        step=settings.checkpoint_step,
    )
    tokenizer = Tokenizer(read_tokenizer(files.tokenizer))
    model, digest = load_model_of(files, choose_device(settings.device), settings)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"{files.tokenizer} has {tokenizer.vocab_size} tokens, but the model of "
            f"{files.weights} has {model.config.vocab_size}: they do not belong together."
        )
    return TinyChat(
        model, tokenizer, checkpoint_hash=digest, slots=slots or settings.tinychat_slots
    )


def load_model_of(
    files: CheckpointFiles, device: torch.device, settings: Settings
) -> tuple[Model, str]:
    """The model that serves a checkpoint, and its digest.

    MPS, and a CPU in fp32, compute by the definition; else weights are packed.

    Raises:
        ConfigError: A file is damaged, or is no nanochat checkpoint.
    """
    variant = settings.checkpoint_variant
    on_gpu = device.type == "cuda"
    if not on_gpu and (device.type != "cpu" or settings.precision == "fp32"):
        return load_model(files, device, variant_name=variant), files.digest()
    kind = (
        choose_gpu_kind(settings.precision, device) if on_gpu else choose_kind(settings.precision)
    )
    weights, digest = serving_weights(
        files, kind, variant_name=variant, home=settings.home / "weights"
    )
    return FastGPT(weights, kind, device), digest


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: This machine has no such device.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present.get(name):
        raise ConfigError(f"TINYBRAIN_DEVICE is {name!r}, which this machine does not have.")
    return torch.device(name)
