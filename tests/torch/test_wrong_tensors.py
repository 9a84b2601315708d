"""Every operation names the tensor that it cannot take."""

import pytest

torch = pytest.importorskip("torch")

from helpers_variables import OPERATIONS, drawn  # noqa: E402

from lcmulti.errors import ArgumentTypeError  # noqa: E402

pytestmark = pytest.mark.torch

CASES = [(name, i) for name, (names, _) in OPERATIONS.items() for i in range(len(names))]


def refused(name, i, change):
    names, run = OPERATIONS[name]
    arrays = [torch.tensor(each) for each in drawn(names)]
    arrays[i] = change(arrays[i])
    with pytest.raises(ArgumentTypeError) as caught:
        run(*arrays)
    return caught.value, ["x" if each == "y" else each for each in names]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("name", "i"), CASES)
def test_a_sparse_tensor(name, i, autocast):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        error, names = refused(name, i, torch.Tensor.to_sparse)
    assert (error.argument, error.expected) == (names[i], "a dense tensor")


@pytest.mark.parametrize(("name", "i"), [each for each in CASES if each[0] != "smoothness"])
def test_a_tensor_on_another_device(name, i):
    error, names = refused(name, i, lambda tensor: tensor.to("meta"))
    assert error.argument == names[i or 1]
    assert f"as {names[0]} is" in error.expected
