"""The distance of pixels between drawn faces, as a baseline of verification: nothing is trained.

Paper: Huang, Ramesh, Berg & Learned-Miller, Labeled Faces in the Wild, 2007, for the protocol.
Command: python train.py --config=configs/pixels_faces.py --workdir=runs/pixels_faces
Result: 0.596 of pairs by ten folds, AUC 0.609, rank-1 0.059 of 100 people (seed 9601): light, pose and background
  decide, not the person.
Time: 1 minute, with drawing the faces, on two CPU cores.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.pixel_distance",
        recipe=dict(shape=(64, 64, 3)),
        data=dict(name="drawn_faces", batch=8, eval_batch=400),
        steps=0,
        expect={"verification": ("<", 0.75)},  # else the faces would be too easy
    )
    smoke = {"data.name": "drawn_faces/64_20x6", "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
