"""The command line, where no service is needed."""

import json
import os
import subprocess
import sys

import pytest

from tinybrain.cli.ask import receipt_line

SLOW_TO_IMPORT = {
    *("torch", "ray", "web3", "x402", "sqlalchemy"),
    *("httpx", "aiohttp", "eth_account", "numpy", "pydantic"),
}


def python(*arguments, cwd, **environment):
    """Run Python with no settings but the test's own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def tinybrain(*arguments, **options):
    return python("-m", "tinybrain", *arguments, **options)


def test_help_answers_at_once_without_what_is_slow_to_import(tmp_path):
    result = python("-X", "importtime", "-m", "tinybrain", "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "ask" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "tinybrain.cli" in imported
    assert not imported & SLOW_TO_IMPORT


def test_asking_without_a_devnet_says_how_to_start_one(tmp_path):
    result = tinybrain("ask", "Hello", cwd=tmp_path)
    assert result.returncode == 1
    assert "make run" in result.stderr


def test_asking_a_dead_service_says_so(tmp_path):
    key = "0x" + "1" * 64
    result = tinybrain("ask", "Hello", "--key", key, "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert result.returncode == 1
    assert "cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("key", ["hunter2", "0x12"])
def test_a_wrong_key_is_refused_and_not_repeated(tmp_path, key):
    result = tinybrain("ask", "Hello", "--key", key, cwd=tmp_path)
    assert result.returncode == 1
    assert "no private key" in result.stderr
    assert "hunter2" not in result.stderr


def test_a_price_cap_that_is_no_amount_is_a_usage_error(tmp_path):
    result = tinybrain(
        "ask", "Hello", "--key", "0x" + "1" * 64, "--max-price", "cheap", cwd=tmp_path
    )
    assert result.returncode == 2


def test_serving_without_settings_names_every_one_that_is_missing(tmp_path):
    (tmp_path / "serve_config.yaml").touch()
    result = tinybrain("serve", cwd=tmp_path)
    assert result.returncode == 1
    for name in ("TREASURY_ADDRESS", "TINYBRAIN_FACILITATOR", "TREASURY_PRIVATE_KEY"):
        assert name in result.stderr
    assert "Traceback" not in result.stderr


def test_the_doctor_finds_what_is_missing_and_loads_the_model(tmp_path):
    result = tinybrain("doctor", "--json", cwd=tmp_path)
    findings = json.loads(result.stdout)
    assert result.returncode == 1
    assert any(f["ok"] is False and "TREASURY_ADDRESS" in f["text"] for f in findings)
    (model,) = (f for f in findings if f["group"] == "Model")
    assert model["ok"] is True
    assert "10.0M parameters" in model["text"]


def test_the_receipt_line_leaves_out_what_is_not_known():
    told = {
        "answered_by": "upstream",
        "model": "big",
        "escalation_reason": "keyword",
        "perplexity": None,
        "confidence": None,
        "ttft_ms": 12.3,
        "price_atomic": 10_000,
    }
    line = receipt_line(
        told, {"cost": 1_000, "payment": {"state": "settled", "transaction": "0x1"}}
    )
    assert line == (
        "upstream (big) · escalation: keyword · first token 12 ms · price $0.01 · cost $0.001 · "
        "settled 0x1"
    )
