"""`python -m cvjax.interpret`, short for `cvjax.programs.interpret`: shows what a classifier looks at in pictures."""

from cvjax import command
from cvjax.programs.interpret import main

if __name__ == "__main__":
    command.run_main(main)
