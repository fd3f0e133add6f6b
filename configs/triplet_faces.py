"""Embeddings of drawn faces by triplets, judged on people that training never had.

The first 1,500 of the 4,000 steps take semi-hard triplets, the others batch-hard ones; `:hardest` begins so too, since
from a network that knows nothing the hardest lead to one answer for everything. `:random` and `:semi_hard` choose their
triplets of the same batches from the first step.

Paper: Schroff, Kalenichenko & Philbin, FaceNet, 2015 (arXiv:1503.03832).
Command: python train.py --config=configs/triplet_faces.py --workdir=runs/triplet_faces
Result: 0.983 of pairs by ten folds, and rank-1 0.861 of 100 people with one picture each (seed 9601), where pixels have
  0.596 and 0.059. Without the mirror images it is 0.980 and 0.839; semi-hard triplets alone had reached 0.972 and
  0.756 after 1,000 steps of the 1,500. What is confused are bald and grey-haired people of one colour.
Time: 13 CPU minutes, evaluations included.
"""

from cvjax.config import experiment, variant

STEPS = 4000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.triplet",
        recipe=dict(
            shape=(64, 64, 3),
            easy_steps=STEPS * 3 // 8,
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
        expect={"verification": (">=", 0.96), "rank1": (">=", 0.85)},
    )
    smoke = {"steps": 4, "recipe.backbone.width": 4, "log_every": 1}
    smoke |= {"data.name": "drawn_faces/64_20x6", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.backbone.strides": (1, 2), "checkpoint_best": ""}
    return variant(
        config,
        name,
        smoke=smoke,
        random={"recipe.choice": "random", "recipe.easy_steps": 0},
        semi_hard={"recipe.choice": "semi_hard", "recipe.easy_steps": 0},
        hardest={"recipe.choice": "hardest"},
    )
