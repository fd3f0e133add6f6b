"""`python -m cvjax.recognition.gallery`, short for `cvjax.programs.gallery`: enrols people by their pictures."""

from cvjax import command
from cvjax.programs.gallery import main

if __name__ == "__main__":
    command.run_main(main)
