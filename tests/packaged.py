"""Packages with files, as pip would have installed them, for tests of what reads them."""

import hashlib
import pickle

from cvjax.packaged import PackagedFile
from cvjax.weights.packages import PACKAGED, Packaged

NAME = "toy-weights/dense"


def write(folder, monkeypatch, distribution, contents, version="1.0"):
    """Installs files {path in `folder`: bytes}, and returns their `PackagedFile`s, of version 1.0, in the same order.

    Args:
      folder: becomes a part of sys.path.
      monkeypatch: pytest's.
      distribution: name of the package.
      contents: of its files.
      version: of the package that is installed.
    """
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    about = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    return [PackagedFile(distribution, "1.0", path, digest, "MIT") for path, digest in digests.items()]


def install(folder, monkeypatch, module, arrays, version="1.0", **changed):
    """Installs version 1.0 of a package with the weights of a network, or another version, and makes it known.

    Args:
      folder, monkeypatch, version: as for `write`.
      module: the network.
      arrays: {"params": ...}, pickled.
      changed: attributes of its entry in `PACKAGED` that differ.

    Returns:
      The file of weights.
    """
    contents = {"toy_weights/files/dense.ckpt": pickle.dumps(arrays, 3)}
    (file,) = write(folder, monkeypatch, "toy-weights", contents, version)
    convert = lambda tensors: {"params": {name.removeprefix("params."): value for name, value in tensors.items()}}  # noqa: E731
    entry = vars(file) | dict(module=module, convert=convert) | changed
    monkeypatch.setitem(PACKAGED, NAME, Packaged(**entry))
    return folder / file.path
