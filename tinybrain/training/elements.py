"""Facts about chemical elements, from the package periodictable (public domain)."""

from collections.abc import Iterator

from tinybrain.errors import ConfigError
from tinybrain.training.facts import Fact, fact

LAST = 103
FAMOUS = frozenset(
    {
        *("hydrogen", "helium", "carbon", "nitrogen", "oxygen", "sodium"),
        *("iron", "copper", "silver", "gold", "mercury", "lead"),
    }
)


def element_facts() -> Iterator[Fact]:
    """Symbols, in both directions, and atomic numbers up to lawrencium.

    Raises:
        ConfigError: periodictable is not installed.
    """
    try:
        import periodictable  # noqa: PLC0415  # only needed here
    except ModuleNotFoundError as error:
        raise ConfigError(
            "The facts about elements come from periodictable, which is not installed. "
            "Install it with: pip install 'tinybrain[training]'"
        ) from error
    for element in periodictable.elements:
        if not 0 < element.number <= LAST:
            continue
        name, famous = element.name, element.name in FAMOUS
        yield fact("symbol", name, element.symbol, well_known=famous, key=name)
        yield fact(
            "element_of_symbol", element.symbol, name, well_known=famous, pool="symbol", key=name
        )
        yield fact("atomic_number", name, str(element.number), well_known=famous)
