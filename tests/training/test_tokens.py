import pytest

from tinybrain.chat import Message
from tinybrain.engine.rendering import Part, PartedMessage, render
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import read_tokenizer
from tinybrain.errors import ConfigError
from tinybrain.training.conversations import Exchange
from tinybrain.training.tokens import (
    encode,
    load_nanochat_tokenizer,
    nanochat_tokenizer,
    single_digit_pattern,
    train_tokenizer,
    write_nanochat_tokenizer,
)

SUM = Exchange("what is 37 + 48", ".", "37+48")
HI = Exchange("Hi", "Hello!")


def test_conversations_are_encoded_as_the_engine_renders_them(tokenizer):
    parts = (Part("python", "37+48"), Part("python_output", "85"), Part("text", "."))
    turns = [Message("user", HI.user), Message("assistant", HI.assistant)]
    turns += [Message("user", SUM.user), PartedMessage("assistant", parts), Message("user", "?")]
    ids = [token for token, _ in encode((HI, SUM), tokenizer)]
    assert render(tokenizer, turns)[: len(ids)] == ids


def test_the_model_learns_to_answer_not_what_it_is_given(tokenizer):
    weights = {}
    for token, weight in encode((SUM,), tokenizer):
        weights.setdefault(weight, []).append(token)
    learned = b"".join(map(tokenizer.token_bytes, weights[1.0]))
    assert learned == b"37+48."
    assert tokenizer.special("assistant_end") in weights[1.0]
    assert {tokenizer.special(n) for n in ("bos", "assistant_start", "output_end")} <= set(
        weights[0.0]
    )


def test_each_digit_is_a_token_of_its_own():
    table = train_tokenizer(["12345 12345 12345 the cat the cat"] * 50, vocab_size=269)
    assert len(Tokenizer(table).encode("12345")) == 5
    assert Tokenizer(table).vocab_size == 269


def test_a_corpus_too_small_for_the_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="Ask for a smaller vocabulary"):
        train_tokenizer(["the cat"], vocab_size=4096)


def test_the_split_pattern_is_the_one_for_single_digits():
    assert r"\p{N}{1}|" in single_digit_pattern()


def test_nanochats_tokenizer_file_comes_back(tokenizer_table, tmp_path):
    write_nanochat_tokenizer(tokenizer_table, tmp_path)
    assert read_tokenizer(nanochat_tokenizer(tmp_path)) == tokenizer_table


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"tokenizer\.pkl cannot be read"):
        load_nanochat_tokenizer(tmp_path)
