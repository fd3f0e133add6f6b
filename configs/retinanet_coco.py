"""RetinaNet on COCO 2017: ResNet-50 and a feature pyramid, as in the paper but from scratch.

The paper resizes an image's shorter side to 800 pixels. Shapes are static here: images are padded to 1024 x 1024,
about the same number of pixels. From scratch, training takes several times as long (He et al., arXiv:1811.08883);
`--config.borrow.resnet=RUN/classifier/resnet` starts from a classifier's backbone.

Paper: Lin, Goyal, Girshick, He & Dollár, Focal Loss for Dense Object Detection, 2017 (arXiv:1708.02002).
Command: python train.py --config=configs/retinanet_coco.py --workdir=runs/retinanet_coco
Result: not measured; its smoke steps are tested on digits. The paper: AP 35.7 at 800 pixels, pretrained on ImageNet.
Time: 73 epochs of 7,329 steps; not measured.
"""

from cvjax.config import experiment, variant

CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed"),
    *("dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven"),
    *("toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
EPOCH = 117_266 // 16


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    square = dict(op="letterbox", size=(1024, 1024))
    steps = 73 * EPOCH
    drops = {str(round(steps * share)): 0.1 for share in (2 / 3, 8 / 9)}
    config = experiment(
        "detection.retinanet",
        precision="bfloat16",
        recipe=dict(
            shape=(1024, 1024, 3),
            classes=CLASSES,
            optimiser=dict(
                name="sgd",
                learning_rate=1e-2,
                momentum=0.9,
                weight_decay=1e-4,
                warmup=500,
                schedule=dict(name="piecewise_constant_schedule", boundaries_and_scales=drops),
            ),
        ),
        data=dict(
            name="coco/2017",
            eval_split="validation",
            max_boxes=100,
            batch=16,
            eval_batch=16,
            workers=16,
            transforms=(square, dict(op="flip")),
            eval_transforms=(square,),
        ),
        steps=steps,
        log_every=100,
        eval_every=6 * EPOCH,
        figure_every=EPOCH,
        checkpoint_every=EPOCH,
        checkpoint_best="ap",
        expect={"ap": (">=", 0.33)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.batch": 8, "data.eval_batch": 8, "data.workers": 0}
    # Digits replace COCO, for which TFDS needs TensorFlow.
    digits = tuple("0123456789")
    smoke |= {"data.name": "digit_scenes/smoke", "data.eval_split": "test", "recipe.classes": digits}
    smoke |= {
        "recipe.shape": (64, 64, 3),
        "recipe.depth": 18,
        "recipe.width": 2,
        "recipe.channels": 8,
        "recipe.subnet_depth": 1,
    }
    smoke |= {"data.transforms": (dict(op="flip"),), "data.eval_transforms": ()}
    return variant(config, name, smoke=smoke)
