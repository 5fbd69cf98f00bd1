import json
import os
import pickle
from dataclasses import replace

import pytest
import torch

from tinybrain.engine.checkpoint import load_model
from tinybrain.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def weights(golden_files):
    return torch.load(golden_files.weights, weights_only=True)


@pytest.fixture
def load(golden_files, tmp_path):
    """Load the golden model with other weights or other config fields."""

    def load(weights=None, **fields):
        files = golden_files
        if weights is not None:
            torch.save(weights, tmp_path / "model.pt")
            files = replace(files, weights=tmp_path / "model.pt")
        meta = json.loads(files.config.read_text())
        meta["model_config"] |= fields
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        return load_model(replace(files, config=tmp_path / "meta.json"), CPU)

    return load


def test_weights_are_fp32_on_a_cpu_and_do_not_learn(golden_model):
    assert {p.dtype for p in golden_model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in golden_model.parameters())


def test_the_prefix_of_a_compiled_model_is_stripped(load, weights, golden_model):
    loaded = load({f"_orig_mod.{name}": tensor for name, tensor in weights.items()})
    assert loaded.state_dict().keys() == golden_model.state_dict().keys()


def test_padded_vocabulary_rows_are_cropped(each, tmp_path):
    weights = torch.load(each.files.weights, weights_only=True)
    for name, tensor in weights.items():
        if len(tensor) == each.model.config.vocab_size:
            weights[name] = torch.cat([tensor, torch.full((64, tensor.shape[1]), 9.0)])
    torch.save(weights, tmp_path / "model.pt")
    loaded = load_model(replace(each.files, weights=tmp_path / "model.pt"), CPU)
    for name, tensor in each.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.mark.parametrize(
    "key",
    ["smear_gate.weight", "transformer.h.4.attn.c_q.weight", "v0_lambdas", "bigram_lambdas"],
)
def test_an_unknown_tensor_is_refused_by_name(load, weights, key):
    with pytest.raises(ConfigError, match=f"{key}.*V1"):
        load(weights | {key: torch.ones(4)})


def test_an_experiment_between_two_variants_is_refused(each, tmp_path):
    weights = torch.load(each.files.weights, weights_only=True)
    torch.save(weights | {"bigram_embed.embed.weight": torch.ones(4, 4)}, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="bigram_embed"):
        load_model(replace(each.files, weights=tmp_path / "model.pt"), CPU)


def test_half_of_a_variant_is_refused(load, weights):
    with pytest.raises(ConfigError, match=r"x0_lambdas.*V2"):
        load(weights | {"resid_lambdas": torch.ones(4)})


def test_a_named_variant_must_fit_the_file(golden_files):
    with pytest.raises(ConfigError, match=r"backout_lambda.*V6"):
        load_model(golden_files, CPU, variant_name="V6")


def test_a_missing_tensor_is_refused_by_name(load, weights):
    del weights["lm_head.weight"]
    with pytest.raises(ConfigError, match=r"lm_head\.weight"):
        load(weights)


def test_an_unknown_config_field_is_refused_by_name(load):
    with pytest.raises(ConfigError, match="frozen_embd"):
        load(frozen_embd=False)


def test_a_window_pattern_without_the_tensors_of_its_time_is_refused(load):
    with pytest.raises(ConfigError, match=r"resid_lambdas.*V3"):
        load(window_pattern="SSSL")


@pytest.mark.parametrize("fields", [{"n_embd": 128}, {"vocab_size": 513}, {"n_kv_head": 2}])
def test_weights_of_another_size_are_refused(load, fields):
    with pytest.raises(ConfigError, match="does not fit"):
        load(**fields)


@pytest.mark.parametrize("fields", [{"n_head": 0}, {"n_layer": None}])
def test_an_impossible_config_is_refused(load, fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        load(**fields)


@pytest.mark.parametrize("content", [[1, 2], {"lm_head.weight": "text"}])
def test_a_file_of_anything_but_tensors_is_refused(load, content):
    with pytest.raises(ConfigError, match="named tensors"):
        load(content)


def test_a_damaged_or_hostile_file_is_refused(golden_files, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"lm_head.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "cut.pt").write_bytes(golden_files.weights.read_bytes()[:5000])
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    for name in ("evil.pt", "pickle.pt", "cut.pt", "junk.safetensors", "absent.pt"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_model(replace(golden_files, weights=tmp_path / name), CPU)
    assert not (tmp_path / "owned").exists()
