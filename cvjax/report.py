"""The page of a run, report.html."""

from pathlib import Path

from cvjax.rundir import read_config, read_metrics, write_whole


def write(workdir: str | Path, *, running: bool = False) -> Path:
    """Writes the page."""
    read_config(workdir), read_metrics(workdir)
    path = Path(workdir) / "report.html"
    write_whole(path, "<!doctype html><title>to come</title>")
    return path
