"""Every rule of wording: what it catches, what it must not, and how long it may take."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.chat import Message
from tinybrain.routing.rules import RuleDecision, Rules

ALL = Rules(keyword=True, complexity=True, self_referential=True)


def decide(text, rules=ALL):
    return rules.decide([Message("user", text)])


@pytest.mark.parametrize(
    "text",
    [
        "Think hard: is it raining?",
        "please USE ADVANCED",
        "be  smart about it",
        "Reason carefully.",
        "a complex matter",
        "That is difficult",
        "challenging, no?",
        "some deep thinking",
        "Think hard, who are you?",
    ],
)
def test_keywords_go_straight_to_the_larger_model(text):
    assert decide(text) == RuleDecision("escalate", "keyword", "keyword")


@pytest.mark.parametrize(
    "text",
    ["I think hardware is fun", "her complexion", "to be smarter", "without difficulty", "", "Hi"],
)
def test_keywords_are_whole_words(text):
    assert decide(text) == RuleDecision()


@pytest.mark.parametrize(
    "text",
    [
        "What is TinyChat?",
        "Is tiny brain big?",
        "Explain your architecture step by step",
        "compare your size with others",
        "Who made you?",
        "who trained you and why",
        "Tell me about yourself",
        "tell me about you",
        "What are you?",
        "who are you",
        "How many parameters do you have?",
        "how big are you",
        "What is your name? And who on earth built you?",
    ],
)
def test_questions_about_tinychat_stay_local(text):
    assert decide(text) == RuleDecision("local", "none", "self_referential")


@pytest.mark.parametrize(
    "text", ["What are your hobbies?", "whatever you like", "your names", "tinychatter"]
)
def test_other_questions_about_you_are_not_self_referential(text):
    assert decide(text) == RuleDecision()


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        *(
            ("math", text)
            for text in [
                "Solve x + 3 = 5",
                "an equation",
                "the integral of x",
                "derivatives, please",
                "factorial of 5",
                "sqrt of 2",
                "logarithms",
                "linear algebra",
                "geometry",
                "trigonometry",
                "the probability of heads",
                "statistics",
                "invert the matrix",
            ]
        ),
        *(
            ("code", text)
            for text in [
                "```\nx\n```",
                "Sort a list in Python",
                "a Java class",
                "What is TypeScript?",
                "explain C++ templates",
                "Write me a small function",
                "debug this script",
                "refactor the code",
                "an algorithm",
                "def f(x)",
                "class Dog(Animal)",
                "class Dog:\n  pass",
                "function add(a)",
                "async def f",
                "await fetch(url)",
                "from os import path",
                "hi\nimport numpy\nok",
                "export default App",
                "const x = 1",
                "let y = 2",
                "type A = string",
                "interface Shape {",
                "console.log",
                "print(1)",
                "while (true) {",
                "return x + 1;",
                "x => x",
            ]
        ),
        *(
            ("reasoning", text)
            for text in [
                "Compare cats and dogs",
                "contrast them",
                "analyze this",
                "analyse this",
                "evaluate it",
                "the pros and cons",
                "advantages of sleep",
                "disadvantages of sleep",
                "step by step",
                "explain why cats purr",
                "what would happen then",
                "the implications",
                "a trade-off",
                "tradeoffs",
                "difference between cats and dogs",
                "if all cats are black then is Tom black",
            ]
        ),
        ("multi_part", "1. Cats\n2. Dogs"),
        ("multi_part", "Please:\n 1) name a cat\n 2) name a dog"),
        ("multi_part", "Where do cats live? And where do dogs live?"),
        ("translation", "Translate good morning"),
        ("translation", "a translation of cat"),
        ("translation", "cat in Spanish"),
        ("translation", "hello in  esperanto"),
        ("length", "meow " * 41),
    ],
)
def test_what_a_small_model_cannot_do_escalates_at_once(rule, text):
    assert decide(text) == RuleDecision("escalate", "complexity", rule)


@pytest.mark.parametrize(
    "text",
    [
        "I have a class tomorrow",
        "My function here is to listen",
        "let me know when you return",
        "I import tea from China",
        "for (example) cats",
        "an integral part of me",
        "a python bit me",
        "good morning! How are you? What's up?",
        "1. I like cats",
        "Hi? Really? Why?",
        "I live in Spain",
        "nothing compares to summer",
        "if only it rained",
        "meow " * 40,
    ],
)
def test_small_talk_gets_no_verdict_from_words_it_shares(text):
    assert decide(text) == RuleDecision()


@pytest.mark.parametrize(
    "text",
    [
        "What is 2 + 2?",
        "2*3",
        "10 / 5",
        "7\u00d76",
        "8 \u00f7 2",
        "5 - 3",
        "2^3",
        "9 % 2",
        "3 x 4",
        "Calculate five plus five",
        "compute it",
        "ten percent",
        "multiply them",
        "the sum of one and two",
        "an average cat",
    ],
)
def test_simple_sums_are_a_prior_without_a_verdict(text):
    assert decide(text) == RuleDecision(prior="math")


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of Japan?",
        "what's the capital of Japan",
        "what\u2019s the capital of Japan",
        "Who is Ada Lovelace?",
        "who was Ada Lovelace",
        "When did it rain?",
        "Where is Rome?",
        "How many legs has a spider?",
        "I know how much you like cats",
        "in what year",
        "population of Rome",
        "president of France",
        "founded in Rome",
        "who invented tea",
        "who discovered tea",
        "the history of tea",
        "explain how cats purr",
        "How does a clock work?",
    ],
)
def test_simple_facts_are_a_prior_without_a_verdict(text):
    assert decide(text) == RuleDecision(prior="factual")


@pytest.mark.parametrize(
    "text", ["summer in Rome", "the assumption", "2 cats + dogs", "somewhere is rain", "showhow"]
)
def test_priors_are_bounded_by_words(text):
    assert decide(text) == RuleDecision()


@pytest.mark.parametrize(
    ("off", "text", "then"),
    [
        ("keyword", "think hard", RuleDecision()),
        ("self_referential", "Compare yourself: who are you", "escalate"),
        ("complexity", "translate cat", RuleDecision()),
        ("complexity", "What is 2 + 2?", RuleDecision()),
    ],
)
def test_each_family_can_be_switched_off(off, text, then):
    decision = decide(text, Rules(**{off: False}))
    assert then in (decision, decision.verdict)


def test_only_the_last_user_message_is_judged():
    turns = [Message("user", "think hard"), Message("assistant", "Done."), Message("user", "Hi")]
    assert ALL.decide(turns) == RuleDecision()
    assert ALL.decide([*turns[:2], Message("assistant", "?")]).rule == "keyword"


def test_a_conversation_without_a_user_gets_no_verdict():
    assert ALL.decide([Message("system", "think hard")]) == RuleDecision()


ADVERSARIAL = [
    *("1", "1 ", "1. ", "1.\n", "\n", " ", "\t", "?", "a?", "a b c d? ", "w", "a.", "`", "("),
    *("if ", "if (", "how does ", "def ", "def a", "class a ", "write ", "write a ", "import "),
    *("return ", "await a.", "let a ", "think ", "in ", "from a.", "function a", "for (a", "your "),
]


@pytest.mark.parametrize("piece", ADVERSARIAL)
@pytest.mark.parametrize("start", ["", "1", "def ", "how does ", "write "])
def test_no_text_takes_more_than_linear_time(piece, start):
    text = start + piece * (32_000 // len(piece)) + "!"
    started = time.process_time()
    decide(text)
    assert time.process_time() - started < 1


@given(st.text(max_size=300))
def test_any_text_gets_a_decision(text):
    decision = decide(text)
    assert (decision.verdict is None) == (decision.rule is None)
