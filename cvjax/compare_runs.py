"""Short for `cvjax.programs.compare_runs`: `python -m cvjax.compare_runs` shows several runs on one page."""

from cvjax import command
from cvjax.programs.compare_runs import main

if __name__ == "__main__":
    command.run_main(main)
