"""`python -m cvjax.export`, short for `cvjax.programs.export`: writes a run's networks for use without cvjax."""

from cvjax import command
from cvjax.programs.export import main

if __name__ == "__main__":
    command.run_main(main)
