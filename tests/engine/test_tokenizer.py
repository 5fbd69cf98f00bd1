import json
from pathlib import Path

import pytest

VECTORS = json.loads((Path(__file__).parent / "data/tokenizer/vectors.json").read_text())


@pytest.mark.parametrize("case", VECTORS["encodings"], ids=lambda case: ascii(case["text"])[:30])
def test_plain_text_encodes_as_in_nanochat_and_back(golden_tokenizer, case):
    ids = golden_tokenizer.encode(case["text"])
    assert ids == case["ids"]
    assert b"".join(map(golden_tokenizer.token_bytes, ids)).decode() == case["text"]


def test_special_tokens_have_nanochats_ids_and_no_bytes(golden_tokenizer):
    for name, token in VECTORS["specials"].items():
        assert golden_tokenizer.special(name.strip("<|>")) == token
        assert golden_tokenizer.token_bytes(token) == b""


def test_the_name_of_a_special_token_in_a_text_is_just_text(golden_tokenizer):
    text = "".join(VECTORS["specials"])
    assert max(golden_tokenizer.encode(text)) < min(VECTORS["specials"].values())


def test_a_million_spaces_do_not_break_it(golden_tokenizer):
    ids = golden_tokenizer.encode(" " * 1_000_000)
    assert sum(len(golden_tokenizer.token_bytes(token)) for token in ids) == 1_000_000
