"""Programs in processes of their own, which see another number of virtual devices than the tests do."""

import os
import re


def environment(devices=1):
    """The environment of a process that has so many devices."""
    return os.environ | {"XLA_FLAGS": re.sub(r"device_count=\d+", f"device_count={devices}", os.environ["XLA_FLAGS"])}
