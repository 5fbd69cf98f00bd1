"""Two answers are compared by what the small one adds to the question, or not at all."""

import time

import pytest

from tinybrain.routing.online.agreement import agrees

FRANCE = "What is the capital of France?"
SAME = [
    (FRANCE, "Paris.", "The capital of France is Paris, on the Seine."),
    (FRANCE, "Paris is the capital of France.", "**Paris**"),
    ("Can you tell me the capital of Brazil?", "It's Brasilia.", "Bras\u00edlia."),
    ("What is 600 + 400?", "600 + 400 is 1,000.", "The sum is 1000."),
    ("How many legs has a spider?", "A spider has eight legs.", "8 legs"),
    ("What is 40 + 2?", "Forty-two.", "42"),
    ("What is 3 - 10?", "3 minus 10 is minus seven.", "**\u22127**"),
    ("What is 7-3?", "7-3 is 4.", "4"),
    ("When was the war?", "1914-1918.", "From 1914 to 1918."),
    ("How is cat spelled?", "c a t", "It is spelled C-A-T."),
    ("How much is a pint in litres?", "0.50 litres", "About 0.5 l"),
    ("What is the chemical symbol of gold?", "Au", "Its symbol is Au."),
    ("What is the opposite of hot?", "The opposite of hot is cold.", "Cold."),
    ("Who has gills?", "Fish have gills.", "Fish, and some amphibians."),
    ("What is the number of gold in the table?", "79 is the atomic number of gold.", "It is 79."),
    ("Is Paris in France?", "Yes, it is.", "Yes, Paris is the capital of France."),
]
DIFFERENT = [
    (FRANCE, "Lyon.", "The capital of France is Paris."),
    (FRANCE, "Lyon is the capital of France.", "Paris, not Lyon, is its capital."),
    (FRANCE, "The capital is Nice, in Italy, by the sea.", "Paris."),
    ("What is 7 * 8?", "54", "56"),
    ("What is 7 * 8?", "7 * 8 = 54, which is what a table of sums says.", "7 * 8 is 56."),
    ("How many legs has a spider?", "Six legs.", "Eight."),
    ("What is the opposite of hot?", "Warm.", "Cold."),
    ("What do they pay with?", "They pay with the franc.", "They pay with the dollar."),
    ("What is 13 in words?", "12.", "**thirteen**"),
    (FRANCE, "The capital of France.", "Paris."),
    ("What is 2+2?", "2+2 is 2", "4"),
    ("What is 2+2?", "2+2 is 2.", "2+2 is 4."),
    ("What is 3 - 10?", "-7", "7"),
    ("What is 3 - 10?", "3 - 10 is 7", "-7"),
    ("How is cat spelled?", "C-T-A", "C-A-T"),
    ("Is Paris in Italy?", "Yes.", "No, it is in France."),
]
UNDECIDED = [
    ("Hello!", "Hello! How can I help?", "Hi there, nice to meet you."),
    ("How are you?", "I am well, thanks.", "I'm doing great!"),
    ("Good morning", "Good morning to you too.", "Morning!"),
    (FRANCE, "The capital of France.", "It is not Lyon."),
    (FRANCE, "The capital of France.", "Paris, on the Seine, in the north of the country."),
    ("What is 4 - 2?", "2", "The difference is 2."),
    ("Is the sky blue?", "The sky is blue.", "Correct."),
    ("Which is larger, the sun or the moon?", "The sun.", "The sun is far larger."),
    (FRANCE, "Paris.", "I'm sorry, I can't help with that."),
    (FRANCE, "Paris.", "I don't know."),
    (FRANCE, "It is not Lyon.", "Paris."),
    (FRANCE, "", "Paris."),
    (FRANCE, "Paris.", ""),
    ("What does arid mean?", "Lacking enough water for plants.", "Very dry, with little rain."),
    ("What is a dog?", " ".join(f"w{'x' * i}" for i in range(40)), "An animal."),
]


@pytest.mark.parametrize(("question", "small", "larger"), SAME)
def test_what_says_the_same_agrees(question, small, larger):
    assert agrees(question, small, larger) is True


@pytest.mark.parametrize(("question", "small", "larger"), DIFFERENT)
def test_another_name_number_or_word_does_not(question, small, larger):
    assert agrees(question, small, larger) is False


@pytest.mark.parametrize(("question", "small", "larger"), UNDECIDED)
def test_where_words_cannot_decide_there_is_no_label(question, small, larger):
    assert agrees(question, small, larger) is None


@pytest.mark.parametrize("word", ["not ", "a", "a-", "1,"])
def test_endless_texts_take_no_time(word):
    long = word * 50_000
    began = time.process_time()
    assert agrees(f"What is {long}?", "Paris", long) is not True
    assert time.process_time() - began < 0.3
