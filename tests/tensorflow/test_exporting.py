"""Exported functions consist of TensorFlow's own operations, whatever the settings are."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from helpers_exported import run_litert  # noqa: E402

import lcmulti  # noqa: E402
from lcmulti import plugins  # noqa: E402

pytestmark = [pytest.mark.tensorflow, pytest.mark.sampled]

SPEC = lcmulti.LocalConvSpec((9, 8, 3), 4, (3, 2), data_format="channels_last")
# Operations of `blocked` and of the native kernels, which LiteRT and ONNX do not have.
IN_LOOPS = {"Empty", "InplaceUpdate", "InplaceAdd", "StatelessWhile", "While", "LcmultiNative"}


class Layer(tf.Module):
    def __init__(self, implementation):
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.standard_normal(SPEC.kernel_shape, np.float32))
        signature = [tf.TensorSpec((None, *SPEC.input_shape))]

        def call(x):
            return lcmulti.local_conv(x, self.kernel, implementation=implementation)

        self.call = tf.function(call, input_signature=signature)


def operations(folder):
    """Return the names of all operations in a SavedModel and its functions."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return operations_of(saved.meta_graphs[0].graph_def)


def operations_of(graph):
    """Return the names of all operations in a graph and its functions."""
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("implementation", ["auto", "blocked"])
def test_a_saved_model_and_litert_need_nothing_of_ours(implementation, tmp_path):
    """Export ignores a named or configured implementation and the limit of the workspace."""
    layer = Layer(implementation)
    with lcmulti.config(implementation="blocked", max_workspace="64KiB"):
        tf.saved_model.save(layer, str(tmp_path), signatures=layer.call)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        written = converter.convert()
    assert not IN_LOOPS & operations(tmp_path)
    x = np.random.default_rng(1).standard_normal((2, *SPEC.input_shape), np.float32)
    expected = lcmulti.local_conv(x, layer.kernel.numpy(), backend="numpy")
    np.testing.assert_allclose(run_litert(written, x), expected, rtol=1e-4, atol=1e-4)


def test_a_call_that_is_not_exported_is_blocked_still():
    """The check above can fail: the same function, called and not exported, has the loop."""
    layer = Layer("blocked")
    layer.call(tf.ones((1, *SPEC.input_shape)))
    traced = layer.call.get_concrete_function()
    assert IN_LOOPS & operations_of(traced.graph.as_graph_def())


def test_a_concrete_function_may_be_handed_to_an_exporter():
    traced = Layer("blocked").call.get_concrete_function()
    assert not IN_LOOPS & operations_of(traced.graph.as_graph_def())


def test_a_pipeline_of_data_computes_here():
    """`tf.data` makes concrete functions, too, which nobody exports."""
    from lcmulti_tensorflow.exporting import is_exporting

    seen = []
    tf.data.Dataset.range(2).map(lambda x: seen.append(is_exporting()) or x)
    assert set(seen) == {False}


class DeepFace(tf.Module):
    """The fifth and sixth layer of DeepFace. Patches of 1,024 samples would take 2 GB."""

    SHAPES = ((25, 25, 7, 7, 16, 16), (25, 25, 16), (21, 21, 5, 5, 16, 16), (21, 21, 16))
    INPUT = (55, 55, 16)

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.made = [
            tf.Variable(rng.standard_normal(shape, np.float32) / 20) for shape in self.SHAPES
        ]
        self.call = tf.function(self.apply, input_signature=[tf.TensorSpec((None, *self.INPUT))])

    def apply(self, x):
        kernel5, bias5, kernel6, bias6 = self.made
        x = tf.nn.relu(lcmulti.local_conv(x, kernel5, bias5, strides=2))
        return lcmulti.local_conv(x, kernel6, bias6)


def by_saved_model(module, x, tmp_path):
    tf.saved_model.save(module, str(tmp_path))
    assert not IN_LOOPS & operations(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))  # it holds the variables, so it must live on
    return loaded.call(x).numpy()


def by_litert(module, x, tmp_path):
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.call.get_concrete_function()], module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return run_litert(converter.convert(), x)


def by_onnx(module, x, tmp_path):
    tf2onnx = pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    signature = [tf.TensorSpec((None, *module.INPUT), name="x")]
    written, _ = tf2onnx.convert.from_function(module.call, input_signature=signature)
    session = onnxruntime.InferenceSession(
        written.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@pytest.mark.slow
@pytest.mark.parametrize("export", [by_saved_model, by_litert, by_onnx])
def test_models_as_large_as_deepface_go_through(export, tmp_path):
    module = DeepFace()
    x = np.random.default_rng(1).standard_normal((2, *DeepFace.INPUT), np.float32)
    names = {name for owner, name in plugins.registry().implementations if owner == "tensorflow"}
    with lcmulti.config(implementation="native" if "native" in names else "blocked"):
        y = export(module, x, tmp_path)
    np.testing.assert_allclose(y, module.apply(x), rtol=1e-3, atol=1e-3)
