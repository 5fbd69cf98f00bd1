import json

import pytest

from tinybrain.engine import packed_files
from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.fast_gpt import FastGPT
from tinybrain.engine.kernels import FP16, INT8
from tinybrain.engine.native_kernels import NATIVE_INT8
from tinybrain.engine.packed_files import PackedFiles, serving_weights
from tinybrain.engine.precision import works
from tinybrain.engine.variants import V4_MARCH
from tinybrain.errors import ConfigError


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(packed_files, "WORTH_KEEPING_BYTES", 0)


@pytest.fixture
def weights(each, tmp_path):
    """Serving weights of a golden model, kept in tmp_path."""

    def read(kind=FP16):
        name = each.variant if each.variant == V4_MARCH.name else None
        return serving_weights(each.files, kind, variant_name=name, home=tmp_path)

    return read


@pytest.fixture
def v1_weights(golden, tmp_path):
    return lambda kind=FP16: serving_weights(golden.files, kind, variant_name=None, home=tmp_path)


def logits(weights, kind, ids):
    model = FastGPT(weights, kind)
    return model.logits(model(ids[None], WholeSequence(ids[None]))[0])


@pytest.mark.parametrize("kind", [FP16, INT8, NATIVE_INT8], ids=lambda kind: kind.name)
def test_what_was_kept_computes_the_same(each, weights, kind, monkeypatch):
    if not works(kind):
        pytest.skip(f"this machine has no kernel for {kind.name}")
    first, digest = weights(kind)
    expected = logits(first, kind, each.ids)
    monkeypatch.delattr(packed_files, "read_checkpoint")
    again, same = weights(kind)
    assert (same, again.variant) == (digest, each.model.variant)
    assert logits(again, kind, each.ids).equal(expected)
    assert digest == each.files.digest()


def test_each_kind_is_kept_apart(v1_weights, tmp_path):
    v1_weights(FP16), v1_weights(INT8)
    assert sorted(path.name.split("-")[1] for path in tmp_path.iterdir()) == ["fp16", "int8"]


def test_a_changed_checkpoint_is_read_anew(v1_weights, golden, tmp_path):
    v1_weights()
    (home,) = tmp_path.iterdir()
    about = json.loads((home / "about.json").read_bytes())
    about["stamp"][0][-1] -= 1  # as if it had been written before
    (home / "about.json").write_text(json.dumps(about | {"digest": "old"}))
    assert v1_weights()[1] == golden.files.digest()
    assert PackedFiles(home).digest == golden.files.digest()


def test_a_changed_checkpoint_that_cannot_be_kept_is_not_taken_for_the_old(
    v1_weights, golden, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError("no space left on device")

    v1_weights()
    (home,) = tmp_path.iterdir()
    about = json.loads((home / "about.json").read_bytes())
    about["stamp"][0][-1] -= 1
    (home / "about.json").write_text(json.dumps(about))
    monkeypatch.setattr(packed_files, "_write", full)
    assert not isinstance(v1_weights()[0], PackedFiles)


def damage_about(home):
    (home / "about.json").write_text("{")


def damage_weights(home):
    (home / "weights").write_bytes(b"\x00" * 100)


def empty_weights(home):
    size = (home / "weights").stat().st_size
    (home / "weights").write_bytes(bytes(size))


def lose_weights(home):
    (home / "weights").unlink()


@pytest.mark.parametrize("damage", [damage_about, damage_weights, lose_weights])
def test_damaged_files_are_made_anew(v1_weights, golden, tmp_path, damage):
    expected = logits(v1_weights()[0], FP16, golden.ids)
    (home,) = tmp_path.iterdir()
    damage(home)
    assert logits(v1_weights()[0], FP16, golden.ids).equal(expected)
    PackedFiles(home).group(None)


@pytest.mark.skipif(not works(NATIVE_INT8), reason="no kernel for int8-native")
def test_weights_that_cannot_be_are_refused_with_the_next_step(v1_weights, tmp_path):
    v1_weights(NATIVE_INT8)
    (home,) = tmp_path.iterdir()
    empty_weights(home)
    with pytest.raises(ConfigError, match="Delete the folder"):
        FastGPT(v1_weights(NATIVE_INT8)[0], NATIVE_INT8)


def test_where_nothing_can_be_written_it_works_without(golden, tmp_path, caplog):
    home = tmp_path / "file"
    home.write_text("")
    weights, _ = serving_weights(golden.files, FP16, variant_name=None, home=home)
    assert "not kept" in caplog.text
    assert logits(weights, FP16, golden.ids).isfinite().all()


def test_small_checkpoints_are_not_kept(v1_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(packed_files, "WORTH_KEEPING_BYTES", 1 << 30)
    v1_weights()
    assert not any(tmp_path.iterdir())
