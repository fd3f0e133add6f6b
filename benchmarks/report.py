"""The sections of BENCHMARKS.md, each written by the benchmark of that name."""

import multiprocessing
import multiprocessing.connection
import pathlib
import platform
import re
import time
from collections.abc import Callable, Hashable, Sequence
from importlib import metadata
from typing import TypeVar

import numpy as np

PATH = pathlib.Path(__file__).resolve().parent.parent / "BENCHMARKS.md"
TITLE = "# Benchmarks\n\nWritten by the commands named below, never by hand.\n"
SLOT = 0.1
Name = TypeVar("Name", bound=Hashable)


def interleave(makers: dict[str, Callable[[], Callable[[], object]]], rounds: int) -> dict[str, list[float]]:
    """Times contestants alternately, so that other load on the machine slows all of them alike.

    Each runs in its own process, which sleeps while the others run: in one process, the threads of two libraries would
    compete for cores.

    Args:
      makers: {name: picklable function that prepares a contestant}; a contestant is a function that blocks until done.
      rounds: how often each is timed, for at least `SLOT` seconds.

    Returns:
      {name: milliseconds per call in each round}.
    """
    return measure(makers, rounds)[0]


def measure(
    makers: dict[Name, Callable[[], Callable[[], object]]],
    rounds: int,
    at_once: bool = False,
    finish: Callable[[Name], object] = str,
) -> tuple[dict[Name, list[float]], dict[Name, object]]:
    """Times contestants alternately, as `interleave` does, and asks each process for a value afterwards.

    Args:
      makers, rounds: as in `interleave`.
      at_once: prepare all contestants at the same time, which spoils no timing: nothing is timed until all are ready.
      finish: (name of the contestant) -> a value, called in its process, such as the memory that it took.

    Returns:
      Milliseconds per call in each round, and the values, by contestant.

    Raises:
      RuntimeError: a contestant failed; its traceback is on the standard error.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    try:
        for name, make in makers.items():
            pipes[name], end = context.Pipe()
            process = context.Process(target=_contestant, args=(make, finish, name, end), daemon=True)
            processes.append(process)
            process.start()
            end.close()  # so that the end of the process ends the pipe
            if not at_once:
                _receive(name, pipes[name])
        if at_once:
            for name, pipe in pipes.items():
                _receive(name, pipe)
        times = {name: [] for name in makers}
        for _ in range(rounds):
            for name, pipe in pipes.items():
                time.sleep(0.05)  # lets the previous contestant's threads go to sleep
                pipe.send("go")
                times[name].append(_receive(name, pipe))
        for pipe in pipes.values():
            pipe.send("finish")
        return times, {name: _receive(name, pipe) for name, pipe in pipes.items()}
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _receive(name: Hashable, pipe: multiprocessing.connection.Connection) -> object:
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError(f"{name} failed") from None


def _contestant(make: Callable, finish: Callable, name: Hashable, pipe: multiprocessing.connection.Connection) -> None:
    work = make()
    work()
    pipe.send("ready")
    while pipe.recv() == "go":
        pipe.send(_milliseconds(work))
    pipe.send(finish(name))


def _milliseconds(work: Callable[[], object]) -> float:
    work()  # wake the threads
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < SLOT:
        work()
        calls += 1
    return 1e3 * (time.perf_counter() - start) / calls


def ratio(times: Sequence[float], reference: Sequence[float]) -> tuple[float, float, float]:
    """Returns the quartiles (25, 50 and 75 %) over the rounds of times / reference."""
    return tuple(np.quantile(np.divide(times, reference), (0.25, 0.5, 0.75)).tolist())


def machine(packages: Sequence[str]) -> str:
    """Returns the CPU and the versions of packages, in one line."""
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}; Python {platform.python_version()}, " + ", ".join(f"{p} {metadata.version(p)}" for p in packages)


def write_section(name: str, text: str, path: pathlib.Path = PATH) -> None:
    """Replaces or appends the section `<!-- name --> ... <!-- /name -->` of a Markdown file."""
    section = f"<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->\n"
    page = path.read_text() if path.exists() else TITLE
    pattern = re.compile(rf"<!-- {re.escape(name)} -->\n.*?<!-- /{re.escape(name)} -->\n", re.DOTALL)
    page = pattern.sub(lambda _: section, page) if pattern.search(page) else f"{page.rstrip()}\n\n{section}"
    path.write_text(page)
