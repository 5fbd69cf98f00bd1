"""Drafts on disk: what the small model was asked once need not be asked again.

One JSON line a draft, appended as soon as it is there. A file belongs to one checkpoint at one
precision and to one number of held-back tokens; its name says so.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.lines import numbered_lines
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.signals import Signals


class DraftFile:
    """The drafts of one checkpoint, in `path`."""

    def __init__(
        self, home: Path, *, checkpoint: str, precision: str, hold_back_tokens: int
    ) -> None:
        # the identity of a model behind an API may hold what a file's name must not
        name = re.sub(r"[^\w.@-]", "_", checkpoint)
        self.path = home / f"drafts-{name}-{precision}-{hold_back_tokens}.jsonl"

    def read(self, questions: Iterable[Question]) -> dict[str, Draft]:
        """The drafts of these questions that were made before, by the question's text.

        Raises:
            ConfigError: A line is no draft; the message names it.
        """
        found = {question.text: question for question in questions}
        drafts = {}
        for number, line in whole_lines(self.path):
            try:
                row = json.loads(line)
                text, answer, signals = row["question"], str(row["answer"]), row["signals"]
                if text in found:
                    drafts[text] = Draft(found[text], answer, Signals.read(signals))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"Line {number} of {self.path} is no draft: {error}. Delete the file; its "
                    "questions are asked again."
                ) from error
        return drafts

    def append(self, draft: Draft) -> None:
        """Keep a draft."""
        row = {
            "question": draft.question.text,
            "answer": draft.answer,
            "signals": draft.signals.recorded(),
        }
        append_line(self.path, row)


def whole_lines(path: Path) -> list[tuple[int, str]]:
    """The numbered lines of a file, if there is one; one that was cut off is removed from it."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return list(numbered_lines(whole.decode("utf-8", errors="replace")))


def append_line(path: Path, row: Mapping[str, object]) -> None:
    """Write `row` as the file's last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
