"""Weights of Inception v3 from a file of the user's, with the names and the layout of torch.

The graph that FID is defined by is published as `pt_inception-2015-12-05-6726825d.pth` (a state dict, 95 MB), and
torchvision's network as `inception_v3_google-0cc3c7bd.pth`. Nothing is downloaded here.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Shaped

from cvjax.errors import UserError, suggest
from cvjax.nets.inception import CLASSES, InceptionV3
from cvjax.weights.files import read_tensors

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

Variables = dict[str, dict[str, dict]]


def load(path: str | Path, variant: str = "fid") -> Variables:
    """Reads the network's weights from a `.pth` or `.safetensors` file.

    Args:
      path: the file.
      variant: as in `cvjax.nets.inception.InceptionV3`.

    Returns:
      The variables, for `InceptionV3(variant).apply(variables, images)`.

    Raises:
      UserError: it cannot be read, or does not hold these weights.
    """
    tensors = read_tensors(path)
    try:
        return convert(tensors, variant)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def convert(tensors: Mapping[str, Shaped[np.ndarray, "..."]], variant: str = "fid") -> Variables:
    """Returns a state dict of torch as the float32 variables of `InceptionV3`.

    Each tensor is used once. Counters of batches and torchvision's auxiliary logits are ignored.

    Raises:
      UserError: an unknown variant, or tensors that are missing, of other shapes or not of this network.
    """
    if variant not in CLASSES:
        raise UserError(f"Inception v3 has no variant {variant!r}. {suggest(variant, CLASSES)}")
    wanted = _shapes(variant)
    names = {path: ".".join([*path[1:-1], LEAVES[path[-1]]]) for path in wanted}
    auxiliary = ("AuxLogits.",) if variant == "torchvision" else ()
    extra = [name for name in set(tensors) - set(names.values()) if not name.endswith(".num_batches_tracked")]
    wrong = {
        "missing": set(names.values()) - set(tensors),
        "not of this network": [name for name in extra if not name.startswith(auxiliary)],
    }
    for kind, found in wrong.items():
        if found:
            some = ", ".join(sorted(found)[:3]) + (", ..." if len(found) > 3 else "")
            raise UserError(f"{len(found)} tensors of Inception v3 ({variant}) are {kind}: {some}.")
    return flax.traverse_util.unflatten_dict(
        {path: _lay_out(names[path], tensors[names[path]], shape) for path, shape in wanted.items()}
    )


@functools.cache
def _shapes(variant: str) -> dict[tuple[str, ...], tuple[int, ...]]:
    image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    variables = jax.eval_shape(InceptionV3(variant).init, jax.random.key(0), image)
    return {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(variables).items()}


def _lay_out(name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """A tensor with its axes in our order: kernels are [height, width, in, out], matrices [in, out]."""
    value = tensor.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim))
    if value.shape != shape or not jnp.issubdtype(value.dtype, jnp.floating):
        order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(shape), (0,))
        expected = [shape[axis] for axis in order]
        other = {f"fc.{kind}": v for kind in ("weight", "bias") for v in CLASSES if tensor.shape[:1] == (CLASSES[v],)}
        hint = f": the file is of the variant {other[name]!r}" if name in other else ""
        raise UserError(f"{name} is {list(tensor.shape)} of {tensor.dtype}, not {expected} of floats{hint}.")
    return np.ascontiguousarray(value, np.float32)
