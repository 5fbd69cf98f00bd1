from pathlib import Path

import pytest
import torch
from engine import row
from generating import STEPS, _step, prompts
from random_nanochat import write_checkpoint
from transformers_engines import Int8Compiled

from tinybrain.engine.checkpoint_files import find_checkpoint

# torchao imports what torch says so of
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("nanochat")
    write_checkpoint(home, depth=2)
    return find_checkpoint(checkpoint=Path(home), nanochat_base_dir=None, source="sft", step=None)


@pytest.fixture
def int8(files):
    """The compiled engine before it compiles, which takes a minute."""
    with torch.inference_mode():
        engine = Int8Compiled(files, length=32)
        engine.prefill = engine.decode = engine.model.forward
        yield engine


def test_every_engine_is_asked_the_same_prompts():
    assert prompts(seed=1)() == prompts(seed=1)() != prompts(seed=2)()


def test_a_step_is_timed_where_all_decode_and_as_often_for_every_engine():
    alone, together, later = [1.0] * 50, [2.0] * STEPS, [9.0] * 50
    first = torch.tensor([0.0, *alone, *together, *later]).cumsum(0).tolist()
    assert _step([first, first[50:]]) == 2.0


def test_int8_weights_in_a_static_cache_are_near_the_fp32_model(int8):
    assert 0 < int8.logit_error([1, 2, 3]) < 0.1


def test_a_static_cache_forgets_the_answer_before(int8):
    first = int8.answers([[1, 2, 3]], 8)[0][0]
    int8.answers([[7, 8, 9, 10]], 8)
    assert int8.answers([[1, 2, 3]], 8)[0][0] == first


def test_a_compiled_model_that_computes_something_else_is_refused(int8):
    int8.model.model.layers[0].mlp.fc2 = torch.nn.Linear(512, 128, dtype=torch.bfloat16)
    with pytest.raises(ArithmeticError, match="speed means nothing"):
        int8.logit_error([1, 2, 3])


def test_a_batch_that_an_engine_leaves_out_leaves_its_row_whole():
    measured = {
        "load_s": 1.0,
        "compile_s": None,
        "first_token_s": 0.5,
        "second_turn_s": None,
        "step_s": {"1": 0.1},
        "peak_bytes": 0,
        "read_bytes": 10**9,
    }
    found = row("an engine", [measured], 20e9, (1, 32))
    assert (found["b1 tok/s"], found["b32 tok/s"], found["compile s"]) == (10.0, "-", "-")
    assert found["of the roof"] == "50%"
