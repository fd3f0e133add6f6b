"""Writes a run's networks for use elsewhere: weights as safetensors, programs that need only JAX, a folder for the hub.

python -m cvjax.export --run=runs/x --output=exported

NETWORK.safetensors  the weights of each network, named by their paths: params/conv1/kernel
predict.stablehlo    images in [0, 1] of the network's size to what `apply` gets, for any number of images
sample.stablehlo     a seed to --count samples, of systems that sample
export.json          shapes, classes, platforms, and where all this comes from

A program is loaded and called by three lines:

    import jax
    program = jax.export.deserialize(bytearray(open("exported/predict.stablehlo", "rb").read()))
    outputs = program.call(images)  # or, of sample.stablehlo: program.call(jax.numpy.uint32(seed))

Systems of classes also take labels, int32: export.json lists the inputs of each program. --label=NAME, which may be
given several times, writes predict_NAME.stablehlo in its place, for images of that label alone: of a CycleGAN, which
translates from A to B by default, --label=a_to_b --label=b_to_a writes both directions.

python -m cvjax.export --run=runs/x --hub=my-model --licence=apache-2.0

writes a folder to upload to the Hugging Face hub: model.safetensors, config.json, and README.md, the model card with
the run's figures and how to load it.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

import cvjax
from cvjax import command, runs
from cvjax.captions import describe_measure
from cvjax.core import Recipe, State, Variables, variables
from cvjax.display import doing
from cvjax.errors import UserError, number_of
from cvjax.predictor import classes_of
from cvjax.programs import overview
from cvjax.programs.apply import find_class
from cvjax.programs.outputs import Outputs
from cvjax.rundir import read_metrics, write_atomically
from cvjax.weights import hub
from cvjax.weights import networks as files

PLATFORMS = ("cpu", "cuda", "tpu")


def main(argv: Sequence[str] | None = None) -> None:
    """Exports a run."""
    parser = command.Parser(
        prog="python -m cvjax.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--output", type=Path, help="a folder for weights and programs")
    parser.add_argument("--hub", type=Path, help="a folder for the Hugging Face hub")
    parser.add_argument("--licence", "--license", help="licence of the weights on the hub, such as apache-2.0")
    parser.add_argument("--step", type=int, help="the checkpoint's step; by default the latest")
    parser.add_argument("--seed", type=command.seed, default=0, help="seed of what `predict` draws at random")
    parser.add_argument("--count", type=int, default=16, help="number of samples that sample.stablehlo draws")
    parser.add_argument("--label", action="append", help="the label of all images; several write several programs")
    parser.add_argument("--latest", action="store_true", help="the latest weights instead of their moving average")
    arguments = parser.parse_args(argv)
    if arguments.count < 1:
        raise UserError(f"--count={arguments.count}: must be at least 1.")
    if not (arguments.output or arguments.hub):
        raise UserError("where to? Give --output=FOLDER, --hub=FOLDER, or both.")
    if arguments.label and not arguments.output:
        raise UserError(f"--label={arguments.label[0]} is for programs: give --output=FOLDER.")
    if arguments.hub and not arguments.licence:
        raise UserError("--hub: under which licence? Give --licence=apache-2.0, cc-by-4.0, other or the like.")
    with doing(f"loading {arguments.run}"):
        description, recipe, state = runs.load(arguments.run.expanduser(), arguments.step)
    held = state.replace(average={}) if arguments.latest else state
    networks = {name: jax.device_get(variables(held, name)) for name in recipe.networks}
    folders = {"--output": arguments.output, "--hub": arguments.hub}
    for flag, folder in folders.items():
        if folder:
            runs.make_folder(folder.expanduser(), flag)
    if arguments.hub:
        card = make_card(arguments, description, state, networks)
        hub.save(arguments.hub.expanduser(), networks, describe_networks(description, int(state.step)), card)
    if arguments.output:
        write_programs(arguments, description, recipe, held, networks)
    for folder in filter(None, folders.values()):
        for path in sorted(folder.expanduser().glob("[!.]*")):
            print(f"{path}: {path.stat().st_size:,} bytes")


def write_programs(
    arguments: argparse.Namespace,
    description: Mapping[str, Any],
    recipe: Recipe,
    state: State,
    networks: Mapping[str, Variables],
) -> None:
    """Writes weights, programs and export.json to `--output`."""
    names = recipe.shown_classes or classes_of(description)
    labels = label_programs(arguments.label or (), description["config"]["system"], recipe, names)
    written = Outputs(arguments.output.expanduser())
    weights = {f"{name}.safetensors": held for name, held in networks.items()}
    written.check([*weights, *(f"{name}.stablehlo" for name in [*labels, "sample"]), "export.json"])
    for name, held in weights.items():
        files.save(written.claim(name), held)
    about = {
        "run": str(arguments.run),
        "step": int(state.step),
        "system": description["config"]["system"],
        "commit": description.get("commit", ""),
        "classes": names,
        "platforms": PLATFORMS,
        "networks": list(recipe.networks),
    }
    if recipe.predict is not None:
        shape = tuple(description["batch"]["image"][0][1:])
        for name, label in labels.items():
            with doing(f"compiling {name} for {', '.join(PLATFORMS)}"):
                program = export_predict(recipe, state, shape, arguments.seed, label)
            write_atomically(written.claim(f"{name}.stablehlo"), bytes(program.serialize()))
            about[name] = describe(program)
    if recipe.sample is not None:
        with doing(f"compiling sample for {', '.join(PLATFORMS)}"):
            program = export_sample(recipe, state, arguments.count)
        write_atomically(written.claim("sample.stablehlo"), bytes(program.serialize()))
        about["sample"] = describe(program)
    write_atomically(written.claim("export.json"), json.dumps(about, indent=1) + "\n")


def label_programs(
    given: Sequence[str], system: str, recipe: Recipe, names: Sequence[str]
) -> dict[str, Int[np.ndarray, ""] | None]:
    """Returns {name of a program: its label} of the flags `--label`; without them `predict` alone, with None.

    Raises a UserError for a system that takes no labels, a label that `names` lacks, or two that name one program.
    """
    if given and (recipe.predict is None or "label" not in recipe.predict_inputs):
        raise UserError(f"--label={given[0]}: {system} takes no labels beside images.")
    found = {}
    for text in given:
        label = find_class(text, names)
        program = f"predict_{re.sub('[^A-Za-z0-9_-]', '_', names[label])}"
        if found.get(program, label) != label:
            both = f"{names[found[program]]!r} and {names[label]!r}"
            raise UserError(f"--label={text}: {both} would both be {program}. Export them into two folders.")
        found[program] = label
    return found or {"predict": None}


def describe_networks(description: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Returns the part of a run's config.json that rebuilds its networks, and the step of their weights.

    Paths on this machine, such as a folder of images, stay here.
    """
    kept = {
        key: description["config"][key] for key in ("system", "recipe", "precision") if key in description["config"]
    }
    facts = {key: description[key] for key in ("networks", "batch", "seed", "commit", "versions") if key in description}
    return {"config": kept, **facts, "step": step}


