"""What every test stands on: eight virtual CPU devices, quick compilation, shared caches, shapes checked in signatures.

All of it is set before JAX is imported, in the environment, so that test workers and subprocesses inherit it. A
variable that the caller has set already is kept: `JAX_PLATFORMS=cuda pytest ...` tests on a GPU, and a lasting
`JAX_COMPILATION_CACHE_DIR` or `TFDS_DATA_DIR` makes the next run start warm.
"""

import atexit
import contextlib
import fcntl
import gc
import os
import pathlib
import re
import runpy
import shutil
import sys
import tempfile
from importlib import metadata

import jaxtyping
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEVICES = "--xla_force_host_platform_device_count"

if "CVJAX_TEST_SHARED" not in os.environ:  # the first process of the run; its workers inherit the folder and leave it
    os.environ["CVJAX_TEST_SHARED"] = tempfile.mkdtemp(prefix="cvjax-tests-")
    atexit.register(shutil.rmtree, os.environ["CVJAX_TEST_SHARED"], ignore_errors=True)
shared = pathlib.Path(os.environ["CVJAX_TEST_SHARED"])

if DEVICES not in os.environ.get("XLA_FLAGS", ""):
    # One thread an operation: the workers already fill the cores.
    flags = [os.environ.get("XLA_FLAGS", ""), f"{DEVICES}=8", "--xla_cpu_multi_thread_eigen=false"]
    # XLA's older emitters of fused loops compile in less than half the time. JAX 0.11 has them no longer everywhere.
    flags += ["--xla_cpu_use_fusion_emitters=false"] if metadata.version("jaxlib").startswith("0.10.") else []
    os.environ["XLA_FLAGS"] = " ".join(flags)
for name, value in {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling takes half as long, and is most of what tests do
    "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # beside its steps, a run compiles some seventy small functions
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "TFDS_DATA_DIR": str(shared / "datasets"),  # each dataset is prepared once a run
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}.items():
    os.environ.setdefault(name, value)

# Traced programs are millions of objects that live as long as their worker; looking through them again and again is a
# tenth of the time at Python's own thresholds.
gc.set_threshold(50_000, 20, 100)

sys.path.insert(0, str(ROOT))  # `configs` and `train` live beside the package, not in it
jaxtyping.install_import_hook("cvjax", "beartype.beartype")

import flax.struct  # noqa: E402  (after the environment, which JAX reads when it is imported)


def _pytree(make):
    """JAX rebuilds a pytree with shardings or placeholders for leaves, so its fields are not held to their types."""

    def dataclass(cls=None, **options):
        if cls is None:
            return lambda cls: dataclass(cls, **options)
        cls.__no_type_check__ = True  # jaxtyping reads it; the methods are checked all the same
        return make(cls, **options)

    return dataclass


flax.struct.dataclass = _pytree(flax.struct.dataclass)


FIRST = ("test_colabs", "test_configs", "test_misfortunes", "test_hosts")  # which take the longest


def pytest_collection_modifyitems(items):
    """Starts with the files that take the longest."""
    items.sort(key=lambda item: item.path.stem not in FIRST)  # which leaves the order otherwise


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps the tests of a file in one worker, or those of a `unit` of several files, which trace and train once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            named = re.search(r"\[unit:([\w.]+)", nodeid)
            return named[1] if named else nodeid.partition("::")[0]

    return Scheduler(config, log)


def unit(name, value=None):
    """A parameter, by default the name, all tests with which run in one worker."""
    return pytest.param(name if value is None else value, id=f"unit:{name}" + ("" if value is None else f":{value}"))


def run_as_main(module):
    """Runs `python -m MODULE` in this process, and leaves no bytecode behind.

    jaxtyping's hook sets its bytecode apart only while a module is imported. What runpy compiles under the hook would
    be taken for the module itself by the next process, which has no hook.
    """
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        sys.dont_write_bytecode = kept


@contextlib.contextmanager
def locked(path):
    """Keeps the other workers out."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def trained_run():
    """Returns the folder of a config's finished run: one serves all tests of all workers, and none may change it."""
    from cvjax import command, config, fit

    def find(path):
        folder = shared / "runs" / command.name_of(path)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            if not (folder / "run").exists():
                shutil.rmtree(folder / "unfinished", ignore_errors=True)
                experiment = config.load(path)
                for name, source in experiment.borrow.items():
                    if source.startswith("runs/"):
                        _, lender, network = source.split("/")
                        experiment.borrow[name] = f"{find(f'configs/{lender}.py:smoke')}/{network}"
                fit.fit(experiment, folder / "unfinished")
                (folder / "unfinished").rename(folder / "run")
        return folder / "run"

    return find


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Drops the programs that a file has compiled, which nearly no other file uses: a worker would grow to 7 GB."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture
def one_device(monkeypatch):
    """Makes `fit` train on the first device alone."""
    import jax

    from cvjax import sharding

    make_mesh = sharding.make_mesh
    monkeypatch.setattr(
        sharding, "make_mesh", lambda shape, devices=None: make_mesh(shape, devices or jax.devices()[:1])
    )


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, for what stands on it too, even where its compiled operators are for another build of torch."""
    torch, library = pytest.importorskip("torch"), None
    try:
        module = pytest.importorskip("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist"; its networks need the name and nothing of it
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        module = pytest.importorskip("torchvision")
    yield module
    del library  # which undoes its definitions
