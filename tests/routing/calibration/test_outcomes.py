"""Outcomes travel as JSON lines."""

from dataclasses import replace

import pytest
from worlds import outcome

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration import outcomes as module
from tinybrain.routing.calibration.outcomes import read_outcomes, write_outcomes


def test_what_was_written_is_read(tmp_path):
    outcomes = [outcome(0.5, right=True, entropy=0.2), outcome(2.0, right=False, family="talk")]
    outcomes += [replace(outcomes[1], declined=True)]
    write_outcomes(tmp_path / "o.jsonl", outcomes)
    assert read_outcomes(tmp_path / "o.jsonl") == outcomes


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"family": "a", "right": 1, "signals": {}}',
        '{"family": "a", "right": true, "declined": "no", "signals": {}}',
        '{"family": "a", "right": true, "signals": {"min_logprob": "low"}}',
        '{"family": "a", "right": true, "signals": {"mood": 1}}',
        '{"family": "a", "right": true, "signals": {"min_logprob": NaN}}',
    ],
)
def test_a_line_that_is_no_outcome_is_named(tmp_path, line):
    write_outcomes(tmp_path / "o.jsonl", [outcome(0.5, right=True)])
    with (tmp_path / "o.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(ConfigError, match=r"Line 2 of .*o\.jsonl"):
        read_outcomes(tmp_path / "o.jsonl")


def test_empty_lines_are_none_and_only_line_feeds_end_a_line(tmp_path):
    line = '{"family": "a\u2028b\x85", "right": true, "signals": {}}'
    (tmp_path / "o.jsonl").write_text(f"\n{line}\n\n", encoding="utf-8")
    assert [o.family for o in read_outcomes(tmp_path / "o.jsonl")] == ["a\u2028b\x85"]


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    write_outcomes(tmp_path / "o.jsonl", [outcome(0.5, right=True)])
    with pytest.raises(ConfigError, match="over 10 bytes"):
        read_outcomes(tmp_path / "o.jsonl")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none"):
        read_outcomes(tmp_path / "none")
