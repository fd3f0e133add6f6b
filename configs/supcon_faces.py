"""Embeddings of drawn faces by supervised contrast, judged on people that training never had.

Paper: Khosla et al., Supervised Contrastive Learning, 2020 (arXiv:2004.11362).
Command: python train.py --config=configs/supcon_faces.py --workdir=runs/supcon_faces
Result: not measured; the bars are guesses until it is trained.
Time: 15 minutes on two idle CPU cores, estimated.
"""

from cvjax.config import experiment, variant

STEPS = 4000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.supcon",
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
        expect={"verification": (">=", 0.96), "rank1": (">=", 0.85)},
    )
    smoke = {"steps": 4, "recipe.backbone.width": 4, "log_every": 1}
    smoke |= {"data.name": "drawn_faces/64_20x6", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.backbone.strides": (1, 2), "checkpoint_best": ""}
    return variant(config, name, smoke=smoke)
