"""How published files name and lay out a network's arrays, and the check that a file holds exactly these.

A network's arrays are named by their paths in its variables, such as ("params", "stem", "kernel"). A layout says what
a file calls each of them. `convert` lists all that is missing, left over or of another shape in one message.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import flax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from cvjax.core import Variables
from cvjax.errors import UserError

ArrayPath = tuple[str, ...]
Shape = tuple[int, ...]
Tensors = Mapping[str, Shaped[np.ndarray, "..."]]

TORCH = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
SHOWN = 4  # names of each kind in a message


@dataclasses.dataclass(frozen=True)
class Layout:
    """A published layout.

    Attributes:
      owner: whose it is, for messages.
      name: paths of all arrays of a network -> {path: name in the file}, None for a path that no such file has.
      shape: path and shape of an array -> the shapes that it may have in a file.
      arrange: a tensor of such a shape and the array's shape -> the array.
      parts: beginnings of names that a file may have left over as a whole, such as those of a classifier.
      ignored: ends of names that are never used.
      floats: whether all tensors are floats, to become float32; if not, they keep their types.
    """

    owner: str
    name: Callable[[Iterable[ArrayPath]], dict[ArrayPath, str | None]]
    shape: Callable[[ArrayPath, Shape], list[Shape]]
    arrange: Callable[[np.ndarray, ArrayPath, Shape], np.ndarray]
    parts: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    floats: bool = True


def convert(tensors: Tensors, wanted: Mapping[ArrayPath, Shape], layout: Layout, held: str = "") -> Variables:
    """Returns the tensors of a file as a network's variables, each of them used once.

    Args:
      wanted: shapes of the network's arrays by path.
      held: name of the network that the file holds, for the message.

    Raises:
      UserError: tensors that are missing, left over, or of another shape or type; it names some of each.
    """
    names = layout.name(wanted)
    needed = {name for name in names.values() if name is not None}
    allowed = tuple(part for part in layout.parts if not any(name.startswith(part) for name in needed))
    shapes = {names[path]: layout.shape(path, shape) for path, shape in wanted.items()}
    extra = tensors.keys() - needed
    problems = {
        "missing": needed - tensors.keys(),
        "left over": {n for n in extra if not n.endswith(layout.ignored) and not n.startswith(allowed)},
        "of another shape or type": {
            _difference(name, tensors[name], shapes[name])
            for name in needed & tensors.keys()
            if not _fits(tensors[name], shapes[name], layout.floats)
        },
        "of the network not in such files": {"/".join(path) for path, name in names.items() if name is None},
    }
    if any(problems.values()):
        found = [f"{len(some)} {kind}: {_some(sorted(some))}" for kind, some in problems.items() if some]
        raise UserError(f"{'; '.join(found)}. The file was taken for {layout.owner}{held and f': {held}'}.")
    dtype = np.float32 if layout.floats else None
    arrays = {
        path: np.asarray(layout.arrange(tensors[names[path]], path, shape), dtype, order="C")
        for path, shape in wanted.items()
    }
    return flax.traverse_util.unflatten_dict(arrays)


def _fits(tensor: np.ndarray, shapes: list[Shape], floats: bool) -> bool:
    return tensor.shape in shapes and (not floats or bool(jnp.issubdtype(tensor.dtype, jnp.floating)))


def _difference(name: str, tensor: np.ndarray, shapes: list[Shape]) -> str:
    return f"{name} is {list(tensor.shape)} of {tensor.dtype}, not {' or '.join(str([*shape]) for shape in shapes)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


# --- the axes of torch and of Keras -------------------------------------------------------------------------------


def torch_shapes(path: ArrayPath, shape: Shape) -> list[Shape]:
    """Returns the shapes that torch has for an array of ours, a kernel [height, width, in, out] or a matrix [in, out].

    They are [out, in, height, width] (or, of a layer that sees its whole input, [out, in * height * width]); [out, in].
    """
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return [(outputs, inputs, height, width), (outputs, inputs * height * width)]
    return [shape[::-1]]


def from_torch(tensor: Shaped[np.ndarray, "..."], path: ArrayPath, shape: Shape) -> Shaped[np.ndarray, "..."]:
    """Returns a tensor of one of `torch_shapes` with its axes in our order."""
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return tensor.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
    return tensor.T


def keras_shapes(path: ArrayPath, shape: Shape) -> list[Shape]:
    """Returns the shapes that Keras has for an array of ours: a depthwise kernel is [height, width, channels, 1]."""
    return [(*shape[:2], shape[3], shape[2])] if _is_depthwise(path) else [shape]


def from_keras(tensor: Shaped[np.ndarray, "..."], path: ArrayPath, shape: Shape) -> Shaped[np.ndarray, "..."]:
    """Returns a tensor of one of `keras_shapes` with its axes in our order."""
    return tensor.swapaxes(2, 3) if _is_depthwise(path) else tensor


def _is_depthwise(path: ArrayPath) -> bool:
    return path[-2:] == ("depthwise", "kernel")


# --- our own files ------------------------------------------------------------------------------------------------

OWN = Layout(
    "one of cvjax's own",
    lambda paths: {path: "/".join(path) for path in paths},
    lambda path, shape: [shape],
    lambda tensor, path, shape: tensor,
    floats=False,
)
