"""Distances of pixels of Fashion-MNIST, judged by retrieval among four classes that are held out.

`python -m cvjax.programs.hold_out --folder=/usr/share/datasets/fashion-mnist --classes=2,5,7,9 --output=fashion_unseen`
makes the folder, from the Debian package `dataset-fashion-mnist`: pullovers, sandals, sneakers and boots are held out.

Paper: Musgrave, Belongie & Lim, A Metric Learning Reality Check, 2020 (arXiv:2003.08505), for R-precision.
Command: python train.py --config=configs/pixels_fashion.py --workdir=runs/pixels_fashion
Result: not measured; the bars are guesses until it is trained.
Time: 1 minute on two CPU cores, estimated.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.pixel_distance",
        recipe=dict(
            shape=(28, 28, 1),
        ),
        data=dict(folder="fashion_unseen", unseen_classes=True, batch=8, eval_batch=400),
        steps=0,
        expect={"r_precision": (">=", 0.3)},
    )
    smoke = {"data.folder": "", "data.name": "fashion_mnist", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
