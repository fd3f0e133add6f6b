"""The code that made a result: its commit, its files, and whether they have changed since."""

import ast
import functools
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import cvjax

ROOT = Path(cvjax.__path__[0]).parent


def git(*arguments: str) -> str | None:
    """Returns the output of a git command in the project's folder; None if git fails or there is none."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def present_commit() -> str | None:
    """Returns the present commit, with a "+" if the code has uncommitted changes; None without git."""
    head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "cvjax", "configs")
    return None if head is None else head.strip() + ("+" if changes else "")


def source_files(system: str) -> list[str]:
    """Lists the files of a system: its module, the judges, and their imports from families, nets, losses, metrics etc.

    The loop, the data pipeline and the optimisers are left out: nearly every commit touches them. Paths are from the
    project's folder.
    """
    found, waiting = set(), [f"cvjax.{system}", "cvjax.metrics.classifier_judge"]
    while waiting:
        path = _module_file(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting += _imports((ROOT / path).read_text(encoding="utf-8"))
    return sorted(found)


def changed_since(commit: str, files: Sequence[str]) -> bool:
    """Returns whether code changed since a commit; docstrings, comments and the bars of configs do not count.

    A commit that the repository lacks counts as changed; without git nothing does. The files are paths from the
    project's folder.
    """
    if git("rev-parse", "HEAD") is None:
        return False
    commit = commit.rstrip("+")
    names = git("diff", "--name-only", commit, "--", *files)
    return names is None or any(_code_at(commit, name) != _code(ROOT / name) for name in names.splitlines())


def _module_file(module: str) -> str | None:
    """Returns the file of a module in a folder of the package other than `data` and `programs`."""
    parts = module.split(".")
    path = Path(*parts).with_suffix(".py")
    followed = parts[0] == "cvjax" and len(parts) > 2 and parts[1] not in ("data", "programs")
    return path.as_posix() if followed and (ROOT / path).is_file() else None


def _imports(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _code_at(commit: str, name: str) -> str | None:
    text = git("show", f"{commit}:{name}")
    return None if text is None else _strip(text)


def _code(path: Path) -> str | None:
    return _strip(path.read_text(encoding="utf-8")) if path.is_file() else None


def _strip(text: str) -> str:
    """Returns the syntax tree of Python code without docstrings and bars, as text."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_string(part)]
        if isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "expect"]
        if isinstance(node, ast.Dict):
            pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if not _is_bar(key)]
            node.keys, node.values = [key for key, _ in pairs], [value for _, value in pairs]
    return ast.dump(tree)


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_bar(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.split(".")[0] == "expect"
