"""The reference model against transformers' NanoChat, a second implementation of V1.

transformers computes the cosines and sines that nanochat rounds to bf16, and has no switch for it.
So equality is asked of models whose table is exact, and of the shipped one as it is, closeness.
"""

from dataclasses import replace

import pytest
import torch
from transformers import NanoChatConfig, NanoChatForCausalLM

from tinybrain.chat import Message
from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.engine.gpt import GPT, RMS_EPS
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

RENAMED = {
    "transformer.wte": "model.embed_tokens",
    "transformer.h": "model.layers",
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def renamed(name):
    for ours, theirs in RENAMED.items():
        name = name.replace(ours, theirs)
    return name


def in_transformers(model):
    """transformers' model with our weights, and without special tokens that end a generation."""
    config = model.config
    theirs = NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.n_embd,
            intermediate_size=4 * config.n_embd,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.n_kv_head,
            max_position_embeddings=config.sequence_len,
            rms_norm_eps=RMS_EPS,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )
    theirs.load_state_dict({renamed(name): t for name, t in model.state_dict().items()})
    return theirs.eval()


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
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0)
    assert (ours.argmax(-1) == theirs.argmax(-1)).float().mean() >= 0.98
