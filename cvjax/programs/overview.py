"""Lists the systems, their configs and variants, what each reached and in what time.

python -m cvjax            all of them
python -m cvjax WORD ...   those whose names or titles have one of the words: python -m cvjax gan yolo
"""

import ast
import dataclasses
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from cvjax import command, config
from cvjax.errors import UserError

WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Listed:
    """A config as the overview shows it.

    Attributes:
      title: first line of its docstring.
      system: the system's import path below cvjax.
      variants: what may follow the file after a colon.
      result, time: the paragraphs of the docstring.
    """

    path: Path
    title: str
    system: str
    variants: tuple[str, ...]
    result: str
    time: str


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the overview."""
    parser = command.Parser(prog="python -m cvjax", description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of names or titles; by default everything is listed")
    words = [word.lower() for word in parser.parse_args(argv).words]
    entries = [read_config(path) for path in config.list_configs()]
    chosen = [entry for entry in entries if not words or any(word in describe(entry).lower() for word in words)]
    if not chosen:
        raise UserError(f"no config has one of the words {', '.join(words)} in its name or title.")
    for system in dict.fromkeys(entry.system for entry in sorted(chosen, key=lambda entry: entry.system)):
        print(f"{system}: {title_of(system)}")
        for entry in chosen:
            if entry.system == system:
                print(show(entry))
        print()
    first = short_path(chosen[0].path)
    print(f"Train one: python -m cvjax.train --config={first}")
    print(f"Or a variant: --config={first}:VARIANT")


def title_of(system: str) -> str:
    """Returns the first line of a system's docstring."""
    file = Path(__file__).parent.parent.joinpath(*system.split(".")).with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def describe(entry: Listed) -> str:
    """Returns the names and titles by which a config is found."""
    return f"{entry.path.stem} {entry.title} {entry.system} {title_of(entry.system)}"


def short_path(path: Path) -> str:
    """Returns what to give as --config: the path, or only the name of a config that comes with the package."""
    return path.stem if path.parent == config.SHIPPED else str(path)


def show(entry: Listed) -> str:
    """Returns a config as indented lines."""
    facts = {"variants": ", ".join(entry.variants), "reached": entry.result, "time": entry.time}
    lines = [f"  {short_path(entry.path)}: {entry.title}"]
    for name, text in facts.items():
        if text:
            lines += textwrap.wrap(f"{name}: {text}", WIDTH, initial_indent="      ", subsequent_indent="        ")
    return "\n".join(lines)


def read_config(path: Path) -> Listed:
    """Reads a config file without running it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree) or ""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    systems = [call.args[0].value for call in calls if call.func.id == "experiment" and call.args]
    found = re.findall(r"^(Result|Time): ((?:.*)(?:\n(?!\w+: ).+)*)", docstring, re.MULTILINE)
    paragraphs = {name: " ".join(text.split()) for name, text in found}
    return Listed(
        path=path,
        title=docstring.partition("\n")[0].rstrip("."),
        system=systems[0] if systems else "",
        variants=tuple(_variants(tree, calls)),
        result=paragraphs.get("Result", ""),
        time=paragraphs.get("Time", ""),
    )


def _variants(tree: ast.Module, calls: Sequence[ast.Call]) -> list[str]:
    """Returns the keywords of `variant(config, name, smoke=...)`; those of `**variants` are its keys."""
    assigned = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    names = []
    for call in calls:
        for keyword in call.keywords if call.func.id == "variant" else ():
            value = assigned.get(keyword.value.id) if isinstance(keyword.value, ast.Name) else keyword.value
            keys = value.keys if keyword.arg is None and isinstance(value, ast.Dict) else ()
            names += [keyword.arg] if keyword.arg else [key.value for key in keys if isinstance(key, ast.Constant)]
    return names


if __name__ == "__main__":
    command.run_main(main)
