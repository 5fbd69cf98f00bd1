"""The documents name what the code has, no more and no less."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tinybrain import errors
from tinybrain.config import Settings
from tinybrain.telemetry.metrics import Levels, Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters

DOCS = Path(__file__).parents[1] / "docs"
SOURCE = DOCS.parent / "tinybrain"
OPERATIONS = (DOCS / "operations.md").read_text()


def settings_table():
    rows = [line for line in OPERATIONS.splitlines() if line.startswith("| `TINYBRAIN_")]
    return {name: row for row in rows for name in re.findall(r"`(TINYBRAIN_[A-Z_]+)`", row)}


def error_codes():
    """What errors default to and are raised with, but for those that no caller sees."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.TinyBrainError)
    ]
    unseen = (errors.TinyBrainError, errors.ConfigError)
    raised = (re.findall(r'\bcode="([a-z_]+)"', path.read_text()) for path in SOURCE.rglob("*.py"))
    return {kind.default_code for kind in kinds if kind not in unseen}.union(*raised)


def test_every_setting_is_described_and_every_described_one_exists():
    names = {f"TINYBRAIN_{field.upper()}" for field in Settings.model_fields}
    assert settings_table().keys() == names


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_other_names_of_a_setting_are_described_beside_it(field):
    row = settings_table()[f"TINYBRAIN_{field.upper()}"]
    for alias in Settings.model_fields[field].validation_alias.choices:
        assert f"`{alias}`" in row


def test_every_metric_is_described_and_every_described_one_exists():
    registry = CollectorRegistry()
    Metrics(PrometheusMeters(registry))
    Levels(PrometheusMeters(registry))
    names = {
        family.name.removeprefix("tinybrain_") + ("_total" if family.type == "counter" else "")
        for family in registry.collect()
    }
    table = OPERATIONS.partition("## Metrics")[2].partition("P95 of")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)} == names


@pytest.mark.parametrize("code", sorted(error_codes()))
def test_every_error_code_is_described(code):
    assert f"`{code}`" in (DOCS / "api.md").read_text()


def test_links_between_documents_lead_somewhere():
    root = DOCS.parent
    for document in [root / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)
