"""A softmax over known drawn faces, judged by its features on people that training never had.

`called_known` is the share of these people's pictures that get a known name with a probability above one half. When
somebody new joins, a softmax has to be trained again; embeddings do not.

Paper: Taigman, Yang, Ranzato & Wolf, DeepFace, 2014.
Command: python train.py --config=configs/softmax_faces.py --workdir=runs/softmax_faces
Result: not measured; the bars are guesses until it is trained.
Time: 15 minutes on two idle CPU cores, estimated.
"""

from cvjax.config import experiment, variant

STEPS = 4000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.softmax_features",
        recipe=dict(
            shape=(64, 64, 3),
            classes=2000,  # of which training has 1,600
            backbone=dict(depth=18, width=16),
            ema=0.99,
            flip_test=True,
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-3,
                warmup=100,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(name="drawn_faces", batch=128, eval_batch=400),
        steps=STEPS,
        log_every=50,
        eval_every=1000,
        figure_every=2000,
        checkpoint_every=1000,
        checkpoint_best="verification",
        expect={"verification": (">=", 0.9)},
    )
    smoke = {"steps": 4, "recipe.backbone.width": 4, "log_every": 1}
    smoke |= {"data.name": "drawn_faces/64_20x6", "data.batch": 16, "data.eval_batch": 16, "recipe.classes": 20}
    smoke |= {"recipe.backbone.strides": (1, 2), "checkpoint_best": ""}
    return variant(config, name, smoke=smoke)
