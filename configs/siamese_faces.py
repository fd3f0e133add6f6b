"""A siamese network with a logistic unit on drawn faces, judged on people that training never had.

`:contrastive` compares distances with a margin instead.

Paper: Taigman, Yang, Ranzato & Wolf, DeepFace, 2014; Koch, Zemel & Salakhutdinov, Siamese Neural Networks for
  One-shot Image Recognition, 2015; Hadsell, Chopra & LeCun, Dimensionality Reduction by Learning an Invariant Mapping,
  2006.
Command: python train.py --config=configs/siamese_faces.py --workdir=runs/siamese_faces
Result: 0.971 of pairs by ten folds, by the logistic unit as by distances, and rank-1 0.738 of 100 people (seed 9601).
Time: 13 CPU minutes.
"""

from cvjax.config import experiment, variant

STEPS = 4000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.siamese",
        recipe=dict(
            shape=(64, 64, 3),
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
        data=dict(name="drawn_faces", batch=128, per_class=4, eval_batch=400),
        steps=STEPS,
        log_every=50,
        eval_every=1000,
        figure_every=2000,
        checkpoint_every=1000,
        checkpoint_best="verification",
        expect={"verification": (">=", 0.92), "rank1": (">=", 0.6)},
    )
    smoke = {"steps": 4, "recipe.backbone.width": 4, "log_every": 1}
    smoke |= {"data.name": "drawn_faces/64_20x6", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.backbone.strides": (1, 2), "checkpoint_best": ""}
    return variant(config, name, smoke=smoke, contrastive={"recipe.loss": "contrastive"})
