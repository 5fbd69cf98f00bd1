"""How well the decision between small and larger model is made, beside simple signals.

The model that ships is asked in wordings that it was never trained on. Routers are fitted on the
questions for calibration and measured on those for tests, on families that calibration left out,
and over random halves of both. With --trivia, SmolLM2 behind an API is measured likewise.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path

from cases import HOLD_BACK_TOKENS, Drafts, declining, questions_in_new_wordings
from deciding import deciding
from latency import markdown
from measuring import Measured, Measurement, without_router
from overhead import load, machine
from trivia import ASKED, answer_trivia, read_trivia

from tinybrain.config import Settings, load_settings
from tinybrain.engine.loading import load_tinychat
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.assembly import checkpoint_of
from tinybrain.routing.calibration.draft_file import DraftFile

DEBIAN_WORDNET = Path("/usr/share/wordnet")
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- routing.py --readme -->", "<!-- end of routing.py --readme -->"
AT_ONCE = 16

About = dict[str, object]
Run = Coroutine[None, None, tuple[Measured, About]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: each n-th question, random halves, answers timed."""

    every: int
    splits: int
    timed: int


FULL = Size(every=1, splits=20, timed=60)
QUICK = Size(every=3, splits=3, timed=15)


async def of_the_shipped_model(
    settings: Settings, wordnet: Path, size: Size, *, fresh: bool
) -> tuple[Measured, About]:
    """What is measured, and on what."""
    questions, facts = questions_in_new_wordings(wordnet)
    questions = questions[:: size.every]
    digest = checkpoint_of(settings).digest()
    file = DraftFile(
        settings.home / "benchmarks",
        checkpoint=digest,
        precision=settings.precision,
        hold_back_tokens=HOLD_BACK_TOKENS,
    )
    drafts = Drafts(file, questions, fresh=fresh)
    model = load_tinychat(settings, slots=AT_ONCE)
    try:
        model.warm_up()
        await drafts.ask(model, at_once=AT_ONCE)
        cases = drafts.cases(declines=declining())
        measurement = Measurement(cases, splits=size.splits)
        measured = measurement.measure(settings.max_cost_per_call)
        row, aim = await deciding(model, measurement.routers[0], questions[: size.timed])
    finally:
        model.close()
    measured.tables["The decision's latency, one question at a time"] = [row]
    measured.aims.append(aim)
    about = {"checkpoint": digest, "questions": len(questions), "facts": facts}
    return measured, about | {"declined": sum(case.declined for case in cases)}


async def of_smollm2(
    settings: Settings, trivia: Path, size: Size, *, fresh: bool
) -> tuple[Measured, About]:
    """The same of SmolLM2, behind an API."""
    questions = read_trivia(trivia, count=ASKED)
    cases = await answer_trivia(questions, settings.home / "benchmarks", fresh=fresh)
    about = {"questions": len(cases), "right": sum(case.right for case in cases)}
    try:
        measured = Measurement(cases, splits=size.splits).measure(settings.max_cost_per_call)
    except ConfigError as error:
        measured = without_router(cases, error.message)
    measured.aims.clear()  # they are for the model that ships
    return measured, about


def printed(heading: str, measured: Measured, about: About) -> str:
    """As Markdown."""
    parts = [f"### {heading}", ", ".join(f"{name} {value}" for name, value in about.items())]
    parts += [f"**{title}**\n\n{markdown(rows)}" for title, rows in measured.tables.items()]
    if measured.aims:
        parts.append(f"**Aims**\n\n{markdown([aim.row() for aim in measured.aims])}")
    parts.append("\n".join(f"- {verdict}" for verdict in measured.verdicts))
    return "\n\n".join(parts)


def with_results(readme: str, results: str) -> str:
    """The text with the results between the two marks, instead of what stood there."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the questions, few splits")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there too")
    parser.add_argument("--readme", action="store_true", help="put the tables into the README")
    parser.add_argument("--trivia", type=Path, metavar="PATH", help="questions for SmolLM2")
    parser.add_argument("--wordnet", type=Path, metavar="FOLDER", default=DEBIAN_WORDNET)
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="another than ships")
    parser.add_argument("--home", type=Path, metavar="FOLDER", help="where answers are kept")
    parser.add_argument("--fresh", action="store_true", help="ask again what was answered before")
    arguments = parser.parse_args()
    given = {"checkpoint": arguments.checkpoint, "home": arguments.home}
    settings = load_settings(**{name: value for name, value in given.items() if value})
    size = QUICK if arguments.quick else FULL
    report: dict[str, object] = {**machine(), **asdict(size), "load before": load()}
    said = [", ".join(f"{name} {value}" for name, value in report.items())]
    print(said[0])

    def tell(name: str, run: Run) -> None:
        start = time.perf_counter()
        measured, about = asyncio.run(run)
        about["seconds"] = round(time.perf_counter() - start)
        said.append(printed(name, measured, about))
        print(f"\n{said[-1]}", flush=True)
        report[name] = about | measured.recorded()

    fresh, trivia = arguments.fresh, arguments.trivia
    tell("TinyChat", of_the_shipped_model(settings, arguments.wordnet, size, fresh=fresh))
    if trivia is None or not trivia.is_file():
        said.append(f"SmolLM2 is left out: there is no file of questions ({trivia}), see --trivia.")
        print(f"\n{said[-1]}")
    else:
        tell("SmolLM2", of_smollm2(settings, trivia, size, fresh=fresh))
    report["load after"] = load()
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))
    if arguments.readme:
        README.write_text(with_results(README.read_text(), "\n\n".join(said)))


if __name__ == "__main__":
    main()
