"""`python -m cvjax.results`: experiments trained to their bars; the program is `cvjax.programs.results`."""

from cvjax import command
from cvjax.programs.results import main

if __name__ == "__main__":
    command.explained(main)
