"""Embeddings of Fashion-MNIST by batch-hard triplets, judged by retrieval among four classes that are held out.

`python -m cvjax.programs.hold_out --folder=/usr/share/datasets/fashion-mnist --classes=2,5,7,9 --output=fashion_unseen`
makes the folder, from the Debian package `dataset-fashion-mnist`: pullovers, sandals, sneakers and boots are held out.

Paper: Schroff, Kalenichenko & Philbin, FaceNet, 2015 (arXiv:1503.03832).
Command: python train.py --config=configs/triplet_fashion.py --workdir=runs/triplet_fashion
Result: not measured; the bars are guesses until it is trained.
Time: 5 minutes on two idle CPU cores, estimated.
"""

from cvjax.config import experiment, variant

STEPS = 1500


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.triplet",
        recipe=dict(
            shape=(28, 28, 1),
            backbone=dict(depth=18, width=16, stem="small", strides=(2, 2, 2)),
            ema=0.99,
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-3,
                warmup=100,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(folder="fashion_unseen", unseen_classes=True, batch=64, per_class=16, eval_batch=400),
        steps=STEPS,
        log_every=50,
        eval_every=500,
        figure_every=STEPS,
        checkpoint_every=500,
        expect={"r_precision": (">=", 0.4)},
    )
    smoke = {"data.folder": "", "data.name": "fashion_mnist", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"steps": 4, "recipe.backbone.width": 4, "recipe.backbone.strides": (2, 2), "log_every": 1}
    smoke |= {"data.per_class": 4}
    return variant(config, name, smoke=smoke)
