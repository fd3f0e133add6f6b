"""A narrow ResNet of three stages for single digits that may be anywhere on a photograph; attribution_scenes looks inside.

It is trained with classes alone and told no places; Grad-CAM then has to find the digits.

Paper: He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385).
Command: python train.py --config=configs/located_digits.py --workdir=runs/located_digits
Result: not measured.
Time: 10 minutes on two CPU cores.
"""

from cvjax.config import experiment, variant

STEPS = 1000


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
            strides=(2, 2, 2),  # so that the last features are 8x8
            label_smoothing=0.1,
            ema=0.99,
            optimiser=dict(
                name="sgd",
                learning_rate=0.1,
                momentum=0.9,
                nesterov=True,
                weight_decay=5e-4,
                warmup=100,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(
            name="digit_crops/64",
            batch=64,
            eval_batch=400,
            # No flip: most mirrored digits are not digits.
            transforms=(dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=500,
        figure_every=500,
        checkpoint_every=500,
        expect={"top1": (">=", 0.8)},
    )
    smoke = {"steps": 4, "recipe.shape": (32, 32, 3), "recipe.width": 4, "recipe.strides": (2, 2), "log_every": 1}
    smoke |= {"data.name": "digit_crops/smoke", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
