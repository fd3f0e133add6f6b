"""`python -m cvjax.apply`: a trained run applied to images, or sampled; the program is `cvjax.programs.apply`."""

from cvjax import command
from cvjax.programs.apply import main

if __name__ == "__main__":
    command.explained(main)
