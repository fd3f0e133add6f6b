"""The features of a softmax on Fashion-MNIST, judged by retrieval among four classes that are held out.

`python -m cvjax.programs.hold_out --folder=/usr/share/datasets/fashion-mnist --classes=2,5,7,9 --output=fashion_unseen`
makes the folder, from the Debian package `dataset-fashion-mnist`: pullovers, sandals, sneakers and boots are held out.

Paper: Taigman, Yang, Ranzato & Wolf, DeepFace, 2014.
Command: python train.py --config=configs/softmax_fashion.py --workdir=runs/softmax_fashion
Result: not measured; the bars are guesses until it is trained.
Time: 5 minutes on two idle CPU cores, estimated.
"""

from cvjax.config import experiment, variant

STEPS = 1500


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.softmax_features",
        recipe=dict(
            shape=(28, 28, 1),
            classes=9,  # the largest number of training is 8; there is no picture of 2, 5 and 7
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
        data=dict(folder="fashion_unseen", unseen_classes=True, batch=64, eval_batch=400),
        steps=STEPS,
        log_every=50,
        eval_every=500,
        figure_every=STEPS,
        checkpoint_every=500,
        expect={"r_precision": (">=", 0.4)},
    )
    smoke = {"data.folder": "", "data.name": "fashion_mnist", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"steps": 4, "recipe.backbone.width": 4, "recipe.backbone.strides": (2, 2), "log_every": 1}
    smoke |= {"recipe.classes": 10}
    return variant(config, name, smoke=smoke)
