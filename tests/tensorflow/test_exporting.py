"""What leaves the process is made of TensorFlow's own operations, whatever is configured."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import lcmulti  # noqa: E402

pytestmark = [pytest.mark.tensorflow, pytest.mark.sampled]

SPEC = lcmulti.LocalConvSpec((9, 8, 3), 4, (3, 2), data_format="channels_last")
# Of `blocked` alone: LiteRT and ONNX have none of them.
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
    """Every operation of a SavedModel, in its functions too."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("implementation", ["auto", "blocked"])
def test_a_saved_model_and_litert_need_nothing_of_ours(implementation, tmp_path):
    """A named or configured implementation is a wish, and an unknown batch exceeds no limit."""
    layer = Layer(implementation)
    with lcmulti.config(implementation="blocked", max_workspace="64KiB"):
        tf.saved_model.save(layer, str(tmp_path), signatures=layer.call)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        written = converter.convert()
    assert not IN_LOOPS & operations(tmp_path)
    x = np.random.default_rng(1).standard_normal((2, *SPEC.input_shape), np.float32)
    interpreter = tf.lite.Interpreter(model_content=written)
    (given,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    expected = lcmulti.local_conv(x, layer.kernel.numpy(), backend="numpy")
    np.testing.assert_allclose(interpreter.get_tensor(out["index"]), expected, rtol=1e-4, atol=1e-4)


def test_a_call_that_is_not_exported_is_blocked_still():
    """The check above can fail: the same function, called here, has the loop."""
    layer = Layer("blocked")
    graph = layer.call.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    assert IN_LOOPS & {node.op for node in nodes}
