"""Maps of any classifier by the name of their method, at the size of the image and nowhere negative.

The classifiers are Linen modules that return logits, or (logits, activations). Grad-CAM's default layer is the last
that has an extent: Selvaraju et al., 2017 (arXiv:1610.02391), section 3.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from cvjax.core import Variables
from cvjax.errors import UserError, suggest
from cvjax.interpret import gradcam, saliency
from cvjax.nets.borrowed import logits_of
from cvjax.nets.capture import EVERY

Images = Float[Array, "batch height width channels"]
Labels = Integer[Array, " batch"]
Maps = Float[Array, "batch height width"]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier and its variables."""

    module: nn.Module
    variables: Variables

    def logits(self, images: Images) -> Float[Array, "batch classes"]:
        """Returns the logits of images."""
        return logits_of(self.module, self.variables, images)

    def activations(self, images: Images) -> tuple[Float[Array, "batch classes"], dict[str, Float[Array, "batch ..."]]]:
        """Returns (logits, {layer: activation}), with all that the module can capture."""
        output = capturing(self.module).apply(self.variables, images)
        return output if isinstance(output, tuple) else (output, {})


def capturing(module: nn.Module) -> nn.Module:
    """Returns the module with all its activations captured, if it has an attribute `capture`."""
    fields = {field.name for field in dataclasses.fields(module)}
    return module.clone(capture=EVERY) if "capture" in fields else module


def layers(module: nn.Module, variables: Variables, images: Images) -> list[str]:
    """Returns the layers that Grad-CAM can explain, in their order: activations of more than one position."""
    shapes = {}

    def record(variables: Variables, images: Images) -> None:  # a dict that eval_shape returned would be sorted by name
        _, activations = Classifier(module, variables).activations(images)
        shapes.update({name: value.shape for name, value in activations.items()})

    jax.eval_shape(record, variables, images)
    return [name for name, shape in shapes.items() if len(shape) == 4 and min(shape[1:3]) > 1]


def find_layer(module: nn.Module, variables: Variables, images: Images, layer: str = "") -> str:
    """Returns a layer that Grad-CAM can explain, by default the last; raises a UserError if there is none such."""
    known = layers(module, variables, images)
    if not known:
        raise UserError(
            f"Grad-CAM explains a layer's activation [batch, rows, columns, features]; {type(module).__name__} returns "
            "none beside its logits. Give it an attribute `capture`, as cvjax.nets.vgg.VGG has."
        )
    if layer and layer not in known:
        raise UserError(f"{type(module).__name__} has no layer {layer!r}. {suggest(layer, known)}")
    return layer or known[-1]


def explain(
    key: Key[Array, ""], method: str, classifier: Classifier, images: Images, labels: Labels, **options: Any
) -> Maps:
    """Returns maps of what the logits of labels depend on, at the size of the images.

    Of attributions with channels, a pixel's is the largest absolute value. The arguments are those of `attribute`.
    """
    return strength(attribute(key, method, classifier, images, labels, **options))


def attribute(
    key: Key[Array, ""], method: str, classifier: Classifier, images: Images, labels: Labels, **options: Any
) -> Images | Maps:
    """Returns what a method finds, which may be negative, by channel or by pixel.

    Raises a UserError for an unknown method.

    Args:
      key: for methods that add noise.
      method: of `METHODS`.
      options: further arguments of the method's function, such as `layer` of Grad-CAM.
    """
    if method not in METHODS:
        raise UserError(f"there is no method {method!r}. {suggest(method, METHODS)}")
    return METHODS[method](key, classifier, images, labels, **options)


def strength(found: Images | Maps) -> Maps:
    """Returns maps that are nowhere negative: of channels, the largest absolute value; of pixels, what is positive."""
    return jnp.abs(found).max(axis=-1) if found.ndim == 4 else jnp.maximum(found, 0)


def with_sign(found: Images | Maps) -> Maps:
    """Returns the sum of a pixel's channels, which says for or against the class."""
    return found.sum(axis=-1) if found.ndim == 4 else found


def _gradcam(key: Key[Array, ""], classifier: Classifier, images: Images, labels: Labels, layer: str = "") -> Maps:
    layer = find_layer(classifier.module, classifier.variables, images, layer)
    return gradcam.enlarge(gradcam.gradcam(classifier.activations, images, labels, layer), *images.shape[1:3])


def _by_logits(function: Callable[..., Images | Maps]) -> Callable[..., Images | Maps]:
    return lambda key, classifier, images, labels, **options: function(classifier.logits, images, labels, **options)


def _smoothgrad(key: Key[Array, ""], classifier: Classifier, images: Images, labels: Labels, **options: Any) -> Images:
    return saliency.smoothgrad(key, classifier.logits, images, labels, **options)


METHODS: dict[str, Callable[..., Images | Maps]] = {
    "gradcam": _gradcam,
    "saliency": _by_logits(saliency.gradient),
    "input_x_gradient": _by_logits(saliency.input_x_gradient),
    "guided": _by_logits(saliency.guided_backpropagation),
    "deconvnet": _by_logits(saliency.deconvolution),
    "smoothgrad": _smoothgrad,
    "integrated": _by_logits(saliency.integrated_gradients),
    "occlusion": _by_logits(saliency.occlusion),
}


def randomise(
    key: Key[Array, ""], classifier: Classifier, images: Images, modules: Sequence[str] | None = None
) -> Classifier:
    """Returns a classifier some of whose modules have their initial random variables again, or all of them.

    A map that explains the classifier changes with it: Adebayo et al., Sanity Checks for Saliency Maps, 2018
    (arXiv:1810.03292), section 3.

    Args:
      images: of the shape that the classifier takes.
      modules: names of the modules at the top of the network; None: all. A UserError tells of an unknown one.
    """
    known = {name for tree in classifier.variables.values() for name in tree}
    for name in modules or ():
        if name not in known:
            raise UserError(f"{type(classifier.module).__name__} has no module {name!r}. {suggest(name, known)}")
    fresh = classifier.module.init(key, images)
    mixed = {
        kind: {name: fresh[kind][name] if modules is None or name in modules else old for name, old in tree.items()}
        for kind, tree in classifier.variables.items()
    }
    return Classifier(classifier.module, mixed)


def edges(images: Images) -> Maps:
    """Returns the length of Sobel's gradient of the grey image: a map that knows nothing of the classifier.

    It is a control of Adebayo et al., 2018 (arXiv:1810.03292), section 5.
    """
    grey = jnp.pad(images.mean(axis=-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth, slope = jnp.array([1.0, 2, 1]), jnp.array([-1.0, 0, 1])
    height, width = images.shape[1:3]

    def filtered(rows: Array, columns: Array) -> Maps:
        taps = [(y, x, rows[y] * columns[x]) for y, x in np.ndindex(3, 3)]
        return sum(tap * grey[:, y : y + height, x : x + width] for y, x, tap in taps)

    return jnp.hypot(filtered(smooth, slope), filtered(slope, smooth))
