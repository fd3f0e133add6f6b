"""Trains one experiment: python -m cvjax.train --config=configs/vae_digits.py --workdir=runs/vae [--config.KEY=VALUE].

The flags make a config, the config a recipe, and `fit` runs the recipe. The same command resumes a stopped run.
"""

import sys
from pathlib import Path

from absl import flags

from cvjax import command, sharding
from cvjax.fit import fit
from cvjax.programs import preview

CONFIG = command.define_flag()
COORDINATOR = flags.DEFINE_string("coordinator", None, "several hosts: HOST:PORT of process 0, or auto")
PREVIEW = flags.DEFINE_bool("preview", False, "draw transformed batches with their boxes and masks, and stop")
PROCESS_COUNT = flags.DEFINE_integer("process_count", None, "several hosts: how many processes")
PROCESS_INDEX = flags.DEFINE_integer("process_index", None, "several hosts: which one this is, from 0")
WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder; runs/<name of the config> by default")


def main() -> None:
    """Trains; exits with 0 when done, 1 after a user's mistake, 3 when a signal stopped the run."""
    command.parse_flags(sys.argv)
    if COORDINATOR.value:
        sharding.join_hosts(COORDINATOR.value, PROCESS_COUNT.value, PROCESS_INDEX.value)
    workdir = WORKDIR.value or Path("runs") / command.name_of(flags.FLAGS["config"].config_filename)
    (preview.preview if PREVIEW.value else fit)(CONFIG.value, Path(workdir).expanduser())


if __name__ == "__main__":
    command.run_main(main)
