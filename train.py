"""Trains one experiment: python train.py --config=configs/vae_digits.py --workdir=runs/vae [--config.KEY=VALUE ...].

Flags become a config, the config a recipe, and `fit` runs the recipe. The same command goes on with a stopped run.
"""

import sys
from pathlib import Path

from absl import flags

from cvjax import command
from cvjax.fit import Stopped, fit

CONFIG = command.define_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder; runs/<name of the config> by default")


def main() -> int:
    """Reads the flags, fits, and returns the exit code: 0 done, 1 a mistake, 3 stopped by a signal."""
    command.parse_flags(sys.argv)
    workdir = WORKDIR.value or Path("runs") / command.name_of(flags.FLAGS["config"].config_filename)
    try:
        fit(CONFIG.value, workdir)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    command.explained(main)