def make_card(
    arguments: argparse.Namespace, description: Mapping[str, Any], state: State, networks: Mapping[str, Variables]
) -> hub.Card:
    """Makes the model card of a run, with the figures over all classes of its evaluation at the checkpoint's step.

    The figures of a run with moving averages are those of the averages, so with `--latest` there are none.
    """
    config, step = description["config"], int(state.step)
    figures: dict[str, float] = {}
    for row in () if arguments.latest and state.average else read_metrics(arguments.run.expanduser()):
        if row["split"] == "eval" and row["step"] == step:
            figures |= {name: value for name, value in row.items() if name not in ("step", "split") and "/" not in name}
    data, classes = config.get("data", {}), classes_of(description)
    height, width, channels = description["batch"]["image"][0][1:]
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(held.get("params", {}))) for name, held in networks.items()
    }
    facts = {
        "system": f"`{config['system']}`",
        "networks": ", ".join(f"`{name}` ({number_of(size, 'parameter')})" for name, size in sizes.items()),
        "images": f"{height} x {width}, channels: {channels}, in [0, 1]",
        "classes": ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else ""),
        "data": data.get("name") or "a folder of images",
        "splits": f"trained on {data.get('train_split')}, evaluated on {data.get('eval_split')}",
        "training": f"{number_of(step, 'step')}, seed {description.get('seed', 0)}",
        "commit": description.get("commit", ""),
        "written by": f"cvjax {cvjax.__version__}",
    }
    return hub.Card(
        title=arguments.hub.absolute().name,
        licence=arguments.licence,
        description=overview.title_of(config["system"]),
        tags=["jax", "flax", "computer-vision", *config["system"].split(".")],
        facts={name: text for name, text in facts.items() if text},
        figures=[(name, value, describe_measure(name)) for name, value in figures.items()],
    )


