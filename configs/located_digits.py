"""The narrow ResNet of configs/resnet_digits.py, trained on for digits that may be anywhere on a photograph.

It learns from classes alone, without places: configs/attribution_scenes.py looks whether Grad-CAM finds the digits. The
last stage keeps its resolution, so that the last features are 8x8; it has the same weights.

Paper: He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385).
Command: python train.py --config=configs/located_digits.py --workdir=runs/located_digits
Result: top-1 0.953 on the held-out crops (seed 11, after a run of configs/resnet_digits.py of seed 41, with 0.956).
Time: 14 minutes on two CPU cores that other programs shared, at 0.2 to 1.0 steps per second; after
  configs/resnet_digits.py.
"""

from cvjax.config import experiment, variant

STEPS = 300


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.image_classifier",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            depth=18,
            width=16,
            stem="small",
            strides=(2, 2, 2, 1),
            label_smoothing=0.1,
            ema=0.97,
            optimiser=dict(
                name="sgd",
                learning_rate=0.03,
                momentum=0.9,
                nesterov=True,
                weight_decay=5e-4,
                warmup=30,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 30),
            ),
        ),
        borrow=dict(classifier="runs/resnet_digits/classifier"),
        data=dict(
            name="digit_crops/64",
            batch=32,
            eval_batch=400,
            # No flip: most mirrored digits are not digits.
            transforms=(dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=STEPS,
        figure_every=STEPS,
        checkpoint_every=100,
        expect={"top1": (">=", 0.9)},
    )
    smoke = {"steps": 4, "recipe.width": 4, "recipe.strides": (2, 2), "log_every": 1}
    smoke |= {"data.name": "digit_crops/smoke_64", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
