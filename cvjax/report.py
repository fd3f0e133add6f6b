"""report.html, a run's self-contained page; `python -m cvjax.report RUN` rewrites it."""

import datetime
import json
import math
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from cvjax.captions import FIRST, describe_measure, describe_picture
from cvjax.display import embed_image, format_number, format_scaled
from cvjax.errors import number_of
from cvjax.rundir import check_bars, read_config, sample_metrics, write_atomically

_POINTS = 600  # maximum points per curve; more than a screen resolves
_ROWS = 10_000  # maximum rows of metrics.jsonl that are read of each split
_FRAMES = 12  # maximum frames per figure
_IMAGE_BYTES = 1_200_000  # for all figures together, before base64 adds a third
_RELATIONS = {"<=": "≤", ">=": "≥", "==": "="}
_SHOWN_ELSEWHERE = ("config", "parameters", "command", "started", "seed", "devices", "commit", "changed_settings")
_TITLES = {"steps_per_second": "Steps per second", "data_wait": "Share of time waiting for data"}


def write(workdir: str | Path, *, running: bool = False) -> Path:
    """Writes report.html and returns its path; unless `running`, a run short of its last step is shown as stopped."""
    workdir = Path(workdir).absolute()
    run, rows = read_config(workdir), sample_metrics(workdir, _ROWS)
    rows = [row for row in rows if row["split"] != "verdict"] + [row for row in rows if row["split"] == "verdict"][-1:]
    changed = run.get("changed_settings") or ()
    expect = {} if changed else run["config"].get("expect") or {}
    settings = {key: value for key, value in run["config"].items() if key not in ("expect", "expect_for")}
    charts = _charts([row for row in rows if row["split"] not in ("verdict", "speed")], expect)
    speed = _charts([row for row in rows if row["split"] == "speed"], {}, only=tuple(_TITLES))
    last = max((row["step"] for row in rows), default=0)
    sections = (
        section("Pictures", _gallery(workdir / "figures")),
        _verdict(rows, expect, changed),
        section("Curves", panels(charts, 0, "curves")),
        section("Speed", _speed(rows, panels(speed, len(charts), "curves speed"))),
        section("Configuration", _pairs(flatten(settings))),
        section("Parameters", _parameters(run.get("parameters", ()))),
        section("Go on, or repeat", _commands(run)),
        section("Made with", _pairs(flatten({k: v for k, v in run.items() if k not in _SHOWN_ELSEWHERE}))),
    )
    path = workdir / "report.html"
    charts = [chart for _, chart in charts + speed]
    write_atomically(path, render(workdir.name, _header(workdir, run, last, running), sections, charts, last))
    return path


def render(title: str, header: str, sections: Iterable[str], charts: Sequence[Mapping], last: int) -> str:
    """Returns a page of a plain-text title and of HTML `header` and `sections`, of which empty ones are left out.

    `charts` are those of the sections' panels, by their numbers; `last` is the last step of the curves.
    """
    curves = json.dumps({"last": max(last, 1), "charts": charts}, allow_nan=False)
    parts = {
        "title": escape(title),
        "header": header,
        "main": "\n".join(filter(None, sections)),
        "curves": curves.replace("<", "\\u003c"),  # a name with </script> would end the element
    }
    template = resources.files("cvjax").joinpath("report.html").read_text(encoding="utf-8")
    return re.sub(r"<!--(title|header|main|curves)-->", lambda match: parts[match[1]], template)


