"""Files inside installed packages, pinned by version and SHA-256.

A package is never imported, and what it requires is not needed: the metadata of its distribution tell where it lies.
"""

import dataclasses
import hashlib
from importlib import metadata
from pathlib import Path

from cvjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PackagedFile:
    """A file that a package ships; `where`, in its methods, is what the user set, which messages start with.

    Attributes:
      distribution, version: as on PyPI.
      path: of the file, in the folder that packages are installed in.
      licence: as the package states it.
    """

    distribution: str
    version: str
    path: str
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        """Returns what pip installs."""
        return f"{self.distribution}=={self.version}"

    def locate(self, where: str) -> Path:
        """Returns where the file is; raises a UserError if the package, in this version, is not installed."""
        try:
            installed = metadata.distribution(self.distribution)
        except metadata.PackageNotFoundError:
            raise UserError(
                f"{where}: {self.distribution} is not installed: pip install --no-deps {self.requirement}"
            ) from None
        if installed.version != self.version:
            raise UserError(
                f"{where}: {self.distribution} {installed.version} is installed, its files are known of {self.version} "
                f"only: pip install --no-deps {self.requirement}"
            )
        return Path(str(installed.locate_file(self.path)))

    def read(self, where: str) -> bytes:
        """Returns the content; raises a UserError if `locate` does, or the file is absent or not the known one."""
        path = self.locate(where)
        replace = f"Replace it: pip install --force-reinstall --no-deps {self.requirement}"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{where}: {path}: {error.strerror or 'no such file'}. {replace}") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise UserError(
                f"{where}: {path} is not the file of {self.requirement}: its SHA-256 is {digest}, not {self.sha256}. "
                f"{replace}"
            )
        return content
