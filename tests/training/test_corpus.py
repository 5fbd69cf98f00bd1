from tinybrain.training.corpus import Mixture, build_corpus
from tinybrain.training.surfaces import plain


def test_no_question_in_a_new_wording_is_in_the_training_text(exchanges, questions):
    asked = {plain(exchange.user) for exchange in exchanges}
    new = {plain(q.text) for q in questions if q.wording == "new"}
    assert new & asked == set()


def test_no_new_wording_of_a_relation_is_in_the_training_text(exchanges, knowledge):
    asked = {plain(exchange.user) for exchange in exchanges}
    for name, facts in knowledge.taught.items():
        relation = knowledge.relations[name]
        for wording in relation.wordings.new:
            assert not asked & {plain(relation.ask(fact, wording)) for fact in facts}, wording


def test_no_withheld_fact_is_asked_or_told(exchanges, knowledge):
    told = {(plain(e.user), e.answer) for e in exchanges}
    replies = {answer for _, answer in told}
    for name, facts in knowledge.withheld.items():
        relation = knowledge.relations[name]
        for fact in facts:
            if fact.subject in relation.reply(fact):  # else the reply fits other facts, too
                assert relation.reply(fact) not in replies, fact
            for wording in relation.wordings.trained:
                question = (plain(relation.ask(fact, wording)), relation.reply(fact))
                assert question not in told, fact


def test_every_taught_fact_is_told(exchanges, knowledge):
    replies = {exchange.answer for exchange in exchanges}
    for name, facts in knowledge.taught.items():
        assert {knowledge.relations[name].reply(f) for f in facts} <= replies


def test_it_is_the_same_for_the_same_seed(knowledge):
    tiny = Mixture(scale=0.005)
    assert build_corpus(knowledge, tiny) == build_corpus(knowledge, tiny)


def test_one_question_has_one_reply(corpus):
    replies = {}
    for (exchange,) in (c for c in corpus if len(c) == 1):
        known = replies.setdefault(exchange.user, exchange.answer)
        assert known == exchange.answer, exchange.user


def test_some_conversations_have_several_turns(corpus):
    assert 0.05 < sum(len(c) > 1 for c in corpus) / len(corpus) < 0.5
