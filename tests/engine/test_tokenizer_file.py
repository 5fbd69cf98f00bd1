import os
import pickle

import pytest
import tiktoken

from tinybrain.engine.tokenizer_file import (
    MAX_FILE_BYTES,
    MAX_TOKENS,
    SPECIAL_TOKENS,
    SPLIT_PATTERNS,
    read_tokenizer,
    write_tokenizer,
)
from tinybrain.errors import ConfigError


@pytest.fixture
def table(golden_files):
    return read_tokenizer(golden_files.tokenizer)


def encoding(*, pattern=None, ranks=None, special_tokens=None, name="rustbpe"):
    """What tiktoken pickles, with the parts given in place of good ones."""
    ranks = {bytes([byte]): byte for byte in range(256)} if ranks is None else ranks
    good = tiktoken.Encoding.__new__(tiktoken.Encoding)
    good.name = name
    good._pat_str = min(SPLIT_PATTERNS) if pattern is None else pattern
    good._mergeable_ranks = ranks
    good._special_tokens = special_tokens or {
        name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)
    }
    return good


@pytest.fixture
def refused(tmp_path):
    def check(payload, why, name="tokenizer.pkl"):
        path = tmp_path / name
        path.write_bytes(payload)
        with pytest.raises(ConfigError, match=why):
            read_tokenizer(path)

    return check


def test_a_pickle_reads_as_pickle_itself_would(golden_files, table):
    real = pickle.loads(golden_files.tokenizer.read_bytes())
    assert (table.pattern, table.ranks) == (real._pat_str, real._mergeable_ranks)
    assert table.special_tokens == real._special_tokens


def test_json_reads_back_as_written(table, tmp_path):
    write_tokenizer(table, tmp_path / "tokenizer.json")
    assert read_tokenizer(tmp_path / "tokenizer.json") == table


def test_a_good_encoding_is_read(tmp_path):
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(encoding(), protocol=4))
    assert len(read_tokenizer(tmp_path / "t.pkl").ranks) == 256


def test_a_call_hidden_in_a_pickle_is_not_made(refused, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    for protocol in range(6):
        refused(pickle.dumps(Evil(), protocol), "opcode")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("opcode", [b"Rgarbage", b"ios\nsystem\n", b"cos\nsystem\n", b"Pid\n"])
def test_opcodes_that_call_or_import_are_refused(refused, opcode):
    refused(b"\x80\x04" + opcode + b".", "opcode")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("tiktoken.core", "Encoding.__init__"),
        ("tiktoken.core", "os.system"),
        ("os", "system"),
        ("tiktoken", "Encoding"),
    ],
)
def test_no_other_name_is_looked_up(refused, module, name):
    text = b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name))
    refused(b"\x80\x04" + text + b"\x93.", "it asks for")


def test_a_state_that_names_a_plugin_is_refused(refused):
    head = b"\x80\x04\x8c\rtiktoken.core\x8c\x08Encoding\x93"
    refused(head + b")\x81\x8c\x05o200kb.", "no pickled")
    refused(head + b"\x8c\x05o200kb.", "cannot be read")
    refused(head + b".", "no pickled")


def test_a_memo_bomb_is_refused_before_it_allocates(refused):
    refused(b"\x80\x04}r\xff\xff\xff\x7f.", "LONG_BINPUT")


def test_a_file_too_large_is_refused(tmp_path):
    for name in ("tokenizer.pkl", "tokenizer.json"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(MAX_FILE_BYTES + 1)
        with pytest.raises(ConfigError, match="larger"):
            read_tokenizer(tmp_path / name)


def test_too_many_tokens_are_refused(refused):
    huge = {i.to_bytes(3): i for i in range(MAX_TOKENS + 1)}
    refused(pickle.dumps(encoding(ranks=huge), protocol=4), "more than")


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"pattern": "(a+)+$"}, "pattern"),
        ({"pattern": {}}, "cannot be read"),
        ({"ranks": {b"a": 0}}, "single byte"),
        ({"ranks": {bytes([b]): b + 1 for b in range(256)}}, "gaps"),
        ({"ranks": {bytes([b]): str(b) for b in range(256)}}, "integers"),
        ({"ranks": {}}, "single byte"),
        ({"special_tokens": {"<|bos|>": 256}}, "special"),
        ({"special_tokens": dict.fromkeys(SPECIAL_TOKENS, 7)}, "special"),
    ],
)
def test_contents_that_are_no_nanochat_tokenizer_are_refused(refused, parts, why):
    refused(pickle.dumps(encoding(**parts), protocol=4), why)


@pytest.mark.parametrize("junk", [b"", b"\x80", b"[]", b"{}", b'{"ranks": ["!"]}', b"\xff"])
def test_damaged_files_are_refused(refused, junk):
    refused(junk, "cannot be read")
    refused(junk, "cannot be read", name="tokenizer.json")
