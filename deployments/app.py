"""The Serve application: `serve run serve_config.yaml` binds this graph."""

from typing import Any

from ray.serve import Application

from deployments.escalation import Escalation
from deployments.ingress import PaymentIngress
from deployments.settlement import Settlement
from deployments.tinychat import TinyChat
from tinybrain.api.assembly import require_sellable
from tinybrain.config import Settings, load_settings
from tinybrain.payments.refunding import can_refund
from tinybrain.routing.calibration.assembly import open_gate

REPLICA_CPUS = 0.1  # what Ray reserves; below one it gives a replica one compute thread
STREAMS = 256  # requests under way in a replica that mostly waits
QUEUE = 1024
DRAIN_MARGIN_S = 10


def build_app(args: dict[str, Any]) -> Application:
    """Bind the graph. `args` are settings by name and win over the environment.

    Raises:
        ConfigError: Settings are missing or wrong; the message names each.
    """
    settings = load_settings(**args).require_serving()
    settings = settings.model_copy(update={"refunds": can_refund(settings)})
    require_sellable(settings)
    open_gate(settings)
    # A replica that is replaced may finish its answers: cut streams lose their payments too.
    drain_s = settings.answer_timeout_s + DRAIN_MARGIN_S
    waiting: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": REPLICA_CPUS},
        "max_ongoing_requests": STREAMS,
        "max_queued_requests": QUEUE,
        "graceful_shutdown_timeout_s": drain_s,
    }
    escalation = Escalation.options(**waiting).bind(
        _without_keys(settings, keep=("treasury_private_key", "upstream_api_key"))
    )
    settlement = Settlement.options(**waiting).bind(
        _without_keys(
            settings,
            keep=(
                "cdp_api_key_id",
                "cdp_api_key_secret",
                "gas_private_key",
                "treasury_private_key",  # it signs refunds
            ),
        )
    )
    return PaymentIngress.options(num_replicas=settings.ingress_replicas, **waiting).bind(
        _without_keys(
            settings,
            keep=("api_key", "cdp_api_key_id", "cdp_api_key_secret", "small_model_api_key"),
        ),
        # A small model behind an API is asked by the ingress itself: another hop has no use.
        None if settings.small_model_url else _tinychat(settings, drain_s),
        escalation,
        settlement,
    )


def _tinychat(settings: Settings, drain_s: float) -> Application:
    return TinyChat.options(
        graceful_shutdown_timeout_s=drain_s,
        max_ongoing_requests=settings.tinychat_slots * 2,
        max_queued_requests=settings.tinychat_slots * 8,
        autoscaling_config={
            "min_replicas": settings.tinychat_min_replicas,
            "max_replicas": max(settings.tinychat_max_replicas, settings.tinychat_min_replicas),
            "target_ongoing_requests": settings.tinychat_slots,
        },
        ray_actor_options={"num_cpus": REPLICA_CPUS, "num_gpus": settings.tinychat_num_gpus},
    ).bind(_without_keys(settings))


SECRETS = (
    "api_key",
    "cdp_api_key_id",
    "cdp_api_key_secret",
    "gas_private_key",
    "small_model_api_key",
    "treasury_private_key",
    "upstream_api_key",
)


def _without_keys(settings: Settings, *, keep: tuple[str, ...] = ()) -> Settings:
    """Each deployment gets only the secrets it works with."""
    return settings.model_copy(update={name: None for name in SECRETS if name not in keep})
