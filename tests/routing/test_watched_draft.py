"""What of a draft is shown while it is watched, and when."""

import math
from dataclasses import replace

import pytest

from tests.routing.scripted import tokens
from tinybrain.chat import Finished, Prefilled, Token
from tinybrain.routing.gate import Limit
from tinybrain.routing.signals import Signals
from tinybrain.routing.watched_draft import Watch, WatchedDraft

OPENING = tokens("It", " is")
END = Finished("stop", 4, 9)
LIMIT = Limit(estimate=lambda s: 1 - math.exp(s.mean_logprob), max_p_wrong=0.5)
WATCH = Watch(LIMIT, 3, Signals.of(OPENING, Prefilled(12.5, 4, user_perplexity=30.0)))


def shown(draft, *events):
    """What is shown after each event."""
    pieces = []
    for event in events:
        draft.add(event)
        delta = draft.take()
        pieces.append(delta.text if delta else "")
    return pieces


@pytest.fixture
def draft():
    watched = WatchedDraft(OPENING, WATCH)
    watched.take()
    return watched


def test_of_the_opening_all_but_a_word_that_may_go_on_is_shown_at_once():
    assert WatchedDraft(OPENING, WATCH).take().text == "It"
    assert WatchedDraft(tokens("It", " is."), WATCH).take().text == "It is."
    assert WatchedDraft([*OPENING, END], WATCH).take().text == "It is"


def test_who_is_not_watched_is_shown_at_once_as_it_comes():
    draft = WatchedDraft(OPENING, None)
    assert draft.take().text == "It is"
    doubtful = tokens(" a", "b", " c", probability=0.1)
    assert shown(draft, *doubtful) == [" a", "b", " c"]
    assert draft.doubt is None


def test_a_sure_word_is_shown_when_the_next_begins(draft):
    assert shown(draft, *tokens(" Par", "is", ".", " So")) == [" is", "", " Paris.", ""]
    assert (draft.shown, draft.shown_tokens) == ("It is Paris.", 5)


def test_a_doubtful_token_is_held_back_until_the_next_ones_cleared_it(draft):
    (hm,) = tokens(" hm", probability=0.2)
    assert shown(draft, hm, *tokens(" a", " b", " c")) == [" is", "", " hm a", " b"]


def test_a_doubtful_window_stops_it_before_its_first_token(draft):
    assert shown(draft, *tokens(" a", " b", " c", " d", probability=0.2)) == [" is", "", "", ""]
    assert draft.doubt.tokens == 3
    assert draft.shown == "It is"


def test_before_a_word_is_shown_it_is_not_stopped():
    draft = WatchedDraft(tokens(" ", "Par"), WATCH)
    draft.take()
    doubtful = tokens("i", "s", " in", " x", " y", " z", probability=0.1)
    assert "".join(shown(draft, *doubtful)) == "Paris in"
    assert draft.doubt is not None


def test_doubt_is_judged_with_what_is_known_of_the_question(draft):
    shown(draft, *tokens(" a", " b", " c", probability=0.2))
    assert (draft.doubt.perplexity, draft.doubt.user_perplexity) == (12.5, 30.0)
    assert draft.doubt.first_entropy == WATCH.opening.first_entropy


def test_what_a_tool_told_is_not_in_doubt(draft):
    forced = [replace(token, forced=True) for token in tokens(" 8", "5", " x", probability=0.0001)]
    assert "".join(shown(draft, *forced, *tokens(" y"))) == " is 85 x"
    assert draft.doubt is None


def test_tokens_without_text_are_judged_and_counted_all_the_same(draft):
    half, rest = Token("", -0.01, 0.1, 0.9), Token(" \u00e9.", -0.01, 0.1, 0.9)
    assert "".join(shown(draft, half, rest)) == " is \u00e9."
    assert draft.shown_tokens == 4


def test_the_end_shows_what_is_left_with_its_own_text(draft):
    (hm,) = tokens(" hm", probability=0.1)
    assert shown(draft, hm, replace(END, text=" so")) == [" is", " hm so"]
    assert draft.end.completion_tokens == 9


def test_a_draft_that_is_trusted_shows_all_from_there(draft):
    shown(draft, *tokens(" a", " b", " c", probability=0.1))
    draft.trust()
    assert draft.doubt is None
    assert draft.take().text == " a b c"
    assert shown(draft, *tokens(" d", " e", " f", probability=0.1)) == [" d", " e", " f"]
