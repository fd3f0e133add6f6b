"""Embeddings of one's own people, by batch-hard triplets, from a folder that has a sub-folder for each person.

`--config.data.folder=FOLDER` names it; a tenth of the people are held out, at least two, unless it has the folders
train/ and test/, with different people. Verification, and rank-1 with one picture each of up to 100 people, take 20
people held out who have two pictures: 200 in all, or 20 in test/. Of fewer there are figures of retrieval alone.
Labeled Faces in the Wild is such a folder. Pictures should show one face each, in the middle.

Paper: Schroff, Kalenichenko & Philbin, FaceNet, 2015 (arXiv:1503.03832).
Command: python train.py --config=configs/own_people.py --workdir=runs/own_people
Result: not measured; it depends on the folder.
Time: 20,000 steps; an hour on a GPU, a day on two CPU cores, estimated.
"""

from cvjax.config import experiment, variant

STEPS = 20_000


def _transforms(size: int, train: bool) -> tuple:
    """Crops, mirrors and recolours at random for training, and crops at the centre for evaluation."""
    if train:
        jitter = dict(op="color_jitter", brightness=0.2, contrast=0.3, saturation=0.3)
        return (dict(op="random_resized_crop", size=size, scale=(0.6, 1.0)), dict(op="flip"), jitter)
    return (dict(op="resize", size=size * 8 // 7, shorter=True), dict(op="center_crop", size=size))


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.triplet",
        recipe=dict(
            shape=(112, 112, 3),
            backbone=dict(depth=18, width=32),
            ema=0.998,
            flip_test=True,
            optimiser=dict(
                name="adamw",
                learning_rate=1e-3,
                weight_decay=1e-3,
                warmup=500,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 500),
            ),
        ),
        data=dict(
            batch=64,
            per_class=4,
            eval_batch=64,
            unseen_classes=True,
            transforms=_transforms(112, train=True),
            eval_transforms=_transforms(112, train=False),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        expect={"recall_at_1": (">=", 0)},
    )
    # Drawn faces replace one's own people.
    smoke = {"steps": 4, "log_every": 1, "data.name": "drawn_faces/smoke", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.shape": (32, 32, 3), "recipe.backbone.width": 4, "recipe.backbone.strides": (1, 2)}
    smoke |= {"data.transforms": _transforms(32, train=True), "data.eval_transforms": _transforms(32, train=False)}
    return variant(config, name, smoke=smoke)
