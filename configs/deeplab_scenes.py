"""DeepLabv3+ with a small ResNet-18 on scenes of real digits, upright and side by side.

Strides and rates are those for scenes of 64 pixels: low-level features at every second pixel, the pyramid at every
eighth. The variant "no_decoder" upsamples the scores of the pyramid, "no_atrous" ends the ResNet at stride 16.

Paper: Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, 2018
  (arXiv:1802.02611).
Command: python train.py --config=configs/deeplab_scenes.py --workdir=runs/deeplab_scenes
Result: mean IoU 0.829 to 0.838 on the 1,000 held-out scenes, boundary F 0.824 to 0.843 (seeds 4021, 7121 and 9101);
  0.548 and 0.557 without the decoder, 0.802 and 0.781 at stride 16 (seed 4021).
Time: 24 minutes on one CPU core; 0.45 CPU seconds per step.
"""

from cvjax.config import experiment, variant

STEPS = 3000
CLASSES = ("background", *"0123456789")


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "segmentation.deeplab",
        recipe=dict(
            shape=(64, 64, 3),
            classes=CLASSES,
            backbone=dict(depth=18, stem="small", strides=(2, 2, 2, 2), width=16),
            output_stride=8,
            rates=(1, 2, 3),
            features=48,
            low_features=16,
            momentum=0.9,  # the paper's 0.9997 is for ten times as many steps
            epsilon=1e-5,
            inference=dict(scales=(1.0,), flip=False),
            loss=dict(cross_entropy=1.0, dice=1.0),  # nine tenths of the pixels are background
            ema=0.99,
            # The paper starts from an ImageNet classifier.
            optimiser=dict(
                name="adamw",
                learning_rate=3e-3,
                weight_decay=1e-3,
                warmup=100,
                clip=10.0,
                schedule=dict(name="polynomial_schedule", end_value=0.0, power=0.9, transition_steps=STEPS - 100),
            ),
        ),
        data=dict(
            name="digit_scenes/plain_64",
            class_maps={"class_map": "class_map"},
            batch=16,
            eval_batch=128,
            transforms=(dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=500,
        expect={"mean_iou": (">=", 0.822)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {
        "recipe.backbone.strides": (2, 2),
        "recipe.output_stride": 2,
        "recipe.backbone.width": 4,
        "recipe.features": 8,
        "recipe.low_features": 4,
    }
    variants = {"no_decoder": {"recipe.decoder": False}, "no_atrous": {"recipe.output_stride": 16}}
    return variant(config, name, smoke=smoke, **variants)
