"""ResNet-18 on a folder of one's own pictures that has a sub-folder for each class.

`--config.data.folder=FOLDER --config.recipe.classes=N` name the folder and the number of its classes. The run's network
is another run's start or target: `--config.borrow.resnet=runs/own_classes/classifier/resnet` for a detector.

Paper: He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385).
Command: python train.py --config=configs/own_classes.py --workdir=runs/own_classes
Result: not measured; it depends on the folder.
Time: 5,000 steps; not measured.
"""

from cvjax.config import experiment, variant

STEPS = 5000


def _transforms(size: int, train: bool) -> tuple:
    """Crops, mirrors and recolours at random for training, and crops at the centre for evaluation."""
    if train:
        jitter = dict(op="color_jitter", brightness=0.2, contrast=0.3, saturation=0.3)
        return (dict(op="random_resized_crop", size=size), dict(op="flip"), jitter)
    return (dict(op="resize", size=size * 8 // 7, shorter=True), dict(op="center_crop", size=size))


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.image_classifier",
        recipe=dict(
            shape=(128, 128, 3),
            classes=10,
            depth=18,
            width=32,
            label_smoothing=0.1,
            ema=0.998,
            optimiser=dict(
                name="sgd",
                learning_rate=0.05,
                momentum=0.9,
                nesterov=True,
                weight_decay=5e-4,
                warmup=200,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 200),
            ),
        ),
        data=dict(
            batch=64,
            eval_batch=64,
            transforms=_transforms(128, train=True),
            eval_transforms=_transforms(128, train=False),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=500,
        figure_every=500,
        checkpoint_every=500,
        checkpoint_best="top1",
        expect={"top1": (">=", 0)},
    )
    # Digits replace one's own pictures.
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_crops/smoke", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.shape": (28, 28, 3), "recipe.width": 2, "recipe.strides": (1, 2)}
    smoke |= {"data.transforms": _transforms(28, train=True), "data.eval_transforms": _transforms(28, train=False)}
    return variant(config, name, smoke=smoke)
