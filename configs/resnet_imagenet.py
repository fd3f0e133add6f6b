"""ResNet-50 on ImageNet: 90 epochs with label smoothing and a cosine schedule.

RetinaNet starts from this backbone with `--config.borrow.resnet=runs/resnet_imagenet/classifier/resnet`.

Paper: He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385); the warm-up and
  learning rate for batches of 256 are those of Goyal et al., 2017 (arXiv:1706.02677).
Command: python train.py --config=configs/resnet_imagenet.py --workdir=runs/resnet_imagenet
Result: not measured; its smoke steps are tested on digits.
  Goyal et al. reach a top-1 accuracy of 0.764, and torchvision's published weights 0.761.
Time: 90 epochs of 5,004 steps; not measured.
"""

from cvjax.config import experiment, variant

EPOCH = 1_281_167 // 256


def _transforms(size: int, train: bool) -> tuple:
    """Crops at random for training and at the centre for evaluation."""
    if train:
        jitter = dict(op="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4)
        return (dict(op="random_resized_crop", size=size), dict(op="flip"), jitter)
    return (dict(op="resize", size=size * 8 // 7, shorter=True), dict(op="center_crop", size=size))


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.image_classifier",
        precision="bfloat16",
        recipe=dict(
            shape=(224, 224, 3),
            classes=1000,
            label_smoothing=0.1,
            optimiser=dict(
                name="sgd",
                learning_rate=0.1,
                momentum=0.9,
                nesterov=True,
                weight_decay=1e-4,
                warmup=5 * EPOCH,
                schedule=dict(name="cosine_decay_schedule", decay_steps=85 * EPOCH),
            ),
        ),
        data=dict(
            name="imagenet2012",
            eval_split="validation",
            batch=256,
            eval_batch=256,
            workers=16,
            transforms=_transforms(224, train=True),
            eval_transforms=_transforms(224, train=False),
        ),
        steps=90 * EPOCH,
        log_every=100,
        eval_every=EPOCH,
        figure_every=EPOCH,
        checkpoint_every=EPOCH,
        checkpoint_best="top1",
        expect={"top1": (">=", 0.755)},
    )
    # Digits replace ImageNet, for which TFDS needs TensorFlow.
    smoke = {"data.name": "digit_crops/smoke", "data.eval_split": "test", "recipe.classes": 10}
    smoke |= {"steps": 4, "log_every": 1, "data.batch": 8, "data.eval_batch": 8, "data.workers": 0}
    smoke |= {"recipe.shape": (28, 28, 3), "recipe.depth": 18, "recipe.width": 2}
    smoke |= {"data.transforms": _transforms(28, train=True), "data.eval_transforms": _transforms(28, train=False)}
    return variant(config, name, smoke=smoke)
