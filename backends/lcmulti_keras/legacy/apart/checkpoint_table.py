"""Say what a TensorFlow checkpoint holds, and write its arrays to one file, with its own reader.

Run by `run_apart`. What TensorFlow makes of the file is checked by the process that waits.
"""

from __future__ import annotations

import json
import sys
from math import prod
from pathlib import Path

told = json.loads(sys.argv[1])
sys.path[:] = [*told["path"], str(Path(__file__).parent)]

from limits import set_limits  # noqa: E402
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph  # noqa: E402
from tensorflow.python.training import py_checkpoint_reader  # noqa: E402

MOST_NODES = 50_000
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "VARIABLE_VALUE"


def main():
    """Answer on standard output, or end with an error that says nothing."""
    set_limits(told["memory"], told["seconds"], written=told["most"])
    last = "end"
    try:
        reader = py_checkpoint_reader.NewCheckpointReader(told["prefix"])
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        last = refusal(shapes, dtypes) or last
        if last == "end":
            say(graph(reader.get_tensor(GRAPH)))
            with Path(told["arrays"]).open("wb") as file:
                for name in sorted(shapes):
                    if name != GRAPH and not {"optimizer", ".OPTIMIZER_SLOT"} & set(
                        name.split("/")
                    ):
                        array = reader.get_tensor(name)
                        say([name, array.dtype.str, list(array.shape), file.tell()])
                        array.tofile(file)
    except Exception as error:
        last = {"refused": f"is damaged ({type(error).__name__}: {error!s:.300})"}
    say(last)


def refusal(shapes, dtypes):
    """Why it is not read: counted before TensorFlow allocates anything."""
    if GRAPH not in shapes:
        return {"refused": "is a checkpoint of TensorFlow 1, which does not say whose weights are "
                           "whose; load it there and save it as .h5"}  # fmt: skip
    claimed = sum(
        prod(shape) * dtypes[name].size for name, shape in shapes.items() if name != GRAPH
    )
    if len(shapes) > MOST_NODES or claimed > told["most"]:
        return {"refused": f"claims {claimed:,} bytes in {len(shapes):,} arrays"}
    return None


def graph(content):
    """Each object: its children by name, and under which key its value is."""
    parsed = TrackableObjectGraph()
    parsed.ParseFromString(content)
    if len(parsed.nodes) > MOST_NODES:
        raise ValueError(f"{len(parsed.nodes):,} objects")
    return [
        [
            {each.local_name: each.node_id for each in node.children},
            next((a.checkpoint_key for a in node.attributes if a.name == VALUE), None),
        ]
        for node in parsed.nodes
    ]


def say(what):
    """One line of the answer."""
    sys.stdout.write(f"{json.dumps(what)}\n")


main()
