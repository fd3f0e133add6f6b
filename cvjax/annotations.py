"""`python -m cvjax.annotations`, short for `cvjax.programs.annotations`: checks a folder of images with boxes."""

from cvjax import command
from cvjax.programs.annotations import main

if __name__ == "__main__":
    command.run_main(main)
