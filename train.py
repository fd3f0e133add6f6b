"""Trains one experiment: python train.py --config=configs/vae_digits.py --workdir=runs/vae [--config.KEY=VALUE ...].

The flags make a config, the config a recipe, and `fit` runs the recipe. The same command resumes a stopped run. The
flags are defined in cvjax/train.py, which an installed package runs by `python -m cvjax.train`.
"""

from cvjax import command
from cvjax.train import main

if __name__ == "__main__":
    command.run_main(main)
