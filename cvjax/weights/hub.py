"""A folder for the Hugging Face hub: weights, what is needed to rebuild the networks, and a model card.

    model.safetensors   all networks, each array named by its network and path: classifier/params/conv1/kernel
    config.json         the part of a run's config.json that rebuilds the networks
    README.md           the model card, whose head the hub reads

A network is borrowed from such a folder as from a run's: `config.borrow.resnet=FOLDER/classifier`.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import yaml

from cvjax.core import Variables
from cvjax.errors import UserError
from cvjax.rundir import write_atomically
from cvjax.weights import networks as files

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
LICENCE = r"[a-z0-9][a-z0-9.\-]*"  # identifiers of the hub

TEXT = """---
{head}---

# {title}

{description}

| | |
|---|---|
{facts}
{figures}
## Use

With cvjax installed and this folder downloaded,

```python
from pathlib import Path

from cvjax import borrow
from cvjax.weights import hub

folder = Path({folder!r})
networks = hub.load(folder)  # variables by network
_, recipe = borrow.describe_run(folder)
module, variables = recipe.networks[{network!r}], networks[{network!r}]  # for module.apply(variables, ...)
```

or start a run from it: `--config.borrow.NETWORK={folder}/{network}`, as `cvjax/borrow.py` describes.
"""


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes:
      licence: of the weights, as the hub writes it: "apache-2.0", "cc-by-4.0", "other".
      description: what the model is, in a sentence or two.
      tags: words that it is found by.
      facts: {name: text} of the system, the data and the training.
      figures: (name, value, what it means) of the run's evaluation.
    """

    title: str
    licence: str
    description: str
    tags: Sequence[str]
    facts: Mapping[str, str]
    figures: Sequence[tuple[str, float, str]] = ()

    def __post_init__(self):
        """Raises a UserError if the hub would refuse the licence."""
        if not re.fullmatch(LICENCE, self.licence):
            raise UserError(
                f"{self.licence!r} is not the identifier of a licence; expected one such as apache-2.0, mit, "
                "cc-by-4.0 or other."
            )

    def write(self, folder: str, networks: Sequence[str]) -> str:
        """Returns the card as Markdown with its head, for the networks in a folder of this name."""
        head = {"library_name": "cvjax", "license": self.licence, "tags": list(self.tags)}
        figures = [f"| {name} | {value:.4g} | {meaning} |" for name, value, meaning in self.figures]
        return TEXT.format(
            head=yaml.safe_dump(head, sort_keys=False),
            title=self.title,
            description=self.description,
            facts="\n".join(f"| {name} | {text} |" for name, text in self.facts.items()),
            figures="\n".join(["", "## Figures", "", "| measure | value | meaning |", "|---|---|---|", *figures, ""])
            if figures
            else "",
            folder=folder,
            network=networks[0],
        )


def save(folder: str | Path, networks: Mapping[str, Variables], config: Mapping[str, Any], card: Card) -> None:
    """Writes a folder for the hub, replacing a model that was written there before.

    Raises a UserError if it cannot be written, or has files of these names that are no model of cvjax.
    """
    folder = Path(folder)
    there = [folder / name for name in (WEIGHTS, CONFIG, CARD) if (folder / name).exists()]
    there = [path for path in there if path.name != CARD or not _is_bare(path)]
    if there and not _is_ours(folder):
        raise UserError(f"{there[0]} would be overwritten, and is of no model of cvjax. Give a folder without it.")
    write_atomically(folder / CONFIG, json.dumps({"library_name": "cvjax", **config}, indent=1) + "\n")
    files.save(folder / WEIGHTS, networks)
    write_atomically(folder / CARD, card.write(folder.absolute().name, list(networks)))


def _is_ours(folder: Path) -> bool:
    """Returns whether a folder's configuration is that of a model of cvjax."""
    with contextlib.suppress(OSError, ValueError):
        written = json.loads((folder / CONFIG).read_bytes())
        return isinstance(written, dict) and written.get("library_name") == "cvjax"
    return False


def _is_bare(card: Path) -> bool:
    """Returns whether a model card has a head and no text, as the hub makes it for a new repository."""
    return re.fullmatch(rb"\s*---\n.*?\n---\s*", card.read_bytes(), re.DOTALL) is not None


def load(folder: str | Path) -> dict[str, Variables]:
    """Returns the networks in a folder that `save` wrote, {name: variables}; raises a UserError if there is none."""
    tensors = files.read_tensors(Path(folder) / WEIGHTS)
    return flax.traverse_util.unflatten_dict(tensors, sep="/")


def is_published(folder: Path) -> bool:
    """Returns whether a folder is one for the hub, rather than a run's."""
    return (folder / WEIGHTS).is_file()
