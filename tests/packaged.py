"""A package with weights, as pip would have installed it, for tests of what reads them."""

import hashlib
import pickle

from cvjax.weights.packages import PACKAGED, Packaged

NAME = "toy-weights/dense"


def install(folder, monkeypatch, module, arrays, version="1.0", **changed):
    """Installs version 1.0 of a package with the weights of a network, or another version, and makes it known.

    Args:
      folder: becomes a part of sys.path.
      monkeypatch: pytest's.
      module: the network.
      arrays: {"params": ...}, pickled.
      version: of the package that is installed.
      changed: attributes of its entry in `PACKAGED` that differ.

    Returns:
      The file of weights.
    """
    file = folder / "toy_weights" / "files" / "dense.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(arrays, 3))
    about = folder / f"toy_weights-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toy_weights\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    convert = lambda tensors: {"params": {name.removeprefix("params."): value for name, value in tensors.items()}}  # noqa: E731
    path = file.relative_to(folder).as_posix()
    entry = dict(distribution="toy-weights", version="1.0", path=path, sha256=sha256, licence="MIT", module=module)
    monkeypatch.setitem(PACKAGED, NAME, Packaged(**entry | {"convert": convert} | changed))
    return file
