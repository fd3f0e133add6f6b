"""Evaluates a trained run, on its own evaluation split or on other data of the same classes.

python -m cvjax.evaluate --run=runs/x                      on the split of its config
python -m cvjax.evaluate --run=runs/x --split=train        on another split
python -m cvjax.evaluate --run=runs/x --folder=pictures    on a folder of images, all of them unless it has splits

Masks and further images lie about that folder as they lay about the run's.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from cvjax import command, data, judging, runs, sharding
from cvjax import config as experiments
from cvjax.compiled import jit_eval_step
from cvjax.data import layouts, vocabulary
from cvjax.data.annotations import Annotations
from cvjax.data.splits import SPLIT_NAMES
from cvjax.display import doing, format_columns, format_number
from cvjax.errors import UserError, number_of
from cvjax.fit import evaluate
from cvjax.predictor import classes_of
from cvjax.rundir import write_atomically


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the figures of a run, and writes them to a file if asked."""
    parser = command.Parser(
        prog="python -m cvjax.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--split", help="the split; by default data.eval_split of the run")
    parser.add_argument("--name", help="another dataset")
    parser.add_argument("--folder", help="a folder of images, as data.folder")
    parser.add_argument("--masks", help="its masks; by default where they lay about the run's folder")
    parser.add_argument("--step", type=int, help="the checkpoint's step; by default the latest")
    parser.add_argument("--batch", type=int, help="batch size; by default that of the run")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args(argv)
    if arguments.name and arguments.folder:
        raise UserError("give either --name=DATASET or --folder=PATH.")
    if arguments.masks and not arguments.folder:
        raise UserError("--masks is for --folder=PATH.")
    run = arguments.run.expanduser()
    with doing(f"loading {run}"):
        description, recipe, state = runs.load(run, arguments.step)
    settings = choose_data(description, arguments)
    config = ConfigDict({**experiments.DEFAULTS, **description["config"], "data": settings})
    where = settings["name"] or settings["folder"]
    with doing(f"opening {where}"):
        examples = data.load(settings, seed=config.seed, vocabulary=vocabulary.read(run))
    mesh = sharding.make_mesh({"data": 1}, jax.local_devices()[:1])
    with doing("compiling and evaluating"):
        figures = evaluate(recipe, jit_eval_step(recipe, config.seed), state, examples, mesh)
    if config.judge:
        judge = judging.make_judge(config, training=data.complete(description["config"]["data"]))
        with doing(f"drawing {number_of(config.judge_samples, 'sample')} and judging them"):
            figures |= judging.judge_samples(judge, recipe, state, examples, mesh, config)
    print(f"{run} at step {int(state.step):,} on {where}, {settings['eval_split']}:")
    print(format_columns([(name, format_number(value, 4)) for name, value in figures.items()], align="<>"))
    if arguments.output:
        write_atomically(arguments.output.expanduser(), json.dumps(figures, indent=1) + "\n")


def choose_data(description: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the complete `config.data` of a run, whose config.json is `description`, with the data to evaluate on.

    Raises a UserError if their classes are not those of the run.
    """
    settings = data.complete(description["config"]["data"])
    if arguments.split:
        settings["eval_split"] = arguments.split
    if arguments.folder:
        masks = arguments.masks and os.path.expanduser(arguments.masks)
        settings |= move_folders(settings, arguments.folder, masks)
        there, split = layouts.named_splits(arguments.folder, Annotations.of(settings)), settings["eval_split"]
        if not arguments.split and not there:
            settings |= {"eval_split": "test", "held_out": 1.0}  # all images
        elif not arguments.split and "test" in there and not {split, SPLIT_NAMES.get(split)} & {*there}:
            settings["eval_split"] = "test"
    if arguments.name or arguments.folder:  # which may lack the split of training
        settings |= {"name": arguments.name, "folder": arguments.folder, "train_split": settings["eval_split"]}
    if arguments.batch:
        settings["eval_batch"] = arguments.batch
    found, trained = data.check(settings), classes_of(description)
    numbers = tuple(map(str, range(len(trained))))  # the run knows only how many
    if found and trained and (len(found) != len(trained) or (found != trained and trained != numbers)):
        raise UserError(
            f"{settings['name'] or settings['folder']} has the classes {', '.join(found)}; the run was trained on "
            f"{', '.join(trained)}."
        )
    return settings


def move_folders(settings: Mapping[str, Any], folder: str, masks: str | None = None) -> dict[str, Any]:
    """Returns `images` and `class_maps` of a run's data for a folder that takes the place of the run's.

    They lie about it as they lay about the run's folder, but `masks` where it is given. Raises a UserError if they are
    not there.
    """
    moved = {"images": dict(settings["images"]), "class_maps": dict(settings["class_maps"])}
    for key, entries in moved.items():
        for feature, entry in entries.items():
            given = entry if isinstance(entry, Mapping) else {"source": entry}
            source, there = given["source"], masks if key == "class_maps" else None
            if key == "images" and source in (layouts.COPY, *layouts.SIDES):
                continue
            if there is None and settings["folder"]:
                old, old_root = (os.path.expanduser(path) for path in (source, settings["folder"]))
                there = os.path.normpath(os.path.join(os.path.expanduser(folder), os.path.relpath(old, old_root)))
            if there is None or not os.path.exists(there):
                where = f"the like of which would be {there}" if there else "and a folder has no such feature"
                advice = " Give --masks=FOLDER." if key == "class_maps" else ""
                raise UserError(f"--folder={folder}: the run reads {feature!r} from {source!r}, {where}.{advice}")
            entries[feature] = there if entry is source else {**given, "source": there}
    return moved


if __name__ == "__main__":
    command.run_main(main)
