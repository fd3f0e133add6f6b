"""A recipe compiled for a mesh and a batch shape."""

import contextlib
import dataclasses
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jaxtyping import PyTree

from cvjax import checkpoint, sharding
from cvjax.core import Recipe, State
from cvjax.errors import UserError
from cvjax.ops import convolution, flops

FEATURES = (
    "image",
    "label",
    "boxes",
    "labels",
    "mask",
    "difficult",
    "crowd",
    "area",
)  # a dataset may lack these

# XLA's CPU backend hands convolutions and products to YNNPACK, which computes convolutions of fewer features on one
# thread (jax 0.10.2, measured). The option leaves it the products alone.
NARROW = 128
WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

THRESHOLD = 1.0  # seconds: JAX's default, below which it keeps no program


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A recipe's functions, compiled for one mesh and one batch shape."""

    init: Callable[[], State]
    train_step: Callable[[State, Mapping], tuple[State, dict]] | None
    eval_step: Callable[[State, Mapping, int], dict]
    abstract_state: PyTree
    seconds: float
    flops: int


def enable_cache() -> None:
    """Caches compiled programs across runs, small ones too, in the user's cache folder or in JAX's own, if it has one.

    Without such a folder, as for a user without a home, programs are compiled again in each run, and a line says so. A
    threshold other than JAX's default, `jax_persistent_cache_min_compile_time_secs`, stays.
    """
    if jax.config.jax_compilation_cache_dir is None:
        _choose_cache()
    # Beside its steps a run compiles some thirty small programs, 25 kB each, which take as long as importing JAX.
    if jax.config.jax_persistent_cache_min_compile_time_secs == THRESHOLD:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _choose_cache() -> None:
    """Makes the user's cache folder that of JAX, or says why not."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvjax" / "compiled"
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        print(
            f"compiled programs are not kept for the next run, because there is no cache folder: {reason}. Set "
            "JAX_COMPILATION_CACHE_DIR or XDG_CACHE_HOME to a folder.",
            file=sys.stderr,
        )
    else:
        jax.config.update("jax_compilation_cache_dir", str(cache))


def describe_state(recipe: Recipe, mesh: jax.sharding.Mesh, batch: Mapping[str, Sequence]) -> PyTree:
    """Computes the shapes, dtypes and shardings of a recipe's state, as `jax.ShapeDtypeStruct`s; runs nothing.

    `batch` is the global one, {name: (shape, dtype)}.
    """
    specs = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in batch.items()}
    with _explain_missing_features(batch):
        shapes = jax.eval_shape(recipe.init, jax.random.key(0), specs)
    return checkpoint.abstract(shapes, sharding.state_sharding(mesh, shapes))


@contextlib.contextmanager
def _explain_missing_features(batch: Mapping[str, Sequence]) -> Iterator[None]:
    """Turns a KeyError for a feature that the dataset lacks into a UserError."""
    try:
        yield
    except KeyError as error:
        (key,) = error.args
        if key not in FEATURES or key in batch:
            raise
        raise UserError(
            f"this system needs `{key}`, but the dataset has only {', '.join(batch)}. Choose another "
            "config.data.name, or set config.data.max_boxes for a dataset with boxes."
        ) from error


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def compile_traced(traced: jax.stages.Traced) -> jax.stages.Compiled:
    """Compiles a traced program; for a CPU of several cores, with XLA's own convolutions if most have few features."""
    return traced.lower().compile(compiler_options=_choose_options(traced.jaxpr))


def _choose_options(program: ClosedJaxpr) -> dict[str, str]:
    if jax.default_backend() != "cpu" or cores() == 1:
        return {}
    operations = flops.count(program, _width)
    return _known_options() if operations["narrow"] > operations["wide"] else {}


def _width(equation: JaxprEqn) -> str:
    """ "narrow" or "wide" for a convolution, by the channels that it gives, and "other" for all else."""
    if equation.primitive not in (convolution.conv_p, convolution.conv_transpose_p):
        return "other"
    channels = equation.outvars[0].aval.shape[-1] // equation.params["geometry"].groups
    return "narrow" if channels < NARROW else "wide"


@functools.cache
def _known_options() -> dict[str, str]:
    """WITHOUT_YNNPACK, if this jaxlib has that option."""
    try:
        jax.jit(lambda: 0, compiler_options=WITHOUT_YNNPACK).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return WITHOUT_YNNPACK


def jit_eval_step(recipe: Recipe, seed: int) -> Callable[[State, Mapping, int], dict]:
    """Returns a recipe's jitted `eval_step`, with the number of the batch in the place of its key."""
    _, _, eval_key = jax.random.split(jax.random.key(seed), 3)

    def eval_step(state, batch, index):
        return recipe.eval_step(state, batch, jax.random.fold_in(eval_key, index))

    return jax.jit(eval_step)


def compile_recipe(recipe: Recipe, mesh: jax.sharding.Mesh, batch: Mapping[str, Sequence], seed: int) -> Compiled:
    """Compiles a recipe's train step ahead of time and jits the rest; `batch` as in `describe_state`.

    `train_step` folds `state.step` into its key.
    """
    init_key, train_key, _ = jax.random.split(jax.random.key(seed), 3)
    rows = sharding.batch_sharding(mesh)
    specs = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows) for name, (shape, dtype) in batch.items()}
    abstract_state = describe_state(recipe, mesh, batch)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state)

    def init() -> State:
        zeros = {name: jax.numpy.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
        return recipe.init(init_key, zeros)

    def train_step(state, batch):
        return recipe.train_step(state, batch, jax.random.fold_in(train_key, state.step))

    compiled, operations, begun = None, 0, time.perf_counter()
    if recipe.train_step is not None:
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        jitted = jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, replicated))
        with _explain_missing_features(batch):
            traced = jitted.trace(abstract_state, specs)
        compiled, operations = compile_traced(traced), flops.count(traced.jaxpr).total()
    return Compiled(
        init=jax.jit(init, out_shardings=shardings),
        train_step=compiled,
        eval_step=jit_eval_step(recipe, seed),
        abstract_state=abstract_state,
        seconds=time.perf_counter() - begun,
        flops=operations,
    )
