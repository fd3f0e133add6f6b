"""Prints the Generative Adversarial Metric of two trained GANs (Im et al., 2016).

python -m cvjax.programs.gam --run_a=runs/dcgan --run_b=runs/other
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvjax import command, data, runs
from cvjax.errors import UserError
from cvjax.metrics.gam import battle, gam, report


def main(argv: Sequence[str] | None = None) -> None:
    """Compares two runs and prints the table."""
    parser = command.Parser(prog="python -m cvjax.programs.gam", description=__doc__)
    parser.add_argument("--run_a", type=Path, required=True, help="folder of a trained GAN")
    parser.add_argument("--run_b", type=Path, required=True, help="folder of another, trained on the same data")
    parser.add_argument("--count", type=int, default=1000, help="samples of each")
    parser.add_argument("--seed", type=command.seed, default=0, help="seed of the samples")
    parser.add_argument("--tolerance", type=float, default=0.2, help="how far from 1 r_test may be")
    arguments = parser.parse_args(argv)
    if arguments.count < 1 or not arguments.tolerance >= 0:
        raise UserError(f"--count={arguments.count} --tolerance={arguments.tolerance}: at least 1 and at least 0.")
    folders = {"a": arguments.run_a.expanduser(), "b": arguments.run_b.expanduser()}
    loaded = {name: runs.load(folder) for name, folder in folders.items()}
    settings = {name: description["config"]["data"] for name, (description, *_) in loaded.items()}
    for key in ("name", "folder", "eval_split", "eval_transforms"):
        one, other = (settings[name].get(key) for name in "ab")
        if one != other:
            raise UserError(f"--run_a has data.{key}={one!r}, --run_b {other!r}: their images differ.")
    batches = data.load(settings["a"], seed=0).evaluate()
    images = np.concatenate([np.asarray(batch["image"])[np.asarray(batch["valid"])] for batch in batches])
    a, b = (tuple(found) for _, *found in loaded.values())
    errors = battle(a, b, images, arguments.count, arguments.seed)
    print(report({name: str(folder) for name, folder in folders.items()}, errors, gam(*errors, arguments.tolerance)))


if __name__ == "__main__":
    command.run_main(main)
