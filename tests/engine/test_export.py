import shutil

import pytest
import torch

from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.engine.export import export_checkpoint
from tinybrain.engine.tokenizer_file import read_tokenizer


@pytest.fixture
def source(golden_files, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in (golden_files.weights, golden_files.config, golden_files.tokenizer):
        shutil.copy(path, source)
    return source


def test_an_exported_checkpoint_is_the_same_model_in_bf16_without_pickles(
    source, golden_files, golden_model, tmp_path
):
    export_checkpoint(source, tmp_path / "out")
    files = find_checkpoint(
        checkpoint=tmp_path / "out", nanochat_base_dir=None, source="sft", step=None
    )
    exported = load_model(files, torch.device("cpu"))
    assert exported.config == golden_model.config
    for name, tensor in golden_model.state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor.bfloat16().float())
    assert read_tokenizer(files.tokenizer) == read_tokenizer(golden_files.tokenizer)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    }
