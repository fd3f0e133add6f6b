"""`python -m cvjax.results`, short for `cvjax.programs.results`: trains experiments and records their figures."""

from cvjax import command
from cvjax.programs.results import main

if __name__ == "__main__":
    command.run_main(main)
