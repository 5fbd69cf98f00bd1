"""Small rules of English: articles, numbers in words, Roman numerals, capitals."""

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
HUNDRED, THOUSAND = 100, 1000
ROMAN = (
    *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L")),
    *((40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
)


def with_article(noun: str) -> str:
    """A noun after a or an."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def capitalised(text: str) -> str:
    """With its first letter large, and nothing else changed."""
    return text[:1].upper() + text[1:]


def in_words(number: int) -> str:
    """A number from 0 to 9,999 in words."""
    if number < len(ONES):
        return ONES[number]
    if number < HUNDRED:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    unit, name = (THOUSAND, "thousand") if number >= THOUSAND else (HUNDRED, "hundred")
    count, rest = divmod(number, unit)
    joint = " and " if rest < HUNDRED else " "
    return f"{in_words(count)} {name}" + (f"{joint}{in_words(rest)}" if rest else "")


def roman(number: int) -> str:
    """A number from 1 to 3,999 in Roman numerals."""
    written = ""
    for value, letters in ROMAN:
        count, number = divmod(number, value)
        written += letters * count
    return written


def spellings(number: str) -> tuple[str, ...]:
    """The ways to write a number that is given in digits or in words; none for another text."""
    digits = number.replace(",", "")
    if digits.isdigit():
        return digits, f"{int(digits):,}", in_words(int(digits))
    values = {in_words(value): value for value in range(101)}
    return (str(values[number]),) if number in values else ()
