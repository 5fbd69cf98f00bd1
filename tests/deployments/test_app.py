"""The graph that `serve run serve_config.yaml` binds."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.app import SECRETS, build_app
from tinybrain.errors import ConfigError

CHECKOUT = Path(__file__).parents[2]
KEY = "0x" + "2" * 64
SETTINGS = {
    "pay_to": "0x" + "1" * 40,
    "facilitator": "own",
    "api_key": "k",
    "answer_timeout_s": 50,
    "ingress_replicas": 2,
    "gas_private_key": KEY,
    "treasury_private_key": KEY,
}


def bound(application):
    """Every deployment of a graph by name, with what it is made with."""
    found, pending = {}, [application]
    while pending:
        deployment = pending.pop()._bound_deployment
        found[deployment.name] = deployment
        pending += [
            argument for argument in deployment.init_args if hasattr(argument, "_bound_deployment")
        ]
    return found


@pytest.fixture(scope="module")
def graph():
    return bound(build_app(SETTINGS))


def test_the_graph_has_its_four_deployments(graph):
    assert graph.keys() == {"PaymentIngress", "TinyChat", "Escalation", "Settlement"}


@pytest.mark.parametrize(
    ("name", "secrets"),
    [
        ("PaymentIngress", {"api_key"}),
        ("TinyChat", set()),
        ("Escalation", {"treasury_private_key"}),
        ("Settlement", {"gas_private_key", "treasury_private_key"}),
    ],
)
def test_each_deployment_is_handed_only_the_secrets_it_works_with(graph, name, secrets):
    settings = graph[name].init_args[0]
    assert {secret for secret in SECRETS if getattr(settings, secret) is not None} == secrets


def test_a_small_model_behind_an_api_is_asked_by_the_ingress_in_tinychats_place():
    remote = {
        "small_model_url": "https://api.example/v1",
        "small_model_name": "small",
        "small_model_api_key": "sk-1",
    }
    graph = bound(build_app(SETTINGS | remote))
    assert graph.keys() == {"PaymentIngress", "Escalation", "Settlement"}
    holders = [
        name for name, it in graph.items() if it.init_args[0].small_model_api_key is not None
    ]
    assert holders == ["PaymentIngress"]


def test_a_replica_that_is_replaced_may_finish_its_longest_answer(graph):
    for deployment in graph.values():
        assert deployment._deployment_config.graceful_shutdown_timeout_s > 50


def test_every_queue_is_bounded(graph):
    for deployment in graph.values():
        assert deployment._deployment_config.max_queued_requests > 0


def test_the_ingress_may_be_several_and_the_one_hot_wallet_is_one(graph):
    assert graph["PaymentIngress"]._deployment_config.num_replicas == 2
    assert graph["Settlement"]._deployment_config.num_replicas == 1


def test_missing_settings_are_named(tmp_path):
    with pytest.raises(ConfigError, match="TREASURY_ADDRESS"):
        build_app({})


@pytest.mark.parametrize(
    "upfront",
    [
        {"flow": "upfront"},
        {"prices": {"tinychat": {"flow": "upfront"}}},
        {"trust_after": 1},
    ],
)
def test_nothing_is_sold_upfront_that_could_not_be_refunded(upfront):
    with pytest.raises(ConfigError, match="could be refunded"):
        build_app(SETTINGS | upfront)
    paid_to_ourselves = "0x1563915e194D8CfBA1943570603F7606A3115508"  # KEY's address
    build_app(SETTINGS | upfront | {"pay_to": paid_to_ourselves})


def test_a_gate_that_cannot_work_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match=r"TINYBRAIN_MAX_LOCAL_ERROR .* cannot be reached"):
        build_app(SETTINGS | {"max_local_error": 0.0001})


def test_a_price_for_what_is_not_sold_is_named_before_anything_starts():
    with pytest.raises(ConfigError, match="gpt-9"):
        build_app(SETTINGS | {"prices": {"gpt-9": {"price": "1"}}})


def test_the_settings_may_come_from_a_dotenv_file(tmp_path):
    (tmp_path / ".env").write_text(
        f"TREASURY_ADDRESS={SETTINGS['pay_to']}\nTREASURY_PRIVATE_KEY={KEY}\n"
        f"TINYBRAIN_FACILITATOR=https://facilitator.example\n"
    )
    script = "from deployments.app import build_app; build_app({}); print('bound')"
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "bound"


def test_the_shipped_configuration_names_this_graph_and_listens_on_loopback():
    config = yaml.safe_load((CHECKOUT / "serve_config.yaml").read_text())
    (application,) = config["applications"]
    assert application["import_path"] == "deployments.app:build_app"
    assert config["http_options"]["host"] == "127.0.0.1"
