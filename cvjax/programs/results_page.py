"""The page RESULTS.md: each config's seeds beside its present bars, then every run, then the controls."""

import collections
import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvjax import command, config, rundir
from cvjax.display import format_number
from cvjax.errors import UserError
from cvjax.programs import provenance

Row = Mapping[str, Any]

MARGIN = 2.5  # standard deviations between the mean over seeds and a suggested bar
ENOUGH = 3  # seeds that a suggestion needs
OLDER, OTHER = "†", "‡"
HEADER = f"""# Results

Written by `python -m cvjax.results CONFIG --seed=7 --seed=8`, which trains a config from scratch once per seed. It
keeps the runs in RESULTS.jsonl; neither file is edited by hand.

`spread` is the standard deviation over the seeds, and `worst` the least favourable value. Bars are those of the present
configs.

* {OLDER} The code of the system, its losses or its measures has changed since these runs.
* {OTHER} The config's settings have changed since this run, so it does not count in the first table.
* A commit with a + had uncommitted changes.
"""

FRAMES = """## From sliding windows to Mask R-CNN

Measured by `python -m cvjax.programs.frames RUN ... --output=RESULTS.md` on frames of the network's size, one at a
time, compiled, on the device named. A window is what a class is asked of. Times are facts of a machine: no config has a
bar for them, and training a config again removes its line.
"""
STORY = ("sliding_window", "rcnn", "spp_net", "fast_rcnn", "faster_rcnn", "alternating", "mask_rcnn")  # by year
FRAME_FIGURES = {"map_voc07": "VOC07 mAP", "ap": "COCO AP", "mask_ap": "mask AP", "keypoint_ap": "keypoint AP"}


@dataclasses.dataclass(frozen=True)
class Folded:
    """A figure over the seeds of a config: its values, NaN for a run without it, and its bar, None if none holds."""

    name: str
    values: tuple[float, ...]
    relation: str
    bar: float | None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Sample standard deviation; NaN for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def worst(self) -> float:
        """The value closest to missing the bar, or farthest beyond it."""
        if any(map(math.isnan, self.values)):
            return math.nan
        if self.relation == "==":
            return max(self.values, key=lambda value: abs(value - (self.bar or 0.0)))
        return max(self.values) if self.relation.startswith("<") else min(self.values)

    @property
    def met(self) -> int:
        """Number of seeds that meet the bar."""
        return sum(rundir.RELATIONS[self.relation](value, self.bar) for value in self.values)

    def suggested_bar(self) -> float | None:
        """Returns mean + 2.5 standard deviations, on the bar's side and rounded outwards; None with too few seeds."""
        if len(self.values) < ENOUGH or self.relation == "==" or not math.isfinite(self.mean):
            return None
        upper = self.relation.startswith("<")
        bar = self.mean + (MARGIN if upper else -MARGIN) * self.spread
        unit = 10.0 ** (math.floor(math.log10(abs(bar))) - 2) if bar else 1.0
        return (math.ceil if upper else math.floor)(round(bar / unit, 6)) * unit


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes the page of the stored rows."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[group_of(row)].append(row)
    groups = dict(sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] != "float32")))
    sections = [HEADER, _summary(groups), *_frames(rows), "## Runs\n", _runs(groups), *_controls(rows)]
    rundir.write_atomically(path, "\n".join(sections))


def group_of(row: Row) -> tuple[str, str]:
    """Returns the config and the precision of a row, whose seeds are folded together."""
    return row["config"], row.get("precision", "float32")


def name_of(row: Row) -> str:
    """Returns the name of a row's config, with its precision unless that is float32."""
    path, precision = group_of(row)
    return command.name_of(path) + ("" if precision == "float32" else f" in {precision}")


def suggest_bars(path: str, rows: Sequence[Row], precision: str = "float32") -> list[str]:
    """Returns a line per figure of a config with a suggested bar, if there are enough seeds among all stored rows."""
    lines = []
    for figure in fold(path, [row for row in rows if group_of(row) == (path, precision)]):
        suggested = figure.suggested_bar()
        if suggested is not None:
            lines.append(
                f"suggested bar: {figure.name} {figure.relation} {suggested:.3g} (mean {figure.mean:.3g}, "
                f"{MARGIN} standard deviations of {figure.spread:.2g}, {len(figure.values)} seeds; "
                f"now {'none' if figure.bar is None else f'{figure.bar:g}'})"
            )
    return lines


def fold(path: str, rows: Sequence[Row]) -> list[Folded]:
    """Returns a figure for each bar of a config's `expect`, over its rows; those with other settings do not count.

    There are none if no row counts.
    """
    experiment, rows = load_config(path), [row for row in rows if comparable(row)]
    if experiment is None or not rows:
        return []
    held = not config.changed_settings(experiment)
    return [
        Folded(name, tuple(row["figures"].get(name, math.nan) for row in rows), relation, float(bar) if held else None)
        for name, (relation, bar) in sorted(experiment["expect"].items())
    ]


def comparable(row: Row) -> bool:
    """Returns whether a row's settings are those of the present config; of early rows, data and steps are known."""
    experiment = load_config(row["config"])
    if experiment is None:
        return False
    if "settings" in row:
        now = config.bar_settings(experiment)
        return all(row["settings"].get(key) == value for key, value in now.items() if key != "expect")
    data = experiment["data"]
    return (row["steps"], row["data"]) == (experiment["steps"], data["name"] or data["folder"])


