"""Trains experiments from scratch and records their figures in RESULTS.md.

python -m cvjax.results [CONFIG ...] --seed=N
"""

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from cvjax import command, config, display, judging, rundir, runs
from cvjax.data import builders
from cvjax.errors import UserError
from cvjax.fit import fit

HEADER = """# Results

Written by `python -m cvjax.results [CONFIG ...] --seed=N`, which trains each experiment from scratch and holds what it
reached against the bar that its config declares. No row is typed.
"""
COLUMNS = ("config", "seed", "system", "data", "parameters", "steps", "minutes", "device", "figure and bar", "met")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if a figure misses its bar."""
    parser = command.Parser(prog="python -m cvjax.results", description=__doc__)
    parser.add_argument("configs", nargs="*", help="config files; by default all whose data ships with cvjax")
    parser.add_argument("--seed", type=int, default=0, help="replaces the configs' seed")
    parser.add_argument(
        "--workdir", type=Path, default=Path("runs/results"), help="folder for runs; existing runs are replaced"
    )
    parser.add_argument("--output", type=Path, default=Path("RESULTS.md"))
    arguments = parser.parse_args(argv)
    if arguments.seed < 0:
        raise UserError(f"--seed={arguments.seed}: must not be negative.")
    experiments = {path: config.load(path) for path in arguments.configs or embedded_configs()}
    for experiment in experiments.values():  # reports mistakes in any config before training
        experiment.seed = arguments.seed
        config.check(experiment)
    met = True
    for path, experiment in experiments.items():
        name = command.name_of(path)
        workdir = arguments.workdir / f"{name}-seed{arguments.seed}"
        train_sources(experiment, arguments.workdir)
        shutil.rmtree(workdir, ignore_errors=True)
        begun = time.monotonic()
        figures = fit(experiment, workdir)
        row = make_row(name, experiment, figures, workdir, (time.monotonic() - begun) / 60)
        controls = runs.load(workdir)[1].controls or dict
        judged = judging.make_judge(experiment.judge).controls if experiment.judge else dict
        write_results(arguments.output, row, controls() | judged(), figures)
        met &= row["met"] == "yes"
    return 0 if met else 1


def train_sources(experiment: ConfigDict, folder: Path) -> None:
    """Trains the runs that an experiment borrows from, unless they are finished, and points `config.borrow` to them.

    Args:
      experiment: the config, whose seed they get; a source "runs/NAME/NETWORK" is the run of configs/NAME.py.
      folder: the folder for runs.
    """
    for name, source in experiment.borrow.items():
        run, separator, network = source.partition("/")[2].partition("/")
        file = Path("configs") / f"{run}.py"
        if not (source.startswith("runs/") and separator and file.is_file()):
            continue
        workdir = folder / f"{run}-seed{experiment.seed}"
        needed = config.load(str(file))
        needed.seed = experiment.seed
        train_sources(needed, folder)
        fit(needed, workdir)
        experiment.borrow[name] = f"{workdir}/{network}"


def embedded_configs() -> list[str]:
    """Returns the configs whose data ships with cvjax's dependencies, which run on any machine."""
    paths = sorted(Path("configs").glob("*.py"))
    return [str(path) for path in paths if (config.load(str(path)).data.name or "").split("/")[0] in builders.EMBEDDED]


def make_row(
    name: str, experiment: ConfigDict, figures: Mapping[str, float], workdir: Path, minutes: float
) -> dict[str, str]:
    """Makes the table row of a finished run.

    Args:
      name: the config's name.
      experiment: the config.
      figures: figures of the final evaluation.
      workdir: the run's folder.
      minutes: the run's duration, including compilation and evaluation.

    Returns:
      The cells by column.
    """
    facts = rundir.read_config(workdir)
    verdict = rundir.check_bars(config.as_dict(experiment)["expect"], figures)
    cells = [
        f"{figure} {display.format_number(value)} {relation} {bar:g}" for figure, value, relation, bar, _ in verdict
    ]
    devices = facts["devices"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "config": name,
        "seed": str(experiment.seed),
        "system": experiment.system,
        "data": experiment.data.name or experiment.data.folder,
        "parameters": f"{sum(count for _, _, count in facts['parameters']):,}",
        "steps": f"{experiment.steps:,}",
        "minutes": f"{minutes:.1f}",
        "device": f"{len(devices)} x {devices[0]}" + (f", {cores} core{'s' * (cores > 1)}" if "cpu" in devices else ""),
        "figure and bar": "<br>".join(cells),
        "met": "yes" if verdict and all(met for *_, met in verdict) else "NO",
    }


