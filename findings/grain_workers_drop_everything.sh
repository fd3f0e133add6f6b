#!/usr/bin/env bash
# One would guess: the number of worker processes changes how fast a data loader is, not which examples it yields.
# What happens: every worker of a Grain DataLoader takes each n-th record, makes batches of its own and, with
# drop_remainder=True, drops its own last batch. 500 records in batches of 64 are 7 batches without workers, 6 with
# two, and none with eight: the loop over the data ends at once, without an error. The batches hold other examples, too.
# Who is hurt: evaluation on a few hundred or thousand images with many workers: part of them or all are left out, and
# the metric is that of the rest, or an average over nothing.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet grain==0.2.18 absl-py==2.5.1 numpy==2.4.6
cd "$dir"
cat > load.py <<'PYTHON'
from importlib.metadata import version

import grain.python as grain
from absl import app  # worker processes of Grain need its flags


class Records:
    def __len__(self):
        return 500

    def __getitem__(self, index):
        return index


def batches(workers, drop_remainder):
    sampler = grain.IndexSampler(500, shuffle=False, num_epochs=1, shard_options=grain.NoSharding())
    loader = grain.DataLoader(
        data_source=Records(),
        sampler=sampler,
        operations=[grain.Batch(64, drop_remainder=drop_remainder)],
        worker_count=workers,
    )
    return [batch.tolist() for batch in loader]


def main(_):
    print({name: version(name) for name in ("grain", "absl-py", "numpy")})
    seen = {}
    for workers in (0, 2, 8):
        for drop in (True, False):
            got = seen[workers, drop] = batches(workers, drop)
            sizes = [len(batch) for batch in got]
            print(f"{workers} workers, drop_remainder={drop}: {sum(sizes)} of 500, batches of {sizes},", end=" ")
            print("the first", [batch[:4] for batch in got[:1]], flush=True)
    assert [len(seen[workers, True]) for workers in (0, 2, 8)] == [7, 6, 0]
    assert all(sorted(sum(seen[workers, False], [])) == list(range(500)) for workers in (0, 2, 8))
    assert seen[0, True][0] == list(range(64)) and seen[2, True][0] == list(range(0, 128, 2))


if __name__ == "__main__":
    app.run(main)
PYTHON
venv/bin/python load.py