@functools.cache
def load_config(path: str) -> dict[str, Any] | None:
    """Returns the present config as plain dicts, or None if there is none."""
    try:
        return config.as_dict(config.load(path))
    except UserError:
        return None


def _summary(groups: Mapping[tuple[str, str], Sequence[Row]]) -> str:
    columns = ("config", "figure", "bar", "mean", "spread", "worst", "met", "seeds", "made by")
    lines = []
    for (path, _), rows in groups.items():
        counted = [row for row in rows if comparable(row)]
        seeds = ", ".join(str(row["seed"]) for row in counted)
        for figure in fold(path, rows):
            bar, met = "", ""
            if figure.bar is not None:
                bar = f"{figure.relation} {figure.bar:g}"
                met = "yes" if figure.met == len(counted) else f"NO, {figure.met} of {len(counted)}"
            numbers = ["" if math.isnan(n) else format_number(n) for n in (figure.mean, figure.spread, figure.worst)]
            lines.append([name_of(rows[0]), figure.name, bar, *numbers, met, seeds, _makers(counted)])
    return _table(columns, lines)


def _runs(groups: Mapping[tuple[str, str], Sequence[Row]]) -> str:
    columns = ("config", "seed", "data", "parameters", "steps", "minutes", "device", "figures", "made by")
    lines = []
    for (path, _), rows in groups.items():
        wanted = (load_config(path) or {}).get("expect", {})
        for row in sorted(rows, key=lambda row: row["seed"]):
            shown = {name: value for name, value in row["figures"].items() if name in wanted} or row["figures"]
            figures = "<br>".join(f"{name} {format_number(value)}" for name, value in sorted(shown.items()))
            sizes = f"{row['parameters']:,}", f"{row['steps']:,}", f"{row['minutes']:.1f}"
            maker = _makers([row]) + ("" if comparable(row) else f" {OTHER}")
            lines.append([name_of(row), str(row["seed"]), row["data"], *sizes, row["device"], figures, maker])
    return _table(columns, lines)


def tabulate_frames(rows: Sequence[Row]) -> str:
    """Returns a table of detectors by what `cvjax.programs.frames` measured: those of `STORY`, then others."""
    columns = ("system", "config", "seed", *FRAME_FIGURES.values(), "windows classified", "ms a frame")
    columns += ("of it, the search for proposals", "device, frames")
    lines = []

    def place(row: Row) -> tuple[int, str]:
        name = row["system"].rpartition(".")[2]
        return STORY.index(name) if name in STORY else len(STORY), name_of(row)

    for row in sorted(rows, key=place):
        frame = row["frame"]
        figures = [f"{row['figures'][name]:.3f}" if name in row["figures"] else "" for name in FRAME_FIGURES]
        times = [f"{1e3 * value:.3g}" if value is not None else "" for value in (frame["seconds"], frame["search"])]
        where = f"{frame['device']}, {frame['frames']} of {'x'.join(map(str, frame['pixels']))}, {frame['date']}"
        named = [row["system"].rpartition(".")[2], name_of(row), str(row["seed"])]
        lines.append([*named, *figures, f"{frame['windows']:,.0f}", *times, where])
    return _table(columns, lines)


def _frames(rows: Sequence[Row]) -> list[str]:
    """Returns the table of the rows whose frames were measured."""
    measured = [row for row in rows if "frame" in row]
    return [FRAMES, tabulate_frames(measured)] if measured else []


def _makers(rows: Sequence[Row]) -> str:
    """Returns the commits of rows with their dates, marked if the code has changed since."""
    made = {(row.get("commit"), row.get("date")): _older(row) for row in rows}
    named = {f"{_short(commit)} {date or ''}".strip(): older for (commit, date), older in made.items()}
    return "<br>".join(name + (f" {OLDER}" if older else "") for name, older in named.items())


def _short(commit: str | None) -> str:
    return "" if commit is None else f"`{commit[:7]}{'+' if commit.endswith('+') else ''}`"


def _older(row: Row) -> bool:
    # Without digests of its settings, they can only be compared by the config file.
    config_file = () if "settings" in row else (row["config"].partition(":")[0],)
    return row.get("commit") is not None and _changed(row["commit"], row["system"], config_file)


@functools.cache
def _changed(commit: str, system: str, files: tuple[str, ...]) -> bool:
    return provenance.changed_since(commit, [*provenance.source_files(system), *files])


def _controls(rows: Sequence[Row]) -> list[str]:
    """Returns a table for each set of controls, with the configs that share them."""
    tables = collections.defaultdict(dict)
    for row in rows:
        scores = {title: values for title, values in row.get("controls", {}).items() if values.keys() & row["figures"]}
        if not scores:
            continue
        names = sorted({name for values in scores.values() for name in values} & row["figures"].keys())
        lines = tuple((title, *_numbers(values, names)) for title, values in scores.items())
        name = name_of(row)
        tables[tuple(names), lines][name] = [f"**{name}** (seed {row['seed']})", *_numbers(row["figures"], names)]
    sections = []
    for (names, lines), systems in sorted(tables.items(), key=lambda item: min(item[1])):
        title = f"## Controls of {', '.join(sorted(systems))}\n"
        body = [*(systems[name] for name in sorted(systems)), *lines]
        sections += [title, "Scores of simple or broken competitors by the same code.\n", _table(("", *names), body)]
    return sections


def _numbers(values: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [format_number(values[name]) if name in values else "" for name in names]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
