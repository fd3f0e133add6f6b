"""Shows several runs on one page: pictures, figures and curves side by side.

python -m cvjax.compare_runs runs/a runs/b runs/c --output=compared.html

Runs whose configs differ in the seed alone are folded into their mean and spread.
"""

import argparse
import dataclasses
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cvjax import command, report
from cvjax.captions import FIRST, describe_picture
from cvjax.display import embed_image, format_number
from cvjax.errors import UserError, number_of
from cvjax.rundir import read_config, sample_metrics, write_atomically

ROWS = 5000  # rows of each split that are read of a run
BYTES = 4_000_000  # for all pictures together, before base64 adds a third


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one config on different seeds.

    `config` is that of the first run; `rows` are those of each run's metrics.jsonl.
    """

    name: str
    runs: tuple[Path, ...]
    config: Mapping[str, Any]
    rows: tuple[list[dict[str, Any]], ...]

    def figures(self) -> dict[str, list[float]]:
        """Returns the final figures, one value for each run that has them."""
        found: dict[str, list[float]] = {}
        for rows in self.rows:
            final: dict[str, float] = {}
            for row in rows:
                if row["split"] in ("eval", "verdict"):
                    final |= {name: value for name, value in row.items() if name not in ("step", "split")}
            for name, value in final.items():
                found.setdefault(name, []).append(value)
        return found

    def curves(self) -> dict[tuple[str, str], list[tuple[int, list[float]]]]:
        """Returns {(name, split): [(step, a value for each run)]} at the steps that all runs have."""
        found: dict[tuple[str, str], dict[int, list[float]]] = {}
        for rows in self.rows:
            seen = set()
            for row in reversed(rows):  # a step that was evaluated twice counts once
                for name in row.keys() - {"step", "split"} if row["split"] in ("train", "eval") else ():
                    if (name, row["split"], row["step"]) not in seen:
                        seen.add((name, row["split"], row["step"]))
                        found.setdefault((name, row["split"]), {}).setdefault(row["step"], []).append(row[name])
        return {
            key: [(step, values) for step, values in sorted(points.items()) if len(values) == len(self.runs)]
            for key, points in sorted(found.items())
        }


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = command.Parser(
        prog="python -m cvjax.compare_runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--output", type=Path, default=Path("compared.html"), help="the page")
    arguments = parser.parse_args(argv)
    if len(set(arguments.runs)) < 2:
        raise UserError("give the folders of two or more runs.")
    groups = group_runs([run.expanduser() for run in dict.fromkeys(arguments.runs)])
    write_atomically(arguments.output.expanduser(), make_page(groups))
    print(f"{number_of(len(set(arguments.runs)), 'run')} in {arguments.output}")


def group_runs(folders: Sequence[Path]) -> list[Group]:
    """Reads runs and folds those whose configs differ in the seed alone."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        config = {key: value for key, value in read_config(folder)["config"].items() if key != "seed"}
        found.setdefault(json.dumps(config, sort_keys=True), []).append(folder)
    groups = []
    for runs in found.values():
        name = re.sub(r"[-_]?seed[-_=]?\d+$", "", runs[0].name) if len(runs) > 1 else runs[0].name
        name += f" ({len(runs)} seeds)" if len(runs) > 1 else ""
        rows = tuple(sample_metrics(run, ROWS) for run in runs)
        groups.append(Group(name, tuple(runs), read_config(runs[0])["config"], rows))
    return groups


def make_page(groups: Sequence[Group]) -> str:
    """Returns the page that shows groups of runs side by side."""
    charts = chart_curves(groups)
    last = max((row["step"] for group in groups for rows in group.rows for row in rows), default=0)
    title = " and ".join(group.name for group in groups) if len(groups) < 4 else f"{len(groups)} groups of runs"
    sections = (
        report.section("Pictures", show_pictures(groups)),
        report.section("Figures", tabulate_figures(groups)),
        report.section("Curves", report.panels(charts, 0, "curves")),
        report.section("What differs in the configs", tabulate_differences(groups)),
    )
    return report.render(title, f"<h1>{escape(title)}</h1>", sections, [chart for _, chart in charts], last)


