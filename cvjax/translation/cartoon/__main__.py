"""`python -m cvjax.translation.cartoon`, short for `cvjax.programs.cartoon`: photographs and videos as cartoons."""

from cvjax import command
from cvjax.programs.cartoon import main

if __name__ == "__main__":
    command.run_main(main)
