import string

from tinybrain.training.relations import Wordings, read_relations


def test_there_are_at_least_40_relations_with_44_wordings_each():
    relations = read_relations()
    assert len(relations) >= 40
    for relation in relations.values():
        wordings = relation.wordings.trained + relation.wordings.new
        assert len(set(wordings)) == len(wordings) >= 44, relation.name


def test_a_quarter_of_the_wordings_of_each_relation_is_new():
    for relation in read_relations().values():
        new, trained = len(relation.wordings.new), len(relation.wordings.trained)
        assert 0.2 <= new / (new + trained) <= 0.25, relation.name


def test_a_new_wording_is_not_a_trained_one_with_a_courtesy():
    wordings = Wordings.split(["how are you", "bye", "good day", "hi, how are you"])
    assert wordings.new == ()
    assert "hi, how are you" in wordings.trained


def test_every_wording_names_what_is_asked_about():
    for relation in read_relations().values():
        for wording in relation.wordings.trained + relation.wordings.new:
            assert any(name for _, name, *_ in string.Formatter().parse(wording)), wording


def test_replies_begin_with_the_answer():
    for relation in read_relations().values():
        assert relation.reply_template.startswith(("{y}", "The {y}")) or relation.name == "sum"


def test_every_fact_can_be_asked_and_answered(knowledge):
    for facts in (*knowledge.taught.values(), *knowledge.withheld.values()):
        for fact in facts:
            relation = knowledge.relations[fact.relation]
            for wording in relation.wordings.trained + relation.wordings.new:
                assert "{" not in relation.ask(fact, wording)
            assert fact.answer.lower() in relation.reply(fact).lower()
