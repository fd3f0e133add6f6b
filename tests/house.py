"""The rules of the house, read off every source file. `python tests/house.py` lists what breaks them.

Each rule is a function (path, text) -> complaints. CONTRIBUTING.md gives the reasons; test_house.py shows each rule
failing on planted violations and applies all to the project.
"""

import ast
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A family is a folder of the package in which there is a system: a module with a `recipe`.
FAMILIES = {
    path.relative_to(ROOT).parts[1]
    for path in (ROOT / "cvjax").glob("*/**/*.py")
    if "\ndef recipe(" in path.read_text()
}
PARTS = {"nets", "losses", "metrics", "weights"}
# From the top down. An import goes to a lower floor or stays on its own; families never import one another.
FLOORS = (
    {"train.py", "train", "configs"},
    {"programs", "__main__", "annotations", "apply", "compare_runs", "evaluate", "export", "results"},
    {"fit"},
    # What a run is made with.
    {
        "config",
        "command",
        "explain",
        "captions",
        "sharding",
        "compiled",
        "record",
        "report",
        "display",
        "runs",
        "predictor",
        "borrow",
        "judging",
    },
    FAMILIES,
    PARTS,
    {"ops", "data", "core", "optim", "precision", "packaged", "checkpoint", "rundir"},  # the last two: a run on disk
    {"errors", "signature", "upgrade", "cvjax"},
)
ARITHMETIC = {"ops", *PARTS, *FAMILIES}  # where arrays go in and out, signatures say their shapes
CITED = {"losses", *FAMILIES}  # whose modules follow a paper
NAMELESS = {"util", "utils", "helper", "helpers", "common", "misc", "data2", "tmp"}


def sources(*patterns: str) -> dict[str, str]:
    """Texts of the project's files by path from the root."""
    found = {p for pattern in patterns for p in ROOT.glob(pattern) if "__pycache__" not in p.parts}
    return {p.relative_to(ROOT).as_posix(): p.read_text() for p in sorted(found)}


# --- imports ------------------------------------------------------------------------------------------------------


def top(name: str) -> str:
    """The part of the house that a path or a module belongs to: `cvjax/ops/boxes.py`, `cvjax.ops.boxes` -> `ops`."""
    parts = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__").split(".")
    if parts[0] != "cvjax":
        return "train.py" if parts[0] == "train" else parts[0]
    if parts[-1] == "__main__":  # also of a folder
        return "__main__"
    dunder = len(parts) > 1 and parts[1].startswith("__")  # cvjax.__version__
    return "cvjax" if len(parts) == 1 or dunder else parts[1]


def imports(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, inside functions too."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += [node.module] if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


def upward_imports(path: str, text: str) -> list[str]:
    """Arrows that point up, families that import each other, modules that stand on no floor."""
    floors = {name: height for height, names in enumerate(reversed(FLOORS)) for name in names}
    here = top(path)
    if here not in floors:
        return [f"{path}: {here!r} has no floor; give it one in tests/house.py and in CONTRIBUTING.md"]
    complaints = []
    for line, module in imports(path, text):
        there = top(module)
        if module.split(".")[0] not in ("cvjax", "configs", "train"):
            continue
        if there not in floors:
            complaints.append(f"{path}:{line} imports {module}, which has no floor")
        elif floors[there] > floors[here]:
            complaints.append(f"{path}:{line} imports {module} from a floor above")
        elif here in FAMILIES and there in FAMILIES and here != there:
            complaints.append(f"{path}:{line} imports {module} from another family: move what both need down a floor")
    return complaints


def foreign_imports(path: str, text: str) -> list[str]:
    """TensorFlow and torch are never needed to run; TFDS loads TensorFlow itself where a dataset asks for it."""
    foreign = ("tensorflow", "torch", "torchvision", "keras")
    return [f"{path}:{line} imports {m}" for line, m in imports(path, text) if m.split(".")[0] in foreign]


# --- signatures and docstrings ------------------------------------------------------------------------------------


def public(path: str, text: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef, bool]]:
    """Where it stands, the node, and whether it is a method: every public function, class and method of a file."""
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield f"{path}:{node.lineno} {node.name}", node, False
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                shown = isinstance(method, ast.FunctionDef) and (method.name[0] != "_" or method.name == "__call__")
                if shown:
                    yield f"{path}:{method.lineno} {node.name}.{method.name}", method, True


def parameters(node: ast.FunctionDef, method: bool) -> list[ast.arg]:
    """All parameters in order, without self."""
    a = node.args
    listed = [
        *a.posonlyargs,
        *a.args,
        *([a.vararg] if a.vararg else []),
        *a.kwonlyargs,
        *([a.kwarg] if a.kwarg else []),
    ]
    static = any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
    return listed[1:] if method and not static else listed


def section(docstring: str, title: str) -> list[str]:
    """Lines of a docstring below a title such as `Args:`."""
    lines = docstring.splitlines()
    if title not in lines:
        return []
    rest = lines[lines.index(title) + 1 :]
    end = next((i for i, line in enumerate(rest) if line and not line.startswith(" ")), len(rest))
    return [line for line in rest[:end] if line]