def export_predict(
    recipe: Recipe, state: State, shape: tuple[int, ...], seed: int, label: Int[np.ndarray, ""] | None = None
) -> jax.export.Exported:
    """Exports `predict` with its weights: images [batch, height, width, channels] -> {name: array}, one row per image.

    It is exported for one image and vectorised, because a system may read the number of images, which is unknown here.
    `label` is that of all images; without it, systems that cannot do without a class take labels [batch] as well. The
    random keys are the same in every call.
    Raises a UserError for systems that cannot do without a picture of a style.
    """
    if "style" in recipe.predict_inputs:
        raise UserError("predict takes pictures of styles beside the images, so it cannot be exported; apply paints.")

    def predict_one(number, image, *labels):
        told = labels[0] if labels else label
        inputs = {"image": image[None]} | ({} if told is None else {"label": told[None]})
        key = jax.random.fold_in(jax.random.key(seed), number)
        return {name: values[0] for name, values in recipe.predict(state, inputs, key).items()}

    def predict(images, *labels):
        return jax.vmap(predict_one)(jnp.arange(images.shape[0]), images, *labels)

    (batch,) = jax.export.symbolic_shape("batch", constraints=("batch >= 1",))
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    exported = jax.export.export(jax.jit(predict), platforms=PLATFORMS)
    try:
        return exported(images)
    except UserError:
        if "label" not in recipe.predict_inputs:
            raise
        return exported(images, jax.ShapeDtypeStruct((batch,), jnp.int32))


def export_sample(recipe: Recipe, state: State, count: int) -> jax.export.Exported:
    """Exports `sample` with its weights: a seed, uint32 -> {name: images}, `count` rows.

    Systems that sample by class take labels [count] too.
    """

    def sample(seed, *labels):
        further = {"label": labels[0]} if labels else {}
        return recipe.sample(state, jax.random.key(seed), {"count": count, **further})

    labels = [jax.ShapeDtypeStruct((count,), jnp.int32)] if "label" in recipe.sample_inputs else []
    return jax.export.export(jax.jit(sample), platforms=PLATFORMS)(jax.ShapeDtypeStruct((), jnp.uint32), *labels)


def describe(program: jax.export.Exported) -> dict[str, Any]:
    """Returns the shapes and dtypes of a program's inputs and outputs; "batch" is any number."""

    def of(leaf: Any) -> list:
        return [[side if isinstance(side, int) else str(side) for side in leaf.shape], str(leaf.dtype)]

    outputs: Mapping = jax.tree.unflatten(program.out_tree, list(map(of, program.out_avals)))
    return {"inputs": list(map(of, program.in_avals)), "outputs": outputs}


if __name__ == "__main__":
    command.run_main(main)
