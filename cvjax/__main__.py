"""`python -m cvjax`, short for `cvjax.programs.overview`: lists systems, configs and what they reached."""

from cvjax import command
from cvjax.programs.overview import main

if __name__ == "__main__":
    command.run_main(main)
