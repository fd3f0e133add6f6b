#!/usr/bin/env bash
# One would guess: a builder of TensorFlow Datasets that was made with `config=Builder.builder_configs["large"]`, one of
# its own configs, goes to worker processes just as one made with `config="large"` does, and so does one with a config
# that is in no list.
# What happens: the first alone does not come back from pickle: "Cannot name a custom BuilderConfig the same as an
# available BuilderConfig". A builder is pickled as the arguments that it was made with, and made again from them; a
# listed config is then a copy of the listed one, which is taken for somebody else's of the same name.
# Who is hurt: loaders with worker processes, long after everything ran in one process. Give configs by their names.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 numpy==2.4.6
cat > "$folder/copy_builders.py" <<'PROGRAM'
import pickle
import sys

import numpy as np
import tensorflow_datasets as tfds


class Sizes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("small", "large")]

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"size": np.int64}))

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"size": 1}


def copied(config):
    builder = Sizes(config=config, data_dir=sys.argv[1], file_format="array_record")
    try:
        return pickle.loads(pickle.dumps(builder)).builder_config.name
    except ValueError as error:
        return str(error).splitlines()[0]


print("tensorflow-datasets", tfds.__version__)
found = {
    "a name": copied("large"),
    "a listed config": copied(Sizes.builder_configs["large"]),
    "an unlisted config": copied(tfds.core.BuilderConfig(name="huge")),
}
print(*[f"{given}: {result}" for given, result in found.items()], sep="\n")
refusal = "Cannot name a custom BuilderConfig the same as an available BuilderConfig"
sys.exit(not (found["a name"] == "large" and found["a listed config"].startswith(refusal) and found["an unlisted config"] == "huge"))
PROGRAM
if ! "$folder/venv/bin/python" "$folder/copy_builders.py" "$folder/data" 2> "$folder/errors"; then
  cat "$folder/errors"
  echo "This has changed."
  exit 1
fi
echo "As described."
