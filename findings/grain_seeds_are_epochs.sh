#!/usr/bin/env bash
# One would guess: shuffles with the seeds 0 and 1 are unrelated orders of the data.
# What happens: Grain adds the number of the epoch to the seed. The order of seed 1 in epoch 0 is that of seed 0 in
# epoch 1, record by record, by MapDataset.shuffle(seed) and by IndexSampler(seed); only MapDataset.seed() hashes.
# And two random_map with one seed, say a crop and a flip, draw the same numbers: the crop decides the flip.
# Who is hurt: studies of variance over seeds 0, 1, 2, ...: runs of ten epochs share nine of their ten orders. Pipelines
# that pass the one seed of the config to every stage: augmentations that should be independent are tied.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet grain==0.2.18 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import grain.python as grain
import numpy as np

print({name: version(name) for name in ("grain", "numpy")})
SIZE, EPOCHS = 50, 10


def epochs(records):
    return [tuple(records[i * SIZE : (i + 1) * SIZE]) for i in range(EPOCHS)]


def shuffled(seed):
    return epochs(list(grain.MapDataset.range(SIZE).shuffle(seed=seed).repeat(EPOCHS)))


def sampled(seed):
    sampler = grain.IndexSampler(SIZE, grain.NoSharding(), shuffle=True, num_epochs=EPOCHS, seed=seed)
    return epochs([sampler[i].record_key for i in range(SIZE * EPOCHS)])


def hashed(seed):
    return epochs(list(grain.MapDataset.range(SIZE).seed(seed).shuffle().repeat(EPOCHS)))


shared = {f.__name__: len(set(f(0)) & set(f(1))) for f in (shuffled, sampled, hashed)}
print(f"orders of {EPOCHS} epochs that seeds 0 and 1 share:", shared)
assert shared == {"shuffled": 9, "sampled": 9, "hashed": 0}
assert shuffled(1)[0] == shuffled(0)[1] and len(set(shuffled(0))) == EPOCHS


def crop(_, generator):
    return generator.uniform()


def flip(offset, generator):
    return offset, generator.uniform() < 0.5


records = grain.MapDataset.range(400)
tied = list(records.random_map(crop, seed=1).random_map(flip, seed=1))
free = list(records.seed(1).random_map(crop).random_map(flip))
for name, drawn in (("one explicit seed", tied), ("MapDataset.seed", free)):
    agree = np.mean([(offset < 0.5) == flipped for offset, flipped in drawn])
    print(f"{name}: the image is flipped exactly when the crop is in the first half in {agree:.0%} of the cases")
    assert agree == 1 if drawn is tied else 0.4 < agree < 0.6
PYTHON
