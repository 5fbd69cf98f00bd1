"""The reference model against transformers' NanoChat, a second implementation of V1.

transformers computes the cosines and sines that nanochat rounds to bf16, and has no switch for it.
So equality is asked of models whose table is exact, and of the shipped one as it is, closeness.
"""

from dataclasses import replace

import pytest
import torch

from tests.engine.in_transformers import in_transformers
from tinybrain.chat import Message
from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.engine.gpt import GPT
from tinybrain.engine.rendering import render
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import read_tokenizer

CONVERSATION = [
    Message("user", "Hello, who are you?"),
    Message("assistant", "I am TinyChat, a small language model."),
    Message("user", "What is the capital of Japan?"),
    Message("assistant", "The capital of Japan is Tokyo."),
    Message("user", "Tell me a story about a fox who wanted to see the sea."),
]


def with_exact_table(model):
    exact = GPT(model.config, replace(model.variant, rope_rounded=False))
    exact.load_state_dict(model.state_dict())
    return exact.eval()


def logits(model, ids):
    return model.logits(model(ids[None], WholeSequence(ids[None]))[0])


@pytest.fixture
def random(golden):
    """A random V1 model with fewer key than query heads, and a random prompt."""
    return golden.model, golden.ids


@pytest.fixture
def shipped():
    """The trained model that ships, and a conversation it can read."""
    files = find_checkpoint(checkpoint=None, nanochat_base_dir=None, source="sft", step=None)
    tokenizer = Tokenizer(read_tokenizer(files.tokenizer))
    ids = torch.tensor(render(tokenizer, CONVERSATION))
    return load_model(files, torch.device("cpu")), ids


@pytest.fixture(params=["random", "shipped"])
def exact(request):
    model, ids = request.getfixturevalue(request.param)
    return with_exact_table(model), ids


def test_logits_are_those_of_transformers(exact):
    model, ids = exact
    theirs = in_transformers(model)(ids[None]).logits[0]
    torch.testing.assert_close(logits(model, ids), theirs, atol=2e-4, rtol=0)


def test_greedy_continuation_is_that_of_transformers_with_its_cache(exact):
    model, ids = exact
    theirs = in_transformers(model).generate(ids[None], do_sample=False, max_new_tokens=16)[0]
    while len(ids) < len(theirs):
        ids = torch.cat([ids, logits(model, ids)[-1].argmax(keepdim=True)])
    assert ids.tolist() == theirs.tolist()


def test_the_rounded_table_of_nanochat_hardly_changes_the_shipped_models_logits(shipped):
    model, ids = shipped
    ours, theirs = logits(model, ids), in_transformers(model)(ids[None]).logits[0]
    hardly = 0.01 * float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, atol=hardly, rtol=0)
    assert (ours.argmax(-1) == theirs.argmax(-1)).float().mean() >= 0.98
