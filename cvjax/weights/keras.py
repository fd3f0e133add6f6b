"""Names of the arrays in an .npz of a Keras model: Xception-65 of DeepLabv3+, with layers named as in Google's graph.

    np.savez("xception.npz", **{weight.path: weight.numpy() for weight in model.weights})

writes one in Keras 3; in Keras 2, where a weight's name ends with ":0", take `weight.name`.
"""

from collections.abc import Iterable

from cvjax.weights.layouts import ArrayPath, Layout, Tensors, from_keras, keras_shapes

NORM = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


def name_xception(paths: Iterable[ArrayPath]) -> dict[ArrayPath, str | None]:
    """Returns {path: name} for the paths of all arrays of `Xception`, or of a network that has one as `xception`."""
    return {path: _name(path) for path in paths}


def _name(path: ArrayPath) -> str | None:
    modules = path[2:-1] if path[1] == "xception" else path[1:-1]
    layer, leaf = "_".join(modules), path[-1]
    if not layer.startswith(("entry_flow", "middle_flow", "exit_flow")):
        return None
    if layer.endswith("_norm"):
        return f"{layer.removesuffix('_norm')}_BN/{NORM[leaf]}"
    return f"{layer}/{'depthwise_kernel' if modules[-1] == 'depthwise' else leaf}"


def normalise(tensors: Tensors) -> Tensors:
    """Returns the arrays under names of the form `layer/weight`, as Keras 2 has them without ":0" and repeated layers.

    A depthwise convolution's weight, `depthwise_kernel` in Keras 2, is a `kernel` in Keras 3.
    """
    names = {name: "/".join(name.removesuffix(":0").split("/")[-2:]) for name in tensors}
    return {names[name].replace("_depthwise/kernel", "_depthwise/depthwise_kernel"): tensors[name] for name in tensors}


SIGN = "entry_flow_conv1_1/kernel"  # an array that every such file has
XCEPTION = Layout(
    "Keras's Xception",
    name_xception,
    keras_shapes,
    from_keras,
    # of DeepLabv3+ around it
    parts=("image_pooling", "aspp", "concat_projection", "decoder", "feature_projection", "logits", "custom_logits"),
)
