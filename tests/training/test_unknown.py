import pytest

from tinybrain.training.beyond import beyond_reply
from tinybrain.training.chance import stream
from tinybrain.training.facts import fact
from tinybrain.training.knowledge import Knowledge
from tinybrain.training.surfaces import plain
from tinybrain.training.talk import read_general
from tinybrain.training.unknown import Unknown, blend


def asked(knowledge, facts):
    """What is asked about these facts, in any trained wording."""
    return {
        plain(relation.ask(fact, wording))
        for name, some in facts.items()
        for relation in [knowledge.relations[name]]
        for fact in some
        for wording in relation.wordings.trained
    }


@pytest.fixture(scope="module")
def declined(exchanges):
    return {plain(e.user) for e in exchanges if e.answer == beyond_reply()}


def test_withheld_facts_are_either_declined_in_training_or_never_met(knowledge):
    for name, facts in knowledge.withheld.items():
        doubted, unseen = (by.get(name, []) for by in (knowledge.doubted, knowledge.unseen))
        assert not any(one in unseen for one in doubted)
        assert len(facts) - len(doubted) - len(unseen) <= 6
    totals = [sum(map(len, by.values())) for by in (knowledge.doubted, knowledge.unseen)]
    assert totals[0] == pytest.approx(totals[1], rel=0.15)


def test_doubted_facts_are_asked_and_declined(knowledge, declined):
    for name, facts in knowledge.doubted.items():
        for one in facts:
            assert asked(knowledge, {name: [one]}) & declined, one


def test_unseen_facts_are_never_asked(knowledge, exchanges):
    texts = {plain(e.user) for e in exchanges}
    taught = asked(knowledge, knowledge.taught)  # "where is Peru" asks for two things
    assert not (asked(knowledge, knowledge.unseen) - taught) & texts


def test_what_is_taught_is_never_declined(knowledge, declined):
    assert not asked(knowledge, knowledge.taught) & declined


def test_subjects_that_a_relation_does_not_have_are_declined(knowledge, declined):
    known = asked(knowledge, knowledge.taught) | asked(knowledge, knowledge.withheld)
    assert len(declined - known) > 300


def test_a_blend_is_half_of_one_name_and_half_of_another():
    assert blend("Brazil", "Kenya") == "Branya"


def test_a_withheld_fact_that_another_relation_tells_does_not_count_as_unseen():
    opposites = [fact("opposite", f"w{n}", f"v{n}") for n in range(30)]
    told = [fact("definition", "x", f"not w{n} but v{n}", well_known=True) for n in range(30)]
    kinds = [fact("kind", f"k{n}", "a tool") for n in range(30)]
    assert Knowledge([*opposites, *kinds], seed=1).unseen["opposite"]
    assert "opposite" not in Knowledge([*opposites, *kinds, *told], seed=1).unseen


def test_capitals_are_not_declined_as_cities():
    cities = [fact("city_country", f"C{n}", "Peru", well_known=True) for n in range(3)]
    capital = fact("country_of_capital", "Manila", "the Philippines", well_known=True)
    colour = fact("colour", "grass", "green", well_known=True)
    declined = declines([*cities, capital, colour], "city_country")
    assert any("grass" in text for text in declined)
    assert not any("manila" in text for text in declined)


def test_what_measures_another_relation_is_not_declined():
    lands = [fact("continent", f"land{n}", "Asia") for n in range(30)]
    known = [fact("language", one.subject, "English", well_known=True) for one in lands]
    sights = [fact("landmark", f"sight{n}", "Rome", well_known=True) for n in range(3)]
    unseen = {f"where is {one.subject}" for one in Knowledge(lands, seed=1).unseen["continent"]}
    assert unseen
    assert not unseen & declines([*lands, *known, *sights], "landmark")


def test_general_knowledge_is_not_declined():
    made = [fact("material", f"thing{n}", "wood", well_known=True) for n in range(3)]
    cloud = fact("plural", "cloud", "clouds", well_known=True)
    asked = {plain(w) for intent in read_general() for w in intent.wordings.trained}
    assert "what is a cloud made of" in asked
    assert not asked & declines([*made, cloud], "material")


def declines(facts, name):
    """What is made up of one relation."""
    knowledge = Knowledge(facts, seed=1)
    unknown = Unknown(knowledge, stream(1, "unknown"))
    return {
        plain(exchange.user)
        for exchange in unknown.about(knowledge.relations[name], of_doubted=0, made_up=2_000)
    }
