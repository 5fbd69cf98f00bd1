"""From settings to the gate: whose router it is, what it is asked for, what does without one."""

import logging
from dataclasses import replace
from pathlib import Path

from tinybrain.config import Settings
from tinybrain.engine.checkpoint_files import CheckpointFiles, find_checkpoint
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.gates import calibrated_gate
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import UNCALIBRATED_HOLD_BACK, Gate
from tinybrain.routing.rules import Rules
from tinybrain.upstreams.factory import small_model_identity

ROUTER_FILE = "router.json"
logger = logging.getLogger(__name__)


def open_router(settings: Settings) -> Router | None:
    """The router that is set, else the one beside the checkpoint, else None.

    A machine without the checkpoint finds only one that is set; so does one that asks a small
    model behind an API.

    Raises:
        ConfigError: The one that is set is missing, cannot be read, or is not of the small model
            behind an API.
    """
    if settings.router is not None:
        router = Router.read(settings.router)
        if settings.small_model_url is not None:
            router.require(identity_of(settings))
        return router
    try:
        beside = router_place(settings)
    except ConfigError as error:
        # TinyChat may run on other machines than the ingress, which then has no checkpoint.
        logger.warning("No router is looked for beside the checkpoint: %s", error.message)
        return None
    return Router.read(beside) if beside and beside.is_file() else None


def router_place(settings: Settings) -> Path | None:
    """Where a router is found without being named: beside the checkpoint, if there is one.

    Raises:
        ConfigError: The checkpoint cannot be found.
    """
    if settings.small_model_url is not None:
        return None
    return checkpoint_of(settings).weights.with_name(ROUTER_FILE)


def open_gate(settings: Settings) -> Gate:
    """The gate that follows the target that is set, else the router's.

    Raises:
        ConfigError: The target cannot be reached or there is no router to reach it with, the gate
            would decide nothing, or the router was made for another window of tokens.
    """
    router = open_router(settings)
    target = target_of(settings)
    if router is None:
        if target is not None:
            raise ConfigError(
                "TINYBRAIN_TARGET_ESCALATION_RATE or TINYBRAIN_MAX_LOCAL_ERROR is set, but there "
                f"is no calibration to follow it with: no {ROUTER_FILE} lies beside the "
                "checkpoint, or the small model is behind an API. Calibrate it with tinybrain "
                "calibrate, name its router with TINYBRAIN_ROUTER, or unset the target."
            )
        return Gate(hold_back_tokens=settings.hold_back_tokens or UNCALIBRATED_HOLD_BACK)
    if settings.hold_back_tokens not in (None, router.hold_back_tokens):
        raise ConfigError(
            f"TINYBRAIN_HOLD_BACK_TOKENS is {settings.hold_back_tokens}, but the router was "
            f"calibrated on the first {router.hold_back_tokens} tokens. Unset it, or calibrate "
            "again."
        )
    gate = calibrated_gate(router, target)
    return gate if settings.continue_on_doubt else replace(gate, later=None)


def target_of(settings: Settings) -> Target | None:
    """The target that is set."""
    if settings.target_escalation_rate is not None:
        return Target(escalation_rate=settings.target_escalation_rate)
    if settings.max_local_error is not None:
        return Target(max_local_error=settings.max_local_error)
    return None


def identity_of(settings: Settings) -> str:
    """What a router of the small model is bound to: TinyChat's hash, or the name behind an API.

    Raises:
        ConfigError: The checkpoint cannot be found.
    """
    if settings.small_model_url is not None:
        return small_model_identity(settings)
    return checkpoint_of(settings).digest()


def rules_of(settings: Settings) -> Rules:
    """The rules that are switched on."""
    return Rules(
        keyword=settings.keyword_rule,
        complexity=settings.complexity_rule,
        self_referential=settings.self_referential_rule,
    )


def checkpoint_of(settings: Settings) -> CheckpointFiles:
    """The files of the checkpoint that is set; see `find_checkpoint`.

    Raises:
        ConfigError: A file is missing, or the small model is behind an API and has none here.
    """
    if settings.small_model_url is not None:
        raise ConfigError(
            f"{identity_of(settings)} is behind an API and has no checkpoint here. Unset "
            "TINYBRAIN_SMALL_MODEL_URL to use TinyChat."
        )
    return find_checkpoint(
        checkpoint=settings.checkpoint,
        nanochat_base_dir=settings.nanochat_base_dir,
        source=settings.checkpoint_source,
        step=settings.checkpoint_step,
    )
