"""pix2pix of outlines into shapes that are filled with random colours: a question with several right answers.

L1 alone answers with the median of the colours, which is grey; beside a discriminator the pictures keep the saturation
of the training pictures, if not one colour for each shape: a discriminator of patches does not ask for one. The variant
`l1` trains without a discriminator.

The generator doubles by nearest neighbours and convolutions. With transposed convolutions, the variant `transposed`,
its pictures have checkerboards: .29 % of their power is at half a cycle a pixel, where these have .05 % and the truth
has .09 %.

Paper: Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017 (arXiv:1611.07004).
Command: python train.py --config=configs/pix2pix_edges.py --workdir=runs/pix2pix_edges
Result: saturation distance 2.5 (seed 0). By transposed convolutions 2.8 (seeds 0 and 9301), and `l1` of those 14.1
  (seed 9301).
Time: 1,500 steps; 140 CPU seconds with compilation, on two cores that other programs shared.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "translation.pix2pix",
        recipe=dict(
            depth=5,
            width=32,
            resize=True,
            field=34,  # of 16, 34 and 70, the first that sees all of a scene
            discriminator_width=32,
            l1=10.0,  # the paper's 100 had 13.0 (600 steps, field 16), L1 alone 14.1: nearly as grey
        ),
        data=dict(name="shapes/edges", images={"target": "target"}, batch=8, eval_batch=40),
        steps=1500,
        log_every=50,
        figure_every=500,
        checkpoint_every=500,
        expect={"saturation_distance": ("<", 7)},  # half of what L1 alone has
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "shapes/smoke_edges", "data.eval_batch": 8}
    smoke |= {"recipe.width": 4, "recipe.discriminator_width": 4}
    return variant(config, name, smoke=smoke, l1={"recipe.adversarial": 0.0}, transposed={"recipe.resize": False})
