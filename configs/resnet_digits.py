"""A narrow ResNet-18 for single digits on crops of photographs; RetinaNet can start from it.

`--config=configs/retinanet_scenes.py:pretrained` borrows its backbone.

Paper: He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385).
Command: python train.py --config=configs/resnet_digits.py --workdir=runs/resnet_digits
Result: top-1 0.965 on the held-out crops (seed 2028).
Time: 0.35 CPU seconds per step; 4 minutes on two idle CPU cores.
"""

from cvjax.config import experiment, variant

STEPS = 1200


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.image_classifier",
        recipe=dict(
            shape=(32, 32, 3),
            classes=10,
            # The backbone of configs/retinanet_scenes.py.
            depth=18,
            width=16,
            stem="small",
            strides=(2, 2, 2, 2),
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
            name="digit_crops",
            batch=64,
            eval_batch=400,
            # No flip: most mirrored digits are not digits.
            transforms=(dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=400,
        figure_every=400,
        checkpoint_every=400,
        checkpoint_best="top1",
        expect={"top1": (">=", 0.9)},
    )
    smoke = {"steps": 4, "recipe.width": 4, "recipe.strides": (2, 2), "log_every": 1}
    smoke |= {"data.name": "digit_crops/smoke", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