def poor_docstrings(path: str, text: str) -> list[str]:
    """Docstrings whose first line is no sentence, whose Args are not parameters in their order, or without the result.

    Args leave out what a parameter's name and type say; those of `recipe`, which `--help` prints, are complete.
    Parameters may share a line: `params, opt: ...`. Arithmetic and results with several parts need "Returns", except
    where one sentence about one parameter is all.
    """
    complaints = []
    for where, node, method in public(path, text):
        docstring = ast.get_docstring(node) or ""
        first = docstring.split("\n")[0]
        if not first.endswith("."):
            complaints.append(f"{where}: the docstring's first line is not one sentence that ends with a period")
        if isinstance(node, ast.ClassDef) or method:
            continue
        names = [p.arg for p in parameters(node, method)]
        lines = re.findall(r"^  ((?:\*{0,2}\w+(?:, )?)+): ", "\n".join(section(docstring, "Args:")), re.MULTILINE)
        documented = [name.strip("*") for line in lines for name in line.split(", ")]
        wanted = names if node.name == "recipe" else [name for name in names if name in documented]
        if documented != wanted:
            complaints.append(f"{where}: Args documents {documented}, the parameters are {names}")
        result = ast.unparse(node.returns) if node.returns else "None"
        many = result.startswith(("tuple", "dict")) or (top(path) in ARITHMETIC and result != "None")
        said = re.search(r"\bReturns\b", docstring) or (docstring == first and len(names) <= 1)
        if many and not said:
            complaints.append(f"{where}: no Returns")
    return complaints


def bare_arrays(path: str, text: str) -> list[str]:
    """Parameters without a type anywhere, and arrays without a shape where there is arithmetic."""
    complaints = []
    for where, node, method in public(path, text):
        if isinstance(node, ast.ClassDef):
            continue
        for parameter in parameters(node, method):
            if parameter.annotation is None:
                complaints.append(f"{where}: {parameter.arg} has no type")
        if top(path) in ARITHMETIC:
            annotations = [(p.arg, p.annotation) for p in parameters(node, method)] + [("the result", node.returns)]
            complaints += [f"{where}: {n} is an array without a shape" for n, a in annotations if a and _shapeless(a)]
    return complaints


def _shapeless(annotation: ast.expr) -> bool:
    """Whether an annotation names an array type outside of jaxtyping's brackets; what Callables take is not judged."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        return _shapeless(annotation.left) or _shapeless(annotation.right)
    if isinstance(annotation, ast.Tuple):
        return any(map(_shapeless, annotation.elts))
    if isinstance(annotation, ast.Subscript):
        container = ast.unparse(annotation.value)
        return container in ("tuple", "list", "dict", "Sequence", "Mapping") and _shapeless(annotation.slice)
    return ast.unparse(annotation) in ("Array", "jax.Array", "jnp.ndarray", "np.ndarray", "numpy.ndarray", "ndarray")


def wrong_keys(path: str, text: str) -> list[str]:
    """Random keys are called `key` or `..._key` and come first, but in a `Recipe`'s own; nothing is called rng."""
    complaints = []
    for where, node, method in public(path, text):
        if isinstance(node, ast.ClassDef):
            continue
        listed = parameters(node, method)
        random = [
            p for p in listed if p.annotation and re.match(r"Key\[|PRNGKey|jax\.random\.", ast.unparse(p.annotation))
        ]
        for parameter in listed:
            if re.search(r"(^|_)(p?rngs?|prng|random_key)($|_)", parameter.arg):
                complaints.append(f"{where}: {parameter.arg} should be `key`")
        for parameter in random:
            if parameter.arg != "key" and not parameter.arg.endswith("_key"):
                complaints.append(f"{where}: {parameter.arg} should be `key`")
        contract = method and node.name in ("train_step", "eval_step", "visualise", "predict", "sample")
        if random and random != listed[: len(random)] and not contract:
            complaints.append(f"{where}: the key does not come first")
    return complaints


def nameless_names(path: str, text: str) -> list[str]:
    """Names that say nothing, of files, functions, classes, parameters and variables."""
    names = [(0, pathlib.PurePath(path).stem), *((0, part) for part in pathlib.PurePath(path).parent.parts)]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append((node.lineno, node.name))
        elif isinstance(node, ast.arg):
            names.append((node.lineno, node.arg))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append((node.lineno, node.id))
    return [f"{path}:{line} {name}" for line, name in names if NAMELESS & set(name.lower().split("_"))]


def uncited(path: str, text: str) -> list[str]:
    """A module of a system, a loss or a measure names its sources with their years in its docstrings."""
    nodes = [node for _, node, _ in public(path, text)]
    cited = any(re.search(r"\b(19|20)\d\d\b", ast.get_docstring(n) or "") for n in [ast.parse(text), *nodes])
    return [] if top(path) not in CITED or not nodes or cited else [f"{path}: no docstring cites a source and its year"]


# --- prose --------------------------------------------------------------------------------------------------------

