"""A run's records: config.json, metrics.jsonl, TensorBoard events, figures and console output."""

import contextlib
import datetime
import io
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any, SupportsFloat

import PIL.Image
from jaxtyping import ArrayLike, Float
from tqdm import tqdm

from cvjax import report
from cvjax.data.sources import readable
from cvjax.display import format_columns, format_number, grid, list_parameters
from cvjax.errors import number_of
from cvjax.rundir import (
    Verdict,
    check_bars,
    end_of_last_line,
    explain_write_errors,
    iterate_metrics,
    metrics_line,
    read_config,
    write_atomically,
)

# tensorboardX imports torch if installed; we do not need it, and it doubles the startup time.
if _no_torch := "torch" not in sys.modules:
    sys.modules["torch"] = None  # makes importing it fail
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
finally:
    if _no_torch:
        del sys.modules["torch"]

COMPILING = "compiling the training step"
# What does not fit on the line is cut off at the right, where the metrics are.
BAR = "{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {remaining} left, {rate_fmt}{postfix}"


class Record:
    """Writes the records of a run; does nothing unless `active`, which only the first process is.

    To continue an existing folder, `rewind` to the step of the restored checkpoint.
    """

    def __init__(self, workdir: str | Path, *, steps: int, expect: Mapping[str, Sequence] = {}, active: bool = True):
        """Opens the folder, creating it if necessary; `expect` has bars of final figures, `{"fid": ("<=", 0.9)}`."""
        self.workdir, self.steps, self.expect, self.active = Path(workdir), steps, dict(expect), active
        check_bars(self.expect, {})  # reports a malformed bar now, not at the end of the run
        self._metrics, self._events, self._bar = None, None, None
        self._step, self._rate, self._clock, self._durations = 0, None, None, {}
        if active:
            with explain_write_errors(self.workdir):
                self.workdir.mkdir(parents=True, exist_ok=True)
            self._open()
            for row in iterate_metrics(self.workdir):
                self._step = max(self._step, row["step"])
                if "compile_seconds" in row:
                    self._durations[COMPILING] = row["compile_seconds"]

    def start(self, config: Mapping, facts: Mapping) -> None:
        """Writes the config and the facts (see `runs.facts`) to config.json and announces the run."""
        if not self.active:
            return
        started = self._read().get("started", datetime.datetime.now().astimezone().isoformat(timespec="seconds"))
        command = shlex.join(["python", *_program(), *sys.argv[1:]])
        self._write({"config": config, "started": started, "command": command, **facts})
        self.say(f"{config.get('system', 'run')}: {number_of(self.steps, 'step')}, recorded in {self.workdir}")

    def parameters(self, params: Mapping) -> None:
        """Prints the parameter table of `State.params` and adds it to config.json."""
        if not self.active:
            return
        rows = list_parameters(params)
        total = sum(count for _, _, count in rows)
        self._write({"parameters": rows})
        lines = [(path, shapes, f"{count:,}") for path, shapes, count in [*rows, ("parameters", "", total)]]
        self.say(format_columns(lines, align="<<>"))

    def rewind(self, step: int, without: Sequence[str] = ()) -> None:
        """Removes rows and figures after a restored step, and all verdicts, so that a resumed run has each row once.

        Rows of the splits in `without` are removed at exactly this step too.
        """
        if not self.active:
            return
        rows = (row for row in iterate_metrics(self.workdir) if row["step"] <= step and row["split"] != "verdict")
        rows = (row for row in rows if row["step"] < step or row["split"] not in without)
        self._metrics.close()
        write_atomically(self.workdir / "metrics.jsonl", map(metrics_line, rows))
        with explain_write_errors(self.workdir / "figures"):
            for figure in (self.workdir / "figures").rglob("*.png"):
                if figure.stem.isdigit() and int(figure.stem) > step:
                    figure.unlink()
        self._step = step
        self._open()
        # TensorBoard hides the events of earlier files from this step on.
        self._log(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, split: str, values: Mapping[str, SupportsFloat]) -> None:
        """Appends a row to metrics.jsonl and the TensorBoard events, and updates the progress display.

        `split` is "train", "eval" or "speed"; progress advances on "train" rows. A prefix of a metric with a slash, as
        in "loss/generator", names a group.
        """
        if not self.active:
            return
        values = {name: float(value) for name, value in values.items()}
        self._step = max(self._step, step)
        self._append({"step": step, "split": split, **values})
        tagged = [Summary.Value(tag=f"{split}/{name}", simple_value=value) for name, value in values.items()]
        self._log(Event(step=step, summary=Summary(value=tagged)))
        if split == "speed":
            self._rate = values.get("steps_per_second", self._rate)
        elif split == "train":
            self._progress(step, values)
        else:
            self.say(f"{split} at step {step}/{self.steps}  {_listed(values)}")

    def figure(self, step: int, name: str, images: Float[ArrayLike, "..."]) -> Path:
        """Saves a `display.grid` to the TensorBoard events and to figures/<name>/<step>.png, whose path it returns."""
        path = self.workdir / "figures" / name / f"{step:08d}.png"
        if not self.active:
            return path
        picture, encoded = PIL.Image.fromarray(grid(images)), io.BytesIO()
        picture.save(encoded, "png", optimize=True)
        write_atomically(path, encoded.getvalue())
        image = Summary.Image(
            height=picture.height,
            width=picture.width,
            colorspace=len(picture.getbands()),
            encoded_image_string=encoded.getvalue(),
        )
        self._log(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))
        return path

    def say(self, message: str) -> None:
        """Prints a line, above the progress bar if there is one."""
        if self.active:
            tqdm.write(readable(message), file=sys.stdout)
            sys.stdout.flush()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Says what is being done, and how long it took the last time; silent if that was less than a second."""
        last, begun = self._durations.get(what), time.perf_counter()
        if last is None or last >= 1:
            self.say(f"{what} ..." if last is None else f"{what} ... (the last time {format_number(last, 2)} s)")
        yield
        self._durations[what] = time.perf_counter() - begun

    def verdict(self, values: Mapping[str, SupportsFloat]) -> Verdict:
        """Prints and returns how the final figures compare with their bars; missing or NaN figures fail."""
        verdict = check_bars(self.expect, values)
        if not self.active:
            return verdict
        self._append({"step": self._step, "split": "verdict", **{name: float(v) for name, v in values.items()}})
        if verdict:
            lines = [("figure", "value", "", "bar", "")]
            for name, value, relation, bar, met in verdict:
                mark = "✓ met" if met else "✗ missed"
                lines.append((name, format_number(value, 4), relation, format_number(bar), mark))
            self.say(format_columns(lines, align="<><><"))
        return verdict

    def report(self) -> Path:
        """Rewrites report.html and returns its path."""
        return report.write(self.workdir, running=True) if self.active else self.workdir / "report.html"

    def close(self) -> None:
        """Ends the record. All is on disk then, and the page says that the run is done or where it stopped."""
        if not self.active or self._metrics.closed:
            return
        if self._bar is not None:
            self._bar.close()
        with explain_write_errors(self.workdir):
            self._metrics.close()
            if self._events is not None:
                self._events.close()
        if (self.workdir / "config.json").exists():
            report.write(self.workdir)

    def _open(self) -> None:
        path = self.workdir / "metrics.jsonl"
        with explain_write_errors(path):
            self._metrics = open(path, "ab")  # noqa: SIM115 (open as long as the record)
            self._metrics.truncate(end_of_last_line(path))

    def _append(self, row: Mapping[str, Any]) -> None:
        with explain_write_errors(self.workdir / "metrics.jsonl"):
            self._metrics.write(metrics_line(row).encode())
            self._metrics.flush()

    def _log(self, event: Event) -> None:
        """Writes an event synchronously: tensorboardX's thread loses its queue in a crash and hangs on a full disk."""
        with explain_write_errors(self.workdir / "events.out.tfevents"):
            if self._events is None:
                # The step distinguishes and orders files that are created within the same second.
                self._events = EventsWriter(str(self.workdir / "events"), f".{event.step:08d}")
            event.wall_time = time.time()
            self._events.write_event(event)
            self._events.flush()

    def _read(self) -> dict[str, Any]:
        return read_config(self.workdir) if (self.workdir / "config.json").exists() else {}

    def _write(self, entries: Mapping[str, Any]) -> None:
        content = dumps({"config": {}, **self._read(), **entries}, indent=1, ensure_ascii=False, default=_to_json)
        write_atomically(self.workdir / "config.json", content + "\n")

    def _progress(self, step: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        self._clock = self._clock or (step, now)
        if sys.stderr.isatty():
            self._bar = self._bar or tqdm(
                total=self.steps, initial=step, unit="step", dynamic_ncols=True, bar_format=BAR
            )
            self._bar.set_postfix_str(_listed(values), refresh=False)
            self._bar.update(step - self._bar.n)
            return
        line = f"step {step}/{self.steps}  {_listed(values)}"
        if self._rate is not None:
            line += f"  {format_number(self._rate)} steps/s"
        first, since = self._clock
        if step > first:  # by the clock, because evaluations take time too
            left = (now - since) / (step - first) * (self.steps - step)
            line += f"  eta {tqdm.format_interval(left)}"
        self.say(line)


def _program() -> list[str]:
    """Returns how the running program was called: `train.py`, or `-m cvjax.train`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return ["-m", spec.name] if spec is not None and spec.name.startswith("cvjax.") else sys.argv[:1]


def _to_json(value: Any) -> Any:
    """Converts a value that JSON cannot represent."""
    for method in ("to_dict", "tolist"):  # ConfigDict; NumPy and JAX
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)


def _listed(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {format_number(value)}" for name, value in values.items())
