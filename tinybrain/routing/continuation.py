"""How a larger model is asked to continue words that were shown, and how its own are joined on.

It is asked in words ("instructed"), which every chat model understands: what was shown as its own
last message, then the wish that it be continued. Models asked so tend to say some of it again, to
begin with an ellipsis or a line break, and to leave out the space. `Seam` puts that right while
the text streams.

Pure text; knows no model and no events.
"""

import re
from collections.abc import Sequence

from tinybrain.chat import Message

CONTINUE = (
    "Your last message broke off. Continue it exactly where it ends: write only what comes next, "
    "in the same language and form. Do not repeat any of it, do not begin anew, and do not "
    "comment on this request. If something in it is wrong, put it right in what follows."
)

LOOK_AHEAD = 40
"""Characters without a word after which no echo is expected any more."""

RESTART_WORDS = 4
"""So many words of an unfinished sentence said again, then others: that is no continuation."""

LONGEST_WORD = 24

UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Japanese and Chinese
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
JOINS = re.compile(rf"[^\W{UNSPACED}]|['\u2019-]")
ENDS_INSIDE = re.compile(rf"(?:[^\W{UNSPACED}]|['\u2019-]|\d[.,])\Z")
ENDS_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD}}}\Z")
ENDS_SENTENCE = re.compile(r"[.!?:\u2026][\"'\u201d\u2019)\]*_]*\s*\Z")
SENTENCE_BREAK = re.compile(r"[.!?]\s|\n")
BLOCK = re.compile(
    r" {4}|\t|\s*(?:#{1,6} |[-*+] |\d+[.)] |>|\||```|~~~)|.*[;{}|`]\Z", re.DOTALL
)  # Markdown or code, in which lines end for a reason
PUNCTUATION_AT_END = re.compile(r"[^\w\s]*\Z")
LEAD = re.compile(r"\s*(?:\.{3,}|\u2026)?\s*")
WANTS_SPACE_BEFORE = re.compile(rf"[^\W{UNSPACED}]|[(\[{{\u201c\u2018*_`$\u20ac\u00a3#&@\"]")
WANTS_NO_SPACE_AFTER = re.compile(rf"[(\[{{\u201c\u2018/{UNSPACED}]")


def continuation_messages(messages: Sequence[Message], shown: str) -> list[Message]:
    """The conversation with what was shown of the answer, and the wish that it be continued."""
    return [*messages, Message("assistant", shown), Message("user", CONTINUE)]


def splits_word(before: str, after: str) -> bool:
    """Whether a cut between the two falls inside a word; it may, if `after` is not known yet.

    Runs longer than any word count as several.
    """
    if not ENDS_INSIDE.search(before) or ENDS_LONG_WORD.search(before):
        return False
    return not after or JOINS.match(after) is not None


