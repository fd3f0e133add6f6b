"""FCN-32s, the first stage of FCN-8s, on Pascal VOC 2012 from the folder of its development kit.

The variant "fcn16s" starts from a run of this config, and "fcn8s" from one of "fcn16s", as the paper's staged training
does. VGG-16 should itself start from ImageNet: `--config.borrow.vgg=RUN/vgg`.

Paper: Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015 (arXiv:1411.4038).
Command: python train.py --config=configs/fcn_voc.py --workdir=runs/fcn_voc
Result: not measured; the paper has a mean IoU of 0.594 (32s), 0.624 (16s) and 0.627 (8s) on its part of VOC 2011.
Time: 20,000 steps of 16 images; not measured.
"""

from cvjax.config import experiment, variant

SIZE = 500  # the longer side of most images
VGG = {"borrow": {"vgg": "runs/fcn_voc/vgg", "score32": "runs/fcn_voc/score32"}}
SCORES = {f"{name}": f"runs/fcn_voc_fcn16s/{name}" for name in ("vgg", "score32", "score16")}


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    square = dict(op="letterbox", size=(SIZE, SIZE))
    config = experiment(
        "segmentation.fcn",
        recipe=dict(
            shape=(SIZE, SIZE, 3),
            classes=21,
            stride=32,
            skip_scales=(1.0, 1.0),
            # Section 4.3, with 16 images in place of 20.
            optimiser=dict(name="sgd", learning_rate=1e-4, momentum=0.9, weight_decay=5e-4),
        ),
        data=dict(
            folder="VOC2012",
            class_maps={"class_map": dict(source="VOC2012/SegmentationClass", classes="voc")},
            eval_split="val",
            batch=16,
            eval_batch=8,
            workers=8,
            transforms=(square, dict(op="flip")),
            eval_transforms=(square,),
        ),
        steps=20_000,
        log_every=100,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=2000,
        expect={"mean_iou": (">=", 0.5)},
    )
    # Digits replace VOC, which has to be downloaded.
    smoke = {
        "steps": 4,
        "log_every": 1,
        "data.name": "digit_scenes/smoke",
        "data.folder": "",
        "data.eval_split": "test",
    }
    smoke |= {"data.class_maps.class_map.source": "class_map", "data.class_maps.class_map.classes": "digit_scenes"}
    smoke |= {"data.eval_split": "test", "data.workers": 0, "data.batch": 8}
    smoke |= {"data.transforms": (), "data.eval_transforms": ()}
    smoke |= {"recipe.shape": (64, 64, 3), "recipe.classes": 11, "recipe.depth": 11, "recipe.width": 2}
    smoke |= {"recipe.hidden": 8, "recipe.padding": 1}
    return variant(
        config,
        name,
        smoke=smoke,
        fcn16s={"recipe.stride": 16, **VGG},
        fcn8s={"recipe.stride": 8, "borrow": SCORES},
    )
