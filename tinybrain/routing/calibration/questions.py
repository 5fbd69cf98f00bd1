"""Questions with what counts as a right answer, one a JSON line. Knows nothing of models."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinybrain.errors import ConfigError
from tinybrain.faults import first_fault
from tinybrain.routing.calibration.accepted import holds
from tinybrain.routing.calibration.lines import numbered_lines

MAX_BYTES = 50_000_000

Split = Literal["calibration", "test"]


class Question(BaseModel):
    """A prompt of one message.

    `accepted` are texts of which a right answer holds one; none where no answer of a small model
    is right, and None where nobody has said yet, so that it has to be judged. `family` is what it
    is about (capitals, small talk), `kind` what is known of it (a fact, out of scope). Where the
    small model's training text is known: was it told the answer, and in this wording? What the
    `split` says is for tests must not be calibrated with.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str = Field(min_length=1, max_length=8_000)
    accepted: tuple[str, ...] | None = None
    family: str = Field(default="", max_length=100)
    kind: str = Field(default="", max_length=100)
    known: bool | None = None
    wording: Literal["trained", "new"] | None = None
    split: Split = "calibration"

    def is_answered_by(self, answer: str) -> bool:
        """Whether it holds an accepted answer; see `accepted.holds`."""
        return any(holds(answer, one, question=self.text) for one in self.accepted or ())


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a line for each."""
    text = "".join(question.model_dump_json() + "\n" for question in questions)
    path.write_text(text, encoding="utf-8")


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions; other fields of a line are ignored.

    Raises:
        ConfigError: The file cannot be read or is too large, or a line is no question; the
            message names it.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has over {MAX_BYTES:,} bytes. Give fewer questions.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as questions: {error}.") from error
    return [_read(line, f"Line {number} of {path}") for number, line in numbered_lines(text)]


def _read(line: str, place: str) -> Question:
    try:
        return Question.model_validate_json(line)
    except ValidationError as error:
        where, what = first_fault(error)
        raise ConfigError(
            f"{place} is no question: {where or 'the line'}: {what}. "
            'A line is {"text": "…", "accepted": ["…"], "family": "…"}.'
        ) from error
