"""The sections of BENCHMARKS.md, each written by the benchmark whose name it bears and kept by all others."""

import pathlib
import platform
import re
from collections.abc import Callable, Sequence
from importlib import metadata

import numpy as np

PATH = pathlib.Path(__file__).resolve().parent.parent / "BENCHMARKS.md"
TITLE = "# Benchmarks\n\nWritten by the commands named below, never by hand.\n"


def interleave(contestants: dict[str, Callable[[], object]], rounds: int, now: Callable[[], float]) -> dict[str, list]:
    """Times contestants in turn, so that whatever else the machine does slows all of them alike.

    Args:
      contestants: name -> a function that returns when its work is done. Each is called once untimed.
      rounds: how often each is timed.
      now: the clock, in seconds.

    Returns:
      name -> its `rounds` times in milliseconds.
    """
    for work in contestants.values():
        work()
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            start = now()
            work()
            times[name].append(1e3 * (now() - start))
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """The median, over the rounds, of one contestant's time by another's in the same round."""
    return float(np.median(np.divide(times, reference)))


def machine(packages: Sequence[str]) -> str:
    """The CPU and the versions of some packages, in a line."""
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}; Python {platform.python_version()}, " + ", ".join(f"{p} {metadata.version(p)}" for p in packages)


def write_section(name: str, text: str, path: pathlib.Path = PATH) -> None:
    """Replaces the section `<!-- name --> ... <!-- /name -->` of a Markdown file, or adds it at the end."""
    section = f"<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->\n"
    page = path.read_text() if path.exists() else TITLE
    pattern = re.compile(rf"<!-- {re.escape(name)} -->\n.*?<!-- /{re.escape(name)} -->\n", re.DOTALL)
    page = pattern.sub(lambda _: section, page) if pattern.search(page) else f"{page.rstrip()}\n\n{section}"
    path.write_text(page)
