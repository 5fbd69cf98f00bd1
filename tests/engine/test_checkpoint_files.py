import shutil

import pytest
from safetensors.torch import load_file

from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.errors import ConfigError


def find(checkpoint=None, base=None, source="sft", step=None):
    return find_checkpoint(checkpoint=checkpoint, nanochat_base_dir=base, source=source, step=step)


@pytest.fixture
def base(tmp_path, golden_files):
    """A nanochat base directory with two depths and two steps."""
    for tag, step in (("d4", 1), ("d12", 1), ("d12", 700)):
        home = tmp_path / "chatsft_checkpoints" / tag
        home.mkdir(parents=True, exist_ok=True)
        (home / f"model_{step:06d}.pt").write_bytes(b"weights")
        shutil.copy(golden_files.config, home / f"meta_{step:06d}.json")
    (tmp_path / "tokenizer").mkdir()
    shutil.copy(golden_files.tokenizer, tmp_path / "tokenizer")
    return tmp_path


def test_a_base_directory_gives_its_deepest_models_last_step(base):
    files = find(base=base)
    assert files.weights == base / "chatsft_checkpoints/d12/model_000700.pt"
    assert files.config == base / "chatsft_checkpoints/d12/meta_000700.json"
    assert files.tokenizer == base / "tokenizer/tokenizer.pkl"


def test_a_step_can_be_chosen(base):
    assert find(base=base, step=1).weights.name == "model_000001.pt"
    with pytest.raises(ConfigError, match=r"model_000809\.pt"):
        find(base=base, step=809)


def test_a_checkpoint_directory_inside_a_base_directory_finds_the_tokenizer(base):
    assert find(base / "chatsft_checkpoints/d4").tokenizer == base / "tokenizer/tokenizer.pkl"


def test_a_directory_wins_over_a_base_directory_and_both_over_the_shipped_model(base):
    assert find(base / "chatsft_checkpoints/d4", base).weights.parent.name == "d4"
    assert find().weights.parent.name == "tinychat-10m"


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("tokenizer/tokenizer.pkl", r"tokenizer\.json or tokenizer\.pkl"),
        ("chatsft_checkpoints/d12/meta_000700.json", r"meta_000700\.json"),
        ("chatsft_checkpoints/d12/model_000700.pt", None),
    ],
)
def test_a_missing_file_is_named(base, missing, why):
    (base / missing).unlink()
    if why is None:
        assert find(base=base).weights.name == "model_000001.pt"
        return
    with pytest.raises(ConfigError, match=why):
        find(base=base)


@pytest.mark.parametrize("source", ["rl", "nonsense"])
def test_a_source_without_checkpoints_is_refused(base, source):
    with pytest.raises(ConfigError, match=source):
        find(base=base, source=source)


@pytest.mark.parametrize("part", ["weights", "config", "tokenizer"])
def test_the_digest_tells_any_change_of_any_file(base, part):
    files = find(base=base)
    before = files.digest()
    assert len(before) == 16
    assert files.digest() == before
    getattr(files, part).write_bytes(b"other")
    assert files.digest() != before


def test_safetensors_tell_how_many_weights_there_are_and_torchs_own_files_do_not(base):
    tensors = load_file(find().weights)
    assert find().parameters() == sum(tensor.numel() for tensor in tensors.values())
    assert find(base=base).parameters() is None