def write_results(
    path: Path, row: Mapping[str, str], controls: Mapping[str, Mapping[str, float]], figures: Mapping[str, float]
) -> None:
    """Replaces one row of RESULTS.md, and the table of the system's controls.

    Args:
      path: the file; created if necessary.
      row: the row; it replaces that of the same config and seed.
      controls: {baseline: {figure: value}}, may be empty.
      figures: the system's own figures, for the controls' table.
    """
    text = path.read_text() if path.exists() else HEADER
    rows = {(old["config"], old["seed"]): old for old in _read_table(text)}
    rows[row["config"], row["seed"]] = dict(row)
    ordered = [rows[key] for key in sorted(rows, key=lambda key: (key[0], int(key[1])))]
    text = _replace(text, "results", _table(COLUMNS, [[entry[c] for c in COLUMNS] for entry in ordered]))
    if controls:
        names = sorted({name for scores in controls.values() for name in scores} & figures.keys())
        lines = {f"**{row['config']}** (seed {row['seed']})": figures, **controls}
        body = [
            [title, *(display.format_number(scores[n]) if n in scores else "" for n in names)]
            for title, scores in lines.items()
        ]
        text = _replace_controls(text, row["config"], _table(["", *names], body).splitlines())
    rundir.write_atomically(path, text)


def _replace_controls(text: str, name: str, table: Sequence[str]) -> str:
    """Updates a system's line in the table of its controls, which systems with the same controls share."""
    head, rule, own, *competitors = table
    shared = []

    def renew(match: re.Match) -> str:
        old_head, old_rule, *lines = [line for line in match[1].splitlines() if line.startswith("|")]
        systems = {line.split("**")[1]: line for line in lines if line.startswith("| **")}
        others = [line for line in lines if not line.startswith("| **")]
        systems.pop(name, None)
        if (old_head, others) == (head, competitors):
            shared.append(name)
            systems[name] = own
        return _controls([old_head, old_rule], systems, others) if systems else ""

    text = re.sub(r"<!-- controls -->\n(.*?)<!-- /controls -->\n*", renew, text, flags=re.DOTALL)
    if not shared:
        text = f"{text.rstrip()}\n\n{_controls([head, rule], {name: own}, competitors)}"
    return f"{text.rstrip()}\n"


def _controls(head: Sequence[str], systems: Mapping[str, str], competitors: Sequence[str]) -> str:
    names = sorted(systems)
    title = [f"## Controls of {', '.join(names)}", "", "What simple or broken competitors score by the same code.", ""]
    lines = ["<!-- controls -->", *title, *head, *(systems[name] for name in names), *competitors, "<!-- /controls -->"]
    return "\n".join([*lines, "", ""])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _read_table(text: str) -> list[dict[str, str]]:
    section = re.search(r"<!-- results -->\n(.*?)\n<!-- /results -->", text, flags=re.DOTALL)
    lines = section.group(1).splitlines()[2:] if section else []
    return [dict(zip(COLUMNS, [cell.strip() for cell in line.strip("|").split("|")], strict=True)) for line in lines]


def _replace(text: str, name: str, body: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    block = f"{begin}\n{body}\n{end}"
    if begin not in text:
        return f"{text.rstrip()}\n\n{block}\n"
    head, rest = text.split(begin, 1)
    return head + block + rest.split(end, 1)[1]


if __name__ == "__main__":
    command.run_main(main)
