"""`python -m cvjax.apply`, short for `cvjax.programs.apply`: applies a trained run to images, or samples from it."""

from cvjax import command
from cvjax.programs.apply import main

if __name__ == "__main__":
    command.run_main(main)
