"""A small model's answer after its opening was released: what of it may be shown, and how far.

A token that the limit passes by itself is shown at once. One that it does not pass is held back
with those after it until they fill a window, and the window is judged: most doubt about a word is
gone by the next. So a sure answer streams as if nobody watched, and what ends before its window is
full is shown as it is. Words are shown whole, so that another model can continue after them, and
there is one before any is held back.

Knows tokens and limits; nothing of other models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinybrain.chat import Finished, Token
from tinybrain.routing.continuation import LONGEST_WORD, splits_word
from tinybrain.routing.events import Delta
from tinybrain.routing.gate import Limit
from tinybrain.routing.signals import Signals


@dataclass(frozen=True, slots=True)
class Watch:
    """Up to where `tokens` tokens together pass; `opening` tells what belongs to the question."""

    limit: Limit
    tokens: int
    opening: Signals

    def signals(self, events: Sequence[Token | Finished]) -> Signals:
        """What is measured of these tokens."""
        return replace(
            Signals.of([event for event in events if isinstance(event, Token)]),
            perplexity=self.opening.perplexity,
            user_perplexity=self.opening.user_perplexity,
            first_entropy=self.opening.first_entropy,
        )


class WatchedDraft:
    """Takes in a draft event by event, gives out what may be shown; unwatched, all at once.

    `shown` and `shown_tokens` are what was given out, `doubt` what was measured where it stopped.
    """

    def __init__(self, opening: Sequence[Token | Finished], watch: Watch | None) -> None:
        self.shown = ""
        self.shown_tokens = 0
        self.doubt: Signals | None = None
        self._watch = watch
        self._last = opening[-1]
        self._held = list(opening)
        self._sure = len(opening)

    @property
    def end(self) -> Finished | None:
        """The last event, once it is there."""
        return self._last if isinstance(self._last, Finished) else None

    def add(self, event: Token | Finished) -> None:
        """Take in the next event."""
        self._last = event
        self._held.append(event)
        self._judge()

    def take(self) -> Delta | None:
        """What may be shown and was not yet, if there is anything."""
        whole = self._whole_words()
        taken, self._held = self._held[:whole], self._held[whole:]
        self._sure -= whole
        text = _text(taken)
        self.shown += text
        self.shown_tokens += sum(isinstance(event, Token) for event in taken)
        return Delta(text, tuple(told for e in taken for told in e.logprobs)) if text else None

    def trust(self) -> None:
        """Give out everything from now on: there is nobody else to go on."""
        self._watch = self.doubt = None
        self._judge()

    def _judge(self) -> None:
        if self._watch is None or self.end:
            self._sure = len(self._held)
        while self._watch and self._sure < len(self._held) and not self.doubt:
            if not self._is_sure(self._watch):
                return
            self._sure += 1

    def _is_sure(self, watch: Watch) -> bool:
        """Whether the first token that is not known to be sure is; no if that cannot be told."""
        window = self._held[self._sure : self._sure + watch.tokens]
        is_forced = isinstance(window[0], Token) and window[0].forced
        if not self.shown.strip() or is_forced or watch.limit.passes(watch.signals(window[:1])):
            return True
        if len(window) < watch.tokens:
            return False
        signals = watch.signals(window)
        if watch.limit.passes(signals):
            return True
        self.doubt = signals
        return False

    def _whole_words(self) -> int:
        """How many of the sure events end with a word's end."""
        if self._watch is None or self.end:
            return self._sure
        counts = range(self._sure, 0, -1)
        return next((count for count in counts if not self._splits_word(count)), 0)

    def _splits_word(self, count: int) -> bool:
        before = self.shown[-LONGEST_WORD:] + _text(self._held[:count])
        return splits_word(before, _text(self._held[count:]))


def _text(events: Sequence[Token | Finished]) -> str:
    return "".join(event.text for event in events)