IDIOMS = {  # what nobody would say aloud: the plain way to say it
    r"likewise": "repeat it in a word or two, or leave it out",
    r"whence|whereof|thereof|wherein|therein|hitherto|thereupon": "'from which', 'of it', 'in it', 'so far', 'then'",
    r"so many|so much(?= of)": "give the number or name it",
    r"(?<!twice\s)(?<!half\s)(?<!times\s)as many(?!(\s+\S+){0,4}?\s+as\b)": "'the same number', or 'as many ... as'",
    r"(is|are|was|were|be) told(?! apart)": "'gets', 'takes', 'is given'",
    r"what (of the|the (pictures?|images?|batch))": "name the thing itself",
    r"there (is|are) not so|not so (many|much)": "'if there are fewer'",
    r"of which (no|nothing|none|nobody)\b|no more is known": "say what it has, not what it lacks",
    r"(is|are) to be (seen|had|found)": "'can be seen', 'is in ...'",
    r"what (\S+ ){1,4}makes? (out )?of": "'the output of ... for ...'",
    r"one \w+ an? (array|batch|box|class|example|figure|file|image|metric|network|pixel|row|sample)": "'per'",
    r"but for (the|its|their|a|an|that|those|what)": "'except'",
    r"where (it|they|there|one) (has|have|is|are) (one|none|any|no)": "'if'",
    r"is none (that|of)": "'is not a'",
    r"without a word": "'silently'",
    r"anew": "'again', 'from scratch'",
    r"for want of": "'without', 'because there is no'",
    r"(nobody|no one) (wants|needs)": "'unused'",
}


def stilted_prose(path: str, text: str) -> list[str]:
    """Docstrings, comments and messages with a phrase that nobody would say aloud, and the plain way to say it."""
    complaints = []
    for first, passage in passages(text):
        for idiom, plain in IDIOMS.items():
            for match in re.finditer(rf"\b(?:{idiom})\b".replace(" ", r"[\s#]+"), passage, re.IGNORECASE):
                line = first + passage.count("\n", 0, match.start())
                phrase = re.sub(r"[\s#]+", " ", match[0])
                complaints.append(f"{path}:{line} {phrase!r}: say {plain}")
    return complaints


def passages(text: str) -> Iterator[tuple[int, str]]:
    """First line and text of every string and of every block of comments."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    block, start, last = [], 0, -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            yield start, "\n".join(block)
            block, start = [], token.start[0]
        block.append(token.string)
        last = token.start[0]
    yield start, "\n".join(block)


# --- sizes --------------------------------------------------------------------------------------------------------


def long_code(path: str, text: str, lines: int = 400, function_lines: int = 60) -> list[str]:
    """Files and functions that want to be two; a function's docstring and the functions within it are not its own."""
    complaints = [f"{path}: {text.count(chr(10))} lines"] if text.count("\n") > lines else []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        inner = [n for n in ast.walk(node) if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n is not node]
        skipped = {i for n in inner for i in range(n.lineno, n.end_lineno + 1)}
        if ast.get_docstring(node):
            skipped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        own = len(set(range(node.lineno, node.end_lineno + 1)) - skipped)
        if own > function_lines:
            complaints.append(f"{path}:{node.lineno} {node.name} has {own} lines of its own")
    return complaints


# --- configs ------------------------------------------------------------------------------------------------------


def poor_config(path: str, text: str) -> list[str]:
    """A config's docstring: source, exact command, result and time, all filled in."""
    docstring = ast.get_docstring(ast.parse(text)) or ""
    name = pathlib.PurePath(path).stem
    wanted = {
        "Paper": r"\b(19|20)\d\d\b",
        "Command": re.escape(f"python train.py --config=configs/{name}.py --workdir=runs/{name}") + "$",
        "Result": r"\d|not measured",
        "Time": r"\d",
    }
    complaints = []
    for title, pattern in wanted.items():
        value = re.search(rf"^{title}: (.*(?:\n(?!\w+: ).+)*)", docstring, re.MULTILINE)
        if not value or not re.search(pattern, value[1]):
            complaints.append(f"{path}: no `{title}: ...` that matches {pattern}")
    return complaints


PROGRAM = ("cvjax/**/*.py", "train.py", "configs/*.py")
ALL = (*PROGRAM, "tests/**/*.py", "benchmarks/**/*.py")
RULES = {  # which rule holds where
    upward_imports: PROGRAM,
    foreign_imports: PROGRAM,
    poor_docstrings: PROGRAM,
    bare_arrays: PROGRAM,
    wrong_keys: PROGRAM,
    nameless_names: PROGRAM,
    uncited: PROGRAM,
    long_code: ALL,
    poor_config: ("configs/*.py",),
    stilted_prose: (*PROGRAM, "benchmarks/**/*.py"),
}


def complaints(rule: Callable[[str, str], list[str]]) -> list[str]:
    """What breaks a rule in the whole project."""
    return [complaint for path, text in sources(*RULES[rule]).items() for complaint in rule(path, text)]


if __name__ == "__main__":
    found = [complaint for rule in RULES for complaint in complaints(rule)]
    print(*found, sep="\n")
    sys.exit(bool(found))
