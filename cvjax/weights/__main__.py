"""`python -m cvjax.weights`, short for `cvjax.programs.weights`: shows what a file of weights holds."""

from cvjax import command
from cvjax.programs.weights import main

if __name__ == "__main__":
    command.run_main(main)
