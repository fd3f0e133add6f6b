"""`python -m cvjax.evaluate`, short for `cvjax.programs.evaluate`: evaluates a trained run, on other data too."""

from cvjax import command
from cvjax.programs.evaluate import main

if __name__ == "__main__":
    command.run_main(main)