def _header(workdir: Path, run: Mapping, last: int, running: bool) -> str:
    config = run["config"]
    steps, data = config.get("steps", last), config.get("data") or {}
    state = "done" if last >= steps else "running" if running else "stopped"
    text = {"done": f"done, {number_of(last, 'step')}", "running": "running, step", "stopped": "stopped at step"}[state]
    text += "" if state == "done" else f" {last:,} of {steps:,}"
    lead = " on ".join(str(part) for part in (config.get("system"), data.get("name") or data.get("folder")) if part)
    metrics = workdir / "metrics.jsonl"
    devices = run.get("devices") or []
    devices = [devices] if isinstance(devices, str) else devices
    facts = {
        "Started": "started" in run and _date(datetime.datetime.fromisoformat(run["started"])),
        "Last written": metrics.exists() and _date(datetime.datetime.fromtimestamp(metrics.stat().st_mtime)),
        "Batch": data.get("batch"),
        "Devices": ", ".join(f"{devices.count(kind)} × {kind}" for kind in dict.fromkeys(devices)),
        "Seed": str(run.get("seed", config.get("seed", ""))),
        "Commit": str(run.get("commit") or "")[:12],
    }
    listed = "".join(f"<div><dt>{k}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items() if v)
    return (
        f"<h1>{escape(workdir.name)}</h1>\n"
        f'<p class="lead"><span class="pill {state}">{text}</span> {escape(lead)}</p>\n<dl class="facts">{listed}</dl>'
    )


def _date(time: datetime.datetime) -> str:
    return f"{time.day} {time:%b %Y, %H:%M}"


def _verdict(rows: Sequence[Mapping], expect: Mapping, changed: Sequence[str]) -> str:
    """Shows the latest figures, beside their bars unless settings of the bars were changed."""
    values = {}
    for row in rows:
        if row["split"] in ("eval", "verdict"):
            values |= {name: value for name, value in row.items() if name not in ("step", "split")}
    others = _measures({name: value for name, value in values.items() if name not in expect})
    if not expect:
        names = escape(", ".join(changed))
        note = f'<p class="soft">No verdict: the bars of this config are for other settings ({names}).</p>'
        return section("Results", (note if changed else "") + others)
    verdict = check_bars(expect, values)
    final = bool(rows) and rows[-1]["split"] == "verdict"
    met = sum(good for *_, good in verdict)
    count = "Every bar is met" if met == len(verdict) else f"{met} of {len(verdict)} bars met"
    lines = []
    for name, value, relation, bar, good in verdict:
        shown = format_number(value, 4) if name in values else "—"
        mark = '<td class="met">✓ met</td>' if good else '<td class="missed">✗ not met</td>'
        lines.append(
            f'<tr><th scope="row">{escape(name)}{caption(name)}</th><td class="number value">{shown}</td>'
            f'<td class="soft">bar {_RELATIONS.get(relation, relation)} {format_number(bar)}</td>{mark}</tr>'
        )
    table = f'<div class="panel scroll"><table class="verdict"><tbody>{"".join(lines)}</tbody></table></div>'
    return section(count if final else f"So far: {count[0].lower()}{count[1:]}", table + others)


def _charts(rows: Iterable[Mapping], expect: Mapping, only: Sequence[str] = ()) -> list[tuple[str, dict]]:
    """Returns (title, chart) for each group of metrics (the name before the slash); charts have series and bars."""
    series: dict[str, dict] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "split") and (not only or name in only):
                group = series.setdefault(name.split("/")[0], {})
                group.setdefault((name, row["split"]), []).append((row["step"], value))
    charts = []
    for group, curves in series.items():
        if all(len(points) < 2 for points in curves.values()):
            continue  # a single evaluation is shown with the results instead
        names = list(dict.fromkeys(name for name, _ in curves))
        bars = [
            {"relation": _RELATIONS.get(relation, relation), "value": bar}
            for name, (relation, bar) in expect.items()
            if name in names and math.isfinite(bar)
        ]
        lines = []
        for (name, split), points in curves.items():
            label, (steps, values) = name.removeprefix(f"{group}/"), thin(points)
            lines.append(dict(label=label, split=split, colour=names.index(name), steps=steps, values=values))
        charts.append((_TITLES.get(group, group), {"series": lines, "bars": bars}))
    return charts


def thin(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float | None]]:
    """Reduces a long curve to the extremes of each stretch, so that spikes survive; non-finite values become None."""
    if len(points) > _POINTS:
        kept = {len(points) - 1}
        for stretch in np.array_split(np.arange(len(points)), _POINTS // 3):
            finite = [index for index in stretch if math.isfinite(points[index][1])]
            kept.update(sorted(finite, key=lambda index: points[index][1])[:: max(1, len(finite) - 1)])
            kept.update([index for index in stretch if index not in finite][:1])
        points = [points[index] for index in sorted(kept)]
    values = [float(f"{value:.6g}") if math.isfinite(value) else None for _, value in points]
    return [step for step, _ in points], values


def panels(charts: Sequence[tuple[str, dict]], first: int, kind: str) -> str:
    """Returns the panels of (title, chart), numbered from `first`, in an element of the class `kind`."""
    found = [
        f'<figure class="chart panel" data-chart="{number}"><div class="top"><h3>{escape(title)}'
        f'{caption(title)}</h3><span class="at soft"></span>'
        '<button type="button" aria-pressed="false" hidden>log</button></div>'
        '<ul class="legend"></ul></figure>'
        for number, (title, _) in enumerate(charts, first)
    ]
    return f'<div class="{kind}">{"".join(found)}</div>' if found else ""


def _gallery(folder: Path) -> str:
    """Shows the latest figure of each name, with a strip of earlier ones."""
    names: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*.png")):
        if path.stem.isdigit():
            names.setdefault(path.parent, []).append(path)
    if not names:
        return ""
    frames = min(_FRAMES, max(2, 4 * _FRAMES // len(names)))
    share = _IMAGE_BYTES // (len(names) * (frames + 4))  # the latest gets four shares
    figures = []
    order = {name: place for place, name in enumerate(FIRST)}
    for parent, paths in sorted(
        names.items(), key=lambda item: order.get(item[0].relative_to(folder).parts[0], len(FIRST))
    ):
        about = escape(describe_picture(parent.relative_to(folder).as_posix()))
        name = escape(parent.relative_to(folder).as_posix())
        picks = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, frames).round().astype(int))]
        buttons = "".join(
            f'<button type="button">{_image(name, path, share)}step {int(path.stem):,}</button>' for path in picks
        )
        slider = f'<input type="range" min="0" max="{len(picks) - 1}" aria-label="{name} through training">'
        course = f'<div>{slider}<div class="strip">{buttons}</div></div>' if len(picks) > 1 else ""
        figures.append(
            f'<figure class="panel{" course" if course else ""}"><div class="top"><h3>{name}</h3>'
            f'<output class="soft">step {int(paths[-1].stem):,}</output></div>'
            f"{_image(name, paths[-1], 4 * share, large=True)}{course}"
            + (f"<figcaption>{about}</figcaption></figure>" if about else "</figure>")
        )
    return f'<div class="gallery">{"".join(figures)}</div>'


