"""Trains configs from scratch and records their figures in RESULTS.jsonl and on the page RESULTS.md.

python -m cvjax.results [CONFIG ...] --seed=7 --seed=8 --seed=9 [--precision=bfloat16]
"""

import datetime
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cvjax import command, compiled, config, judging, rundir, runs
from cvjax.data import builders
from cvjax.errors import UserError
from cvjax.fit import fit
from cvjax.programs import provenance, results_page
from cvjax.weights import packages


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if a figure misses its bar."""
    parser = command.Parser(prog="python -m cvjax.results", description=__doc__)
    parser.add_argument("configs", nargs="*", help="config files; by default all whose data and weights are installed")
    parser.add_argument(
        "--seed", type=command.seed, action="append", help="replaces the configs' seed; may be repeated"
    )
    parser.add_argument("--precision", choices=config.PRECISIONS, help="replaces the configs' precision")
    parser.add_argument(
        "--workdir", type=Path, default=Path("runs/results"), help="folder for runs; existing runs are replaced"
    )
    parser.add_argument("--output", type=Path, default=Path("RESULTS.md"), help="the page; the runs go to its .jsonl")
    parser.add_argument("--page-only", action="store_true", help="write the page again without training")
    arguments = parser.parse_args(argv)
    store, seeds = arguments.output.with_suffix(".jsonl"), arguments.seed or [0]
    if arguments.page_only:
        results_page.write(arguments.output, read_rows(store))
        return 0
    paths = list(map(config.find_file, arguments.configs)) or without_absent(embedded_configs())
    for path in paths:  # reports mistakes in any config before training
        config.check(config.load(path))
    met = True
    for path in paths:
        for seed in seeds:
            met &= measure(path, seed, arguments.workdir, store, arguments.precision)
            results_page.write(arguments.output, read_rows(store))
        precision = arguments.precision or config.load(path).precision
        print(*results_page.suggest_bars(path, read_rows(store), precision), sep="\n")
    return 0 if met else 1


def measure(path: str, seed: int, folder: Path, store: Path, precision: str | None = None) -> bool:
    """Trains a config from scratch, with another seed, and adds its row to the store; `folder` is for runs.

    `path` is the config file, with its variant; `precision` replaces that of the config, not of what it borrows.
    Returns whether every bar that holds for the config is met.
    """
    experiment = config.load(path)
    experiment.seed = seed
    experiment.precision = precision or experiment.precision
    train_sources(experiment, folder)
    workdir = folder / f"{command.name_of(path)}-seed{seed}{f'-{precision}' if precision else ''}"
    if workdir.is_dir():
        with rundir.hold(workdir):  # not while another process trains there
            shutil.rmtree(workdir, ignore_errors=True)
    commit, begun = provenance.present_commit(), time.monotonic()
    figures = fit(experiment, workdir)
    row = make_row(path, experiment, figures, workdir, (time.monotonic() - begun) / 60) | {"commit": commit}
    controls = (runs.load(workdir)[1].controls or dict)()
    if experiment.judge:
        controls |= judging.make_judge(experiment).controls()
    add_row(store, row | {"controls": controls})
    bars = {} if config.changed_settings(experiment) else config.as_dict(experiment)["expect"]
    return all(good for *_, good in rundir.check_bars(bars, figures))


def train_sources(experiment: ConfigDict, folder: Path) -> None:
    """Trains the runs that an experiment borrows from or is judged by, unless they are finished, and points to them.

    They get its seed and are in `folder`; `find_config` says of which config.
    """
    for key, source in sources(experiment).items():
        path = find_config(source)
        if not path:
            continue
        _, run, network = source.split("/", 2)
        workdir = folder / f"{run}-seed{experiment.seed}"
        needed = config.load(path)
        needed.seed = experiment.seed
        train_sources(needed, folder)
        fit(needed, workdir)
        experiment.update_from_flattened_dict({key: f"{workdir}/{network}"})


def sources(experiment: ConfigDict) -> dict[str, str]:
    """Returns the sources of an experiment's networks by the key of the config that names them, and its judge."""
    return {f"borrow.{name}": source for name, source in experiment.borrow.items()} | {"judge": experiment.judge}


def find_config(source: str) -> str:
    """Returns the config, with its variant, of "runs/NAME/NETWORK" or "runs/NAME-VARIANT/NETWORK"; "" of others."""
    run, separator, _ = source.partition("/")[2].partition("/")
    stem, _, variant = run.partition("-")
    file = Path("configs") / f"{stem}.py"
    if not (source.startswith("runs/") and separator and file.is_file()):
        return ""
    return f"{file}:{variant}" if variant else str(file)


def without_absent(paths: Sequence[str]) -> list[str]:
    """Returns the configs whose packages of weights are installed; prints a line for each of the others."""
    faults = {path: find_absent(path) for path in paths}
    for path, fault in faults.items():
        if fault:
            print(f"left out: {path}: {fault}")
    return [path for path in paths if not faults[path]]


def find_absent(path: str) -> str:
    """Returns what is said of a package that a config, or one whose run it needs, takes weights of; "" without any."""
    for source in sources(config.load(path)).values():
        if source.startswith(packages.PREFIX):
            try:
                packages.locate(source)
            except UserError as error:
                return str(error)
        elif fault := find_config(source) and find_absent(find_config(source)):
            return fault
    return ""


def embedded_configs() -> list[str]:
    """Returns the configs whose data ships with cvjax's dependencies, which run on any machine."""
    paths = sorted(Path("configs").glob("*.py"))
    return [str(path) for path in paths if (config.load(str(path)).data.name or "").split("/")[0] in builders.EMBEDDED]


def make_row(
    path: str, experiment: ConfigDict, figures: Mapping[str, float], workdir: Path, minutes: float
) -> dict[str, Any]:
    """Returns the row of a finished run, without figures that are not finite.

    `path` is the config file with its variant; `minutes` include compilation and evaluation.
    """
    facts, devices = rundir.read_config(workdir), rundir.read_config(workdir)["devices"]
    cores = compiled.cores()
    return {
        "config": path,
        "seed": experiment.seed,
        "precision": experiment.precision,
        "system": experiment.system,
        "data": experiment.data.name or experiment.data.folder,
        "parameters": sum(count for _, _, count in facts["parameters"]),
        "steps": experiment.steps,
        "minutes": round(minutes, 1),
        "device": f"{len(devices)} x {devices[0]}" + (f", {cores} core{'s' * (cores > 1)}" if "cpu" in devices else ""),
        "date": datetime.date.today().isoformat(),
        "settings": config.bar_settings(experiment),
        "figures": {name: float(value) for name, value in figures.items() if math.isfinite(value)},
    }


def read_rows(store: Path) -> list[dict[str, Any]]:
    """Reads the rows of a store, one JSON object per line; none if there is no file."""
    return [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()] if store.exists() else []


def add_row(store: Path, row: Mapping[str, Any]) -> None:
    """Adds a row in place of that of the same config, precision and seed; only the newest of a config keeps controls.

    The store is created if necessary.
    """
    rows = {(*results_page.group_of(old), old["seed"]): old for old in read_rows(store)}
    for old in rows.values():
        if results_page.group_of(old) == results_page.group_of(row):
            old.pop("controls", None)
    rows[*results_page.group_of(row), row["seed"]] = dict(row)
    rundir.write_atomically(store, "".join(f"{json.dumps(rows[key], ensure_ascii=False)}\n" for key in sorted(rows)))


if __name__ == "__main__":
    command.run_main(main)
