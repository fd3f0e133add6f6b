"""Writes a run's networks for use without cvjax: weights as safetensors, and programs that need only JAX.

python -m cvjax.export --run=runs/x --output=exported

NETWORK.safetensors  the weights of each network, named by their paths: params/conv1/kernel
predict.stablehlo    images in [0, 1] of the network's size to what `apply` gets, for any number of images
sample.stablehlo     a seed to --count samples, of systems that sample
export.json          shapes, classes, platforms, and where all this comes from

A program is loaded and called by three lines:

    import jax
    program = jax.export.deserialize(bytearray(open("exported/predict.stablehlo", "rb").read()))
    outputs = program.call(images)  # or, of sample.stablehlo: program.call(jax.numpy.uint32(seed))

Systems of classes also take labels, int32: export.json lists the inputs of each program.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from cvjax import command, runs
from cvjax.core import Recipe, State, variables
from cvjax.errors import UserError
from cvjax.predictor import classes_of
from cvjax.rundir import write_atomically
from cvjax.weights import networks

PLATFORMS = ("cpu", "cuda", "tpu")


def main(argv: Sequence[str] | None = None) -> None:
    """Exports a run."""
    parser = command.Parser(
        prog="python -m cvjax.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--step", type=int, help="the checkpoint's step; by default the latest")
    parser.add_argument("--seed", type=command.seed, default=0, help="seed of what `predict` draws at random")
    parser.add_argument("--count", type=int, default=16, help="number of samples that sample.stablehlo draws")
    parser.add_argument("--latest", action="store_true", help="the latest weights instead of their moving average")
    arguments = parser.parse_args(argv)
    if arguments.count < 1:
        raise UserError(f"--count={arguments.count}: must be at least 1.")
    description, recipe, state = runs.load(arguments.run.expanduser(), arguments.step)
    state = state.replace(average={}) if arguments.latest else state
    output = arguments.output.expanduser()
    runs.make_folder(output, "--output")
    for name in recipe.networks:
        networks.save(output / f"{name}.safetensors", jax.device_get(variables(state, name)))
    about = {
        "run": str(arguments.run),
        "step": int(state.step),
        "system": description["config"]["system"],
        "commit": description.get("commit", ""),
        "classes": classes_of(description),
        "platforms": PLATFORMS,
        "networks": list(recipe.networks),
    }
    if recipe.predict is not None:
        shape = tuple(description["batch"]["image"][0][1:])
        program = export_predict(recipe, state, shape, arguments.seed)
        write_atomically(output / "predict.stablehlo", bytes(program.serialize()))
        about["predict"] = describe(program)
    if recipe.sample is not None:
        program = export_sample(recipe, state, arguments.count)
        write_atomically(output / "sample.stablehlo", bytes(program.serialize()))
        about["sample"] = describe(program)
    write_atomically(output / "export.json", json.dumps(about, indent=1) + "\n")
    for path in sorted(output.iterdir()):
        print(f"{path}: {path.stat().st_size:,} bytes")


def export_predict(recipe: Recipe, state: State, shape: tuple[int, ...], seed: int) -> jax.export.Exported:
    """Exports `predict` with its weights, for batches of any size.

    It is exported for one image and vectorised, because a system may read the number of images, which is unknown here.

    Args:
      recipe, state: the system and its trained state.
      shape: height, width, channels of the network's images.
      seed: seed of the random keys, the same in every call.

    Returns:
      The program: images [batch, height, width, channels] -> {name: array}, one row per image. Systems that cannot do
      without a class take labels [batch] as well.
    """

    def predict_one(number, image, *labels):
        inputs = {"image": image[None]} | ({"label": labels[0][None]} if labels else {})
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
    """Exports `sample` with its weights.

    Args:
      recipe, state: the system and its trained state.
      count: number of samples.

    Returns:
      The program: a seed, uint32 -> {name: images}, `count` rows. Systems that sample by class take labels [count] too.
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