def _image(name: str, path: Path, limit: int, large: bool = False) -> str:
    source, width, height = embed_image(path, path.stat().st_mtime_ns, limit)
    size = f' class="large" width="{width}" height="{height}"' if large else ""
    return f'<img src="{source}" alt="{name} at step {int(path.stem):,}"{size}>'


def _speed(rows: Iterable[Mapping], charts: str) -> str:
    """Shows medians over the run, which pauses do not affect, then curves."""
    shown = {
        "steps_per_second": ("Steps a second", format_number),
        "examples_per_second": ("Examples a second", format_number),
        "flops_per_second": ("Arithmetic", lambda value: format_scaled(value, "FLOP/s") if value else "unknown"),
        "data_wait": ("Waiting for data", lambda value: f"{format_number(100 * value)} %"),
        "compile_seconds": ("Compiling", lambda value: f"{format_number(value)} s"),
    }
    speeds = [row for row in rows if row["split"] == "speed"]
    facts = []
    for name, (title, form) in shown.items():
        if values := [row[name] for row in speeds if math.isfinite(row.get(name, math.nan))]:
            facts.append(f'<div><dt>{title}</dt><dd class="figure">{form(statistics.median(values))}</dd></div>')
    return f'<dl class="facts">{"".join(facts)}</dl>{charts}' if facts else ""


def _parameters(rows: Sequence) -> str:
    if not rows:
        return ""
    lines = [
        f'<tr><td class="mono">{escape(path)}</td><td class="soft">{escape(shapes)}</td>'
        f'<td class="number">{count:,}</td></tr>'
        for path, shapes, count in rows
    ]
    total = sum(count for *_, count in rows)
    return (
        '<div class="panel scroll"><table><thead><tr><th>Module</th><th>Shapes</th><th class="number">Count</th></tr>'
        f'</thead><tbody>{"".join(lines)}<tr><td>Total</td><td></td><td class="number"><b>{total:,}</b></td></tr>'
        "</tbody></table></div>"
    )


def _commands(run: Mapping) -> str:
    if not run.get("command"):
        return ""
    checkout = f"git checkout {run['commit']}\n" if run.get("commit") else ""
    again = shlex.join(word for word in shlex.split(run["command"]) if not word.startswith("--workdir="))
    return (
        "<p>This command goes on from the last checkpoint, with more <code>--config.steps</code> beyond the end:</p>"
        f"<pre><code>{escape(run['command'])}</code></pre><p>This repeats the run from its first step:</p>"
        f"<pre><code>{escape(checkout + again)} --workdir=ANOTHER_FOLDER</code></pre>"
    )


def flatten(tree: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    """Returns nested keys, joined by dots after the prefix, with their values as text."""
    pairs = []
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and value
        pairs += flatten(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", _shown(value))]
    return pairs


def _shown(value: Any) -> str:
    match value:
        case {"op": op, **options}:  # a transform
            return f"{op}({', '.join(f'{name}={_shown(option)}' for name, option in options.items())})"
        case [_, *_]:
            return ", ".join(map(_shown, value))
    return "—" if value in (None, "", [], {}) else str(value)


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    lines = [f'<div><dt>{escape(name)}</dt><dd class="mono">{escape(value)}</dd></div>' for name, value in pairs]
    return f'<dl class="pairs">{"".join(lines)}</dl>' if lines else ""


def _measures(values: Mapping[str, float]) -> str:
    """Lists measures with their captions; those of single classes, after the slash, share that of their group."""
    lines = [
        f'<div><dt>{escape(name)}{caption(name) if "/" not in name else ""}</dt><dd class="mono">'
        f"{format_number(value, 4)}</dd></div>"
        for name, value in values.items()
    ]
    return f'<dl class="pairs measures">{"".join(lines)}</dl>' if lines else ""


def caption(name: str) -> str:
    """Returns what a measure shows, in small print; empty for names that are not known."""
    about = describe_measure(name)
    return f'<small class="soft">{escape(about)}</small>' if about else ""


def section(title: str, content: str) -> str:
    """Returns a section of a page, or nothing without content."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


if __name__ == "__main__":
    from cvjax.command import Parser, run_main

    def main() -> None:
        """Writes the page of the run given on the command line."""
        parser = Parser(prog="python -m cvjax.report", description="Rewrites report.html of a run.")
        parser.add_argument("run", help="the run's folder")
        print(write(parser.parse_args().run))

    run_main(main)
