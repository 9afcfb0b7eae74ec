"""What was measured, as tables in Markdown and as plots in SVG."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING

from contrib.bench.plot import Plot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from contrib.bench.parts import Sample, Seen

FLOOR = "floor"


class Measure:
    """The samples of one measure."""

    def __init__(self, name: str, samples: Iterable[Sample]) -> None:
        self.name = name
        self.values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)  # (peer, case): by round
        for sample in samples:
            self.values[sample.peer, sample.case][sample.round] = sample.value
        self.cases = sorted({sample.case for sample in samples}, key=_by_numbers)

    def peers(self, known: Sequence[str]) -> list[str]:
        """Return whoever was measured, those of the table of peers first and in its order."""
        found = dict.fromkeys(peer for peer, _ in self.values)
        return [peer for peer in known if peer in found] + [peer for peer in found if peer not in known]

    def cell(self, peer: str, case: str) -> str:
        """Return median, p95 and the median of the ratios to the floor in the same round, as far as there are any."""
        if not (values := self.values.get((peer, case))):
            return "–"
        text = f"**{shown(median(values.values()))}**"
        if len(values) > 1:
            text += f" ({shown(p95(values.values()))})"
        floor = self.values.get((FLOOR, case), {})
        ratios = [value / floor[number] for number, value in values.items() if _comparable(value, floor.get(number))]
        return text + (f" ×{shown(median(ratios))}" if ratios and peer != FLOOR else "")


def _by_numbers(case: str) -> list[tuple[float, str]]:
    """Return what sorts `N=2` before `N=10`."""
    return [(float(number or 0), words) for number, words in re.findall(r"([0-9.]+)|([^0-9]+)", case)]


def _comparable(value: float, floor: float | None) -> bool:
    return floor is not None and 0 < floor < math.inf and value < math.inf


def measures(samples: Sequence[Sample]) -> list[Measure]:
    """Return the measures in the order in which they were taken."""
    names = dict.fromkeys(sample.measure for sample in samples)
    return [Measure(name, [sample for sample in samples if sample.measure == name]) for name in names]


def p95(values: Iterable[float]) -> float:
    """Return the value that 95 of 100 do not exceed: the nearest rank."""
    ordered = sorted(values)
    return ordered[math.ceil(0.95 * len(ordered)) - 1]


def shown(value: float) -> str:
    """Return a number with three digits that count."""
    if value == math.inf:
        return "never"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def table(measure: Measure, known: Sequence[str]) -> str:
    """Return the measure as a table: a row each peer, a column each case."""
    rows = [["", *(case or "median (p95) ×floor" for case in measure.cases)]]
    rows += [[peer, *(measure.cell(peer, case) for case in measure.cases)] for peer in measure.peers(known)]
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """Return rows, of which the first is the head, as a table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def limits(seen: Sequence[Seen], known: Sequence[str]) -> str:
    """Return, for each peer, how many jobs ran at once at most where n were allowed, by what the observer saw."""
    rows = [["", "most at once / N", "runs beyond N", "with its wrapper killed, runs beyond N"]]
    for peer in known:
        calm = [one for one in seen if one.peer == peer and not one.killed]
        killed = [one for one in seen if one.peer == peer and one.killed]
        if calm or killed:
            most = {n: max(one.overlap for one in calm if one.n == n) for n in sorted({one.n for one in calm})}
            rows.append([peer, ", ".join(f"{worst}/{n}" for n, worst in most.items()), _beyond(calm), _beyond(killed)])
    return markdown(rows)


def _beyond(seen: list[Seen]) -> str:
    beyond = sum(one.overlap > one.n for one in seen)
    return f"{f'**{beyond}**' if beyond else '0'} of {len(seen)}" if seen else "–"


def write(
    folder: Path, head: str, samples: Sequence[Sample], seen: Sequence[Seen], notes: Sequence[str], known: Sequence[str]
) -> None:
    """Write RESULTS.md and its plots."""
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    sections = [head, "## Did the limit hold?\n\n" + limits(seen, known)]
    for measure in measures(samples):
        name = re.sub(r"[^a-z0-9]+", "-", measure.name.split(",")[0].lower()).strip("-") + ".svg"
        (plots / name).write_text(plot(measure, known))
        sections.append(
            f"## {measure.name[0].upper()}{measure.name[1:]}\n\n{table(measure, known)}\n\n![](plots/{name})"
        )
    if notes:
        sections.append("## Left out\n\n" + "\n".join(f"- {note}" for note in notes))
    (folder / "RESULTS.md").write_text("\n\n".join(sections) + "\n")


def plot(measure: Measure, known: Sequence[str]) -> str:
    """Return the measure as a picture: a row each peer, a colour each case, from the median to the p95."""
    picture = Plot(measure.name, measure.peers(known), measure.cases)
    for (peer, case), values in measure.values.items():
        picture.add(peer, case, median(values.values()), p95(values.values()))
    return picture.svg()
