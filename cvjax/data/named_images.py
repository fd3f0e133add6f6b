"""The images of a folder, to be found by the names that annotations and lists give them."""

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cvjax.data.sources import readable
from cvjax.data.splits import name_split, split_of

CONTAINERS = ("images", "jpegimages", "labels", "annotations")  # folders that say nothing about an image


def parts_of(file: Path, root: Path) -> tuple[str, ...]:
    """Returns the parts of an image's path below a folder, without those such as `images` that mean nothing."""
    start, path = f"{root}{os.sep}", str(file)  # as texts, since paths are slow where there are thousands
    inner = path[len(start) :].split(os.sep) if path.startswith(start) else file.relative_to(root).parts
    *folders, name = inner
    return (*(part for part in folders if part.lower() not in CONTAINERS), name)


class Images:
    """The images of a folder, to be found by the names that annotations give them."""

    def __init__(self, root: Path, files: Sequence[Path]):
        self.root, self.files = root, files
        self._by_name, self._by_stem = {}, {}
        for file in files:
            self._by_name.setdefault(file.name, []).append(file)
            self._by_stem.setdefault(file.stem, []).append(file)

    def path(self, file: Path) -> str:
        """Returns a path below the folder, for messages."""
        return readable(file.relative_to(self.root))

    def folder_split(self, file: Path) -> str | None:
        """Returns the split that the topmost folder of an image names, if any."""
        return split_of(self._parts[file])

    def find(self, name: str, near: Path, split: str = "") -> Path | None:
        """Finds an image by the name in a file of the folder `near`."""
        name = name.replace("\\", "/")
        inner = os.path.normpath(name)
        for place in self._places(near):
            away = inner.startswith(("..", "/"))
            path = os.path.normpath(os.path.join(place, name)) if away else place + inner
            if file := self._by_path.get(path):
                return file
        wanted = split_of(parts_of(near / "x", self.root)) or split
        several = self._by_name.get(Path(name).name, [])
        several = [file for file in several if not wanted or self.folder_split(file) in (None, wanted)]
        return several[0] if len(several) == 1 else None

    def find_beside(self, file: Path) -> Path | None:
        """Finds the image of an annotation file by its name without suffix: in its folder, or in one beside it."""
        several = self._by_stem.get(file.stem, [])
        place = parts_of(file.parent / "x", self.root)
        beside = [image for image in several if image.parent == file.parent]
        beside = beside or [image for image in several if parts_of(image.parent / "x", self.root) == place]
        return beside[0] if len(beside) == 1 else None

    def find_listed(self, name: str, near: Path) -> Path | None:
        """Finds the image that a line of a list names, with or without its suffix.

        It is the one at this path below the folder `near` or the root, else that whose path there is the longest tail
        of the line's.
        """
        name = name.replace("\\", "/")
        for place in (near, self.root):
            if file := self._by_path.get(os.path.normpath(os.path.join(place, name))):
                return file
        *folders, last = name.split("/")
        for tail in itertools.chain(self._tails(folders, near), self._tails((), near)):
            if several := self._by_parts.get((*tail, last)):
                return several[0] if len(several) == 1 else None
        return None

    def below(self, name: str, near: Path) -> list[Path]:
        """Finds the images below the folder of this path, or the longest tail of one, below `near` or the root."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        for folder in self._tails(parts, near):
            found = [file for file, path in self._parts.items() if path[: len(folder)] == folder and path != folder]
            if folder and found:
                return found
        whole = not parts or parts[-1] == self.root.name
        moved = not whole and parts[-1].lower() in CONTAINERS and (self.root / parts[-1]).is_dir()
        return list(self.files) if whole or (moved and not any(map(name_split, parts))) else []

    def _tails(self, folders: Sequence[str], near: Path) -> Iterator[tuple[str, ...]]:
        """Yields ever shorter tails of the folders of a path, below `near` and below the root."""
        folders = [part for part in folders if part not in ("", ".", "..") and part.lower() not in CONTAINERS]
        above = parts_of(near / "x", self.root)[:-1]
        for start in range(max(1, len(folders))):
            yield (*above, *folders[start:])
            yield tuple(folders[start:])

    @functools.lru_cache(maxsize=16)  # noqa: B019 (of few folders)
    def _places(self, near: Path) -> list[str]:
        """Returns the folders below which a name in a file of the folder `near` may be, as a path begins."""
        folders = [place / inner for place in (near, near.parent, self.root) for inner in ("", "images", "JPEGImages")]
        return ["" if str(folder) == "." else f"{str(folder).rstrip('/')}/" for folder in dict.fromkeys(folders)]

    @functools.cached_property
    def _by_path(self) -> dict[str, Path]:
        return {str(file): file for file in self.files}

    @functools.cached_property
    def _parts(self) -> dict[Path, tuple[str, ...]]:
        return {file: parts_of(file, self.root) for file in self.files}

    @functools.cached_property
    def _by_parts(self) -> dict[tuple[str, ...], list[Path]]:
        """Images by the parts of their paths, with and without suffix."""
        found = {}
        for file, (*folders, name) in self._parts.items():
            for last in (name, file.stem):
                found.setdefault((*folders, last), []).append(file)
        return found