def summarise(values: Sequence[float]) -> str:
    """Returns a value, or the mean of several with their standard deviation."""
    if len(values) == 1:
        return format_number(values[0], 4)
    return f"{format_number(statistics.fmean(values), 4)} ± {format_number(_spread(values), 2)}"


def tabulate_figures(groups: Sequence[Group]) -> str:
    """Returns a table of the final figures: a row for each figure, a column for each group."""
    figures = [group.figures() for group in groups]
    names = dict.fromkeys(name for found in figures for name in found)
    rows = [
        f'<tr><th scope="row">{escape(name)}{report.caption(name)}</th>'
        + "".join(f'<td class="number">{summarise(f[name]) if name in f else "—"}</td>' for f in figures)
        for name in names
    ]
    return _table(["", *(group.name for group in groups)], rows) if rows else ""


def chart_curves(groups: Sequence[Group]) -> list[tuple[str, dict]]:
    """Returns (title, chart) of every metric that has a curve, with a line for each group and split."""
    curves = [group.curves() for group in groups]
    charts = []
    for metric in dict.fromkeys(name for found in curves for name, _ in found):
        lines = []
        for colour, (group, found) in enumerate(zip(groups, curves, strict=True)):
            for (name, split), points in found.items():
                if name == metric and len(points) > 1:
                    steps, means = report.thin([(step, statistics.fmean(values)) for step, values in points])
                    line = dict(label=group.name, split=split, colour=colour, steps=steps, values=means)
                    if len(group.runs) > 1:
                        spread = {step: _spread(values) for step, values in points}
                        line["low"] = [_finite(m, -spread[s]) for s, m in zip(steps, means, strict=True)]
                        line["high"] = [_finite(m, spread[s]) for s, m in zip(steps, means, strict=True)]
                    lines.append(line)
        if lines:
            charts.append((metric, {"series": lines, "bars": []}))
    return charts


def show_pictures(groups: Sequence[Group]) -> str:
    """Returns the latest pictures of each name, those of the first run of each group side by side."""
    latest: dict[str, dict[int, Path]] = {}
    for number, group in enumerate(groups):
        folder = group.runs[0] / "figures"
        for path in sorted(folder.rglob("*.png")):
            if path.stem.isdigit():
                latest.setdefault(path.parent.relative_to(folder).as_posix(), {})[number] = path
    limit = BYTES // max(1, sum(map(len, latest.values())))
    figures = []
    for name in sorted(latest, key=lambda name: (name.split("/")[0] not in FIRST, name)):
        cells = []
        for number, path in latest[name].items():
            source, _, _ = embed_image(path, path.stat().st_mtime_ns, limit)
            label = f"{groups[number].runs[0].name}, step {int(path.stem):,}"
            cells.append(
                f'<div>{escape(label)}<img class="large" src="{source}" alt="{escape(f"{name} of {label}")}"></div>'
            )
        about = escape(describe_picture(name))
        figures.append(
            f'<figure class="panel"><div class="top"><h3>{escape(name)}</h3></div>'
            f'<div class="beside">{"".join(cells)}</div><figcaption>{about}</figcaption></figure>'
        )
    return f'<div class="gallery">{"".join(figures)}</div>' if figures else ""


def tabulate_differences(groups: Sequence[Group]) -> str:
    """Returns a table of the keys whose values are not the same in all groups."""
    flat = [dict(report.flatten(group.config)) for group in groups]
    names = [
        name
        for name in dict.fromkeys(key for keys in flat for key in keys)
        if name.split(".")[0] not in ("seed", "expect_for")
    ]
    rows = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="mono">{escape(keys.get(name, "—"))}</td>' for keys in flat)
        for name in names
        if len({keys.get(name, "—") for keys in flat}) > 1
    ]
    return _table(["", *(group.name for group in groups)], rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return (
        f'<div class="panel scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else 0.0


def _finite(mean: float | None, by: float) -> float | None:
    return None if mean is None else float(f"{mean + by:.6g}")


if __name__ == "__main__":
    command.run_main(main)
