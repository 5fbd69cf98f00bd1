from collections import Counter

from tinybrain.routing.calibration.accepted import holds
from tinybrain.training.beyond import Beyond
from tinybrain.training.chance import stream
from tinybrain.training.questions import out_of_scope
from tinybrain.training.surfaces import plain
from tinybrain.training.talk import read_general, read_jokes, read_talk


def sizes(intents):
    return [len(i.wordings.trained) + len(i.wordings.new) for i in intents]


def test_there_are_140_intents_with_90_wordings():
    found = sizes(read_talk())
    assert len(found) >= 140
    assert min(found) >= 90


def test_general_questions_and_jokes_have_8_wordings():
    assert min(sizes([*read_general(), *read_jokes()])) >= 8


def test_no_wording_belongs_to_two_intents():
    intents = [*read_talk(), *read_general()]
    own = ({plain(w) for w in i.wordings.trained + i.wordings.new} for i in intents)
    wordings = (wording for wordings in own for wording in wordings)
    assert [wording for wording, count in Counter(wordings).items() if count > 1] == []


def test_an_intents_own_reply_is_accepted():
    assert all(intent.reply in intent.accepted for intent in read_talk())


def test_declined_tasks_are_none_of_the_prompts_out_of_scope():
    beyond = Beyond(stream(1, "beyond"))
    declined = {plain(beyond.write().user) for _ in range(3_000)}
    assert not declined & {plain(q.text) for q in out_of_scope()}


def test_the_reply_to_a_general_question_counts_as_right():
    for intent in read_general():
        for wording in intent.wordings.trained + intent.wordings.new:
            assert any(holds(intent.reply, key, question=wording) for key in intent.accepted), (
                wording
            )
