"""DeepLabv3+ with a ResNet-101 on Pascal VOC 2012 from the folder of its development kit.

The ResNet should start from ImageNet: `--config.borrow.resnet=RUN/classifier/resnet`. The variant "xception" has the
paper's best backbone.

Paper: Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, 2018
  (arXiv:1802.02611).
Command: python train.py --config=configs/deeplab_voc.py --workdir=runs/deeplab_voc
Result: not measured; the paper has a mean IoU of about 0.80 with a ResNet-101 trained on 10,582 images.
Time: 30,000 steps of 16 images; not measured.
"""

from cvjax.config import experiment, variant

SIZE = 513  # section 4


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "segmentation.deeplab",
        precision="bfloat16",
        recipe=dict(shape=(SIZE, SIZE, 3), classes=21),
        data=dict(
            folder="VOC2012",
            class_maps={"class_map": dict(source="VOC2012/SegmentationClass", classes="voc")},
            eval_split="val",
            batch=16,
            eval_batch=8,
            workers=8,
            transforms=(dict(op="random_scale_crop", size=SIZE), dict(op="flip")),
            eval_transforms=(dict(op="letterbox", size=(SIZE, SIZE)),),
        ),
        steps=30_000,
        log_every=100,
        eval_every=5000,
        figure_every=5000,
        checkpoint_every=5000,
        expect={"mean_iou": (">=", 0.6)},
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
    smoke |= {"precision": "float32", "recipe.shape": (64, 64, 3), "recipe.classes": 11, "recipe.backbone.depth": 18}
    smoke |= {"recipe.backbone.width": 4, "recipe.features": 8, "recipe.low_features": 4}
    smoke |= {"recipe.inference.scales": (1.0,), "recipe.inference.flip": False}
    xception = {"recipe.backbone.name": "xception", "recipe.separable": True}
    return variant(config, name, smoke=smoke, xception=xception)