class Seam:
    """Joins a continuation that comes in pieces to what was shown, which ends with a whole word.

    What the continuation says again of it is left out: all, or its end, whatever the case, spaces
    and punctuation. Held back is only what may be such an echo, and what stands before the first
    word. `restarts` says that it began the sentence anew, differently: nothing of it is shown.
    """

    def __init__(self, shown: str) -> None:
        self.restarts = False
        self._shown = shown
        self._words = _words(shown)
        self._punctuation = _first(PUNCTUATION_AT_END, shown.rstrip())
        self._held = ""
        self._echoed: bool | None = None  # None while that is not known
        self._joined = False

    def feed(self, piece: str) -> str:
        """The next piece; returns what can be shown by now."""
        return self._next(piece, final=False)

    def close(self) -> str:
        """No more pieces come; returns what was held back and is not an echo."""
        return self._next("", final=True)

    def _next(self, piece: str, *, final: bool) -> str:
        if self._joined:
            return piece
        self._held += piece
        if self._echoed is None:
            self._look_for_echo(final=final)
        if self._echoed is None or self.restarts:
            return ""
        return self._join(final=final)

    def _look_for_echo(self, *, final: bool) -> None:
        found = list(WORD.finditer(self._held))
        if found and found[0].start() > LOOK_AHEAD:
            found = []
        elif not found and not final and len(self._held) <= LOOK_AHEAD:
            return
        said = [word[0].casefold() for word in found]
        is_open = bool(found) and found[-1].end() == len(self._held) and not final
        growing = said.pop() if is_open else ""
        if not final and found and self._may_go_on(said, growing):
            return
        overlap = self._overlap(said)
        after = self._held[found[overlap - 1].end() :] if overlap else self._held
        if overlap and not final and not after.strip():
            return
        if overlap < RESTART_WORDS and not after.lstrip().startswith(self._punctuation[:1]):
            overlap, after = 0, self._held
        self.restarts = not overlap and self._begins_anew(said)
        self._echoed = overlap > 0
        self._held = after

    def _may_go_on(self, said: list[str], growing: str) -> bool:
        """Whether there is an end of what was shown that begins so and is longer."""
        n, words = len(said), self._words
        return any(
            words[start : start + n] == said and words[start + n].startswith(growing)
            for start in range(len(words) - n)
        )

    def _overlap(self, said: list[str]) -> int:
        """With how many of the last words shown the continuation begins.

        A lone number is no echo: numbers follow themselves, in series and in sums.
        """
        words = self._words
        most = min(len(words), len(said))
        found = next((n for n in range(most, 0, -1) if words[-n:] == said[:n]), 0)
        return 0 if found == 1 and words[-1].isdigit() else found

    def _begins_anew(self, said: list[str]) -> bool:
        if ENDS_SENTENCE.search(self._shown) or len(said) < RESTART_WORDS:
            return False
        unfinished = len(_words(SENTENCE_BREAK.split(self._shown)[-1]))
        starts = {0, len(self._words) - unfinished}
        return any(
            self._words[start : start + RESTART_WORDS] == said[:RESTART_WORDS] for start in starts
        )

    def _join(self, *, final: bool) -> str:
        rest = self._held
        if self._echoed:
            if not final and self._punctuation.startswith(rest.strip()):
                return ""
            if self._punctuation and rest.lstrip().startswith(self._punctuation):
                rest = rest.lstrip().removeprefix(self._punctuation)
        lead = _first(LEAD, rest)
        rest = rest[len(lead) :]
        if not rest or (not final and rest in (".", "..")):
            return ""
        self._joined = True
        return self._gap(lead, rest) + rest

    def _gap(self, lead: str, rest: str) -> str:
        """What stands between: as given, but for a lone line break inside prose and ellipses."""
        if not self._shown:
            return ""
        if lead.isspace() and self._is_layout(lead, rest):
            return lead
        wants_space = lead or self._wants_space(rest)
        return " " if wants_space and not self._shown[-1].isspace() else ""

    def _is_layout(self, lead: str, rest: str) -> bool:
        """Whether the line break or the indentation is meant."""
        if self._shown[-1] == "\n":
            return lead != " "
        if "\n" not in lead:
            return False
        shown = self._shown.rstrip()
        is_prose = "\n" not in shown.lstrip() and not BLOCK.match(shown)
        is_inside = not ENDS_SENTENCE.search(shown) and rest[0].isalpha()
        return lead.count("\n") > 1 or not (is_prose and is_inside)

    def _wants_space(self, rest: str) -> bool:
        in_quotes = self._shown.count('"') % 2 == 1
        if in_quotes and '"' in (self._shown[-1], rest[0]):
            return False
        return (
            WANTS_SPACE_BEFORE.match(rest) is not None
            and WANTS_NO_SPACE_AFTER.match(self._shown[-1]) is None
        )


def _first(pattern: re.Pattern[str], text: str) -> str:
    """What the pattern finds first in the text, which may be nothing."""
    found = pattern.search(text)
    return found[0] if found else ""


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]
