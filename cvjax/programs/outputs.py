"""Files that a program may write into a folder of the user's: new ones, and those that it wrote there before."""

import json
from collections.abc import Iterable
from pathlib import Path

from cvjax.data.sources import readable
from cvjax.errors import UserError
from cvjax.rundir import explain_write_errors

LIST = ".written"  # the names of the files written to a folder, a JSON string in each line


class LeftOut(UserError):
    """Pictures were left out, after everything else was done."""


class Outputs:
    """A folder in which no file of others is overwritten. Its list of own files is kept even if the program dies."""

    def __init__(self, folder: Path):
        """Reads the list of a folder, which may be absent; messages call the folder `--output`."""
        self.folder = folder
        path = folder / LIST
        lines = path.read_bytes().splitlines() if path.is_file() else []
        self._own = {json.loads(line) for line in lines if line.endswith(b'"')}  # the last may have been cut off

    def wrote(self, path: Path) -> bool:
        """Returns whether a file in the folder or below it was written by the program."""
        folder = self.folder.resolve()
        place = path.parent.resolve() / path.name
        return folder in place.parents and str(place.relative_to(folder)) in self._own

    def check(self, names: Iterable[str]) -> None:
        """Raises a UserError if one of these files is there and somebody else's."""
        for name in names:
            if name not in self._own and (self.folder / name).exists():
                raise UserError(
                    f"--output={readable(self.folder)}: {readable(self.folder / name)} would be overwritten, and "
                    "is not from an earlier call of this program. Give a folder without it, such as a new one."
                )

    def claim(self, name: str) -> Path:
        """Returns the path of a file that may be written now, and notes that it is the program's own."""
        self.check([name])
        if name not in self._own:
            self._own.add(name)
            with explain_write_errors(self.folder / LIST), open(self.folder / LIST, "ab") as file:
                file.write(json.dumps(name).encode() + b"\n")
        return self.folder / name
