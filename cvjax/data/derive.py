"""Features that a user's function computes once from each image: `data.derive`.

    data.derive = {"proposals": dict(function="cvjax.ops.proposals:selective_search", kind="boxes", max_boxes=100)}

The function takes the image before any transform, float32 [height, width, channels] in [0, 1], and the keyword
arguments `arguments`. It has to be pure: its results are kept.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Shaped

from cvjax.errors import UserError, suggest
from cvjax.signature import Count, arguments_of, match

Kind = Literal["boxes", "map", "image", "array"]
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "boxes": "[boxes, 4], x1, y1, x2, y2 in pixels",
        "map": "integers [height, width]",
        "image": "numbers [height, width, channels]",
        "array": "numbers, of one shape for all images",
    }
)


@dataclasses.dataclass(frozen=True)
class Derived:
    """A derived feature: what `function`, "package.module:function", computes from each image.

    Attributes:
      kind: one of `KINDS`. Boxes, maps and images move with the image that they were derived from; arrays do not.
      max_boxes: number of rows to which boxes are padded; the mask beside them is called `{feature}_mask`.
    """

    feature: str
    function: str
    kind: Kind
    max_boxes: Count | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, feature: str, entry: Any) -> "Derived":
        """Checks an entry of `data.derive`.

        Raises a UserError if a key is wrong, or the function does not exist or does not take the arguments.
        """
        where = f"data.derive.{feature}"
        if not isinstance(entry, Mapping):
            raise UserError(f'{where} must be a dict such as dict(function="package.module:name", kind="boxes")')
        made = cls(feature, **match(entry, arguments_of(cls, without=("feature",)), where))
        count = made.max_boxes
        if (made.kind == "boxes") != (count is not None):
            raise UserError(f"{where}.max_boxes={count!r} must be the rows of a batch for boxes, and None for the rest")
        function = resolve(made.function, f"{where}.function")
        try:
            image, *_ = inspect.signature(function).parameters
        except ValueError:  # no parameters, or none that Python can list
            raise UserError(
                f"{where}.function={made.function!r} does not take an image as its first argument"
            ) from None
        arguments = match(made.arguments, arguments_of(function, without=(image,)), f"{where}.arguments")
        try:
            json.dumps(arguments)
        except TypeError as error:
            raise UserError(f"{where}.arguments must be numbers, text, lists or dicts: {error}") from error
        return dataclasses.replace(made, arguments=arguments)

    @property
    def fingerprint(self) -> str:
        """Hash of what results depend on besides the image: the function, its module's source and the arguments.

        Of a file that an argument names, the content counts too.
        """
        function = resolve(self.function)
        described = [self.function, self.kind, _module_source(function), dict(self.arguments)]
        files = [Path(value).expanduser() for value in self.arguments.values() if isinstance(value, str) and value]
        described += [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def compute(self, image: Float32[np.ndarray, "height width channels"]) -> Shaped[np.ndarray, "..."]:
        """Calls the function; raises a UserError if it fails, or its result is not of the kind."""
        try:
            result = np.asarray(resolve(self.function)(image, **self.arguments))
        except Exception as error:  # a user's function raises anything
            raise UserError(f"data.derive.{self.feature}: {self.function} fails: {error}") from error
        kind, size = result.dtype.kind, image.shape[:2]
        right = {
            "boxes": result.ndim == 2 and result.shape[1] == 4 and kind in "iuf",
            "map": result.shape == size and kind in "iub",
            "image": result.ndim == 3 and result.shape[:2] == size and kind in "iubf",
            "array": kind in "iubf",
        }[self.kind]
        if not right:
            raise UserError(
                f"data.derive.{self.feature}: {self.function} returned {result.dtype} {list(result.shape)} of an image "
                f"of {size[0]}x{size[1]}; kind={self.kind!r} is {KINDS[self.kind]}"
            )
        if self.kind == "array":
            return result.astype({"f": np.float32, "b": np.bool_}.get(kind, np.int32))
        return result.astype(np.int32 if self.kind == "map" else np.float32)


@functools.lru_cache(maxsize=64)
def resolve(path: str, setting: str = "function") -> Callable:
    """Imports a function by "package.module:function"; raises a UserError, naming `setting`, if there is none."""
    module, _, name = str(path).partition(":")
    if not module or not name:
        raise UserError(f'{setting}={path!r} must be "package.module:function"')
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise UserError(f"{setting}={path!r}: the module {module} cannot be imported: {error}") from error
    if not callable(getattr(found, name, None)):
        names = [each for each, value in vars(found).items() if inspect.isfunction(value) and not each.startswith("_")]
        raise UserError(f"{setting}={path!r}: {module} has no function {name!r}. {suggest(name, names)}")
    return getattr(found, name)


@functools.lru_cache(maxsize=64)
def _module_source(function: Callable) -> str:
    """Source of a function's module, so that an edit gives new results; what the module imports is not included."""
    try:
        return inspect.getsource(inspect.getmodule(function))
    except (OSError, TypeError):  # a function of an interactive session, or of C
        return ""
