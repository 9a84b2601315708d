"""Old weights go to the layers that names, structure or shapes prove, or are refused."""

import re

import pytest
from helpers_keras import DRIVERS
from helpers_old_files import (
    arrays,
    close,
    keras,
    lcmulti_keras,
    pointwise,
    random,
    write,
    write_paths,
)

from lcmulti.errors import FileError

OLD_MODELS = [
    name
    for file in ("old_classes.py", "old_models.py")
    for name in re.findall(r"@model\ndef (\w+)", (DRIVERS / file).read_text("utf-8"))
]
HIDDEN = ("lists_after_layers", "private_attributes")
"""Models whose order of attributes cannot be seen on PyTorch; ``.weights.h5`` depends on it."""

SHAPE = (4, 2)
LC = lcmulti_keras.LocallyConnected1D


def weights(*names):
    """Draw a kernel and a bias for each name, all of the same shapes."""
    return {name: (random(4, 2, 2), random(4, 2)) for name in names}


def groups(found):
    return {name: arrays(name, *each) for name, each in found.items()}


def chain(*layers, **names):
    return keras.Sequential([keras.Input(SHAPE), *layers], **names)


def through(x, found, names):
    for name in names:
        x = pointwise(x, *found[name])
    return x


@pytest.mark.parametrize("saved", [0, 1])
@pytest.mark.parametrize("now", [0, 1])
def test_a_model_within_frozen_otherwise(saved, now, tmp_path):
    found, x = weights("lc_a", "lc_b", "head"), random(3, *SHAPE)
    order = ("lc_b", "lc_a") if saved else ("lc_a", "lc_b")  # Keras 2 wrote what trains first
    inner = {k: v for name in order for k, v in arrays(name, *found[name]).items()}
    path = write(tmp_path / "w.h5", {"base": inner, "head": arrays("head", *found["head"])})
    base = chain(LC(2, 1, name="lc_a"), LC(2, 1, name="lc_b"), name="base")
    base.layers[0].trainable = not now
    model = chain(base, LC(2, 1, name="head"))
    lcmulti_keras.load_legacy_weights(model, path)
    close(model(x), through(x, found, ("lc_a", "lc_b", "head")))


def test_a_model_within_of_other_names_is_refused_with_the_candidates(tmp_path):
    found = weights("lc_a", "lc_b", "head")
    inner = arrays("lc_b", *found["lc_b"]) | arrays("lc_a", *found["lc_a"])
    path = write(tmp_path / "w.h5", {"base": inner, "head": arrays("head", *found["head"])})
    model = chain(chain(LC(2, 1, name="x"), LC(2, 1, name="y"), name="base"), LC(2, 1, name="head"))
    before = [each.copy() for each in model.get_weights()]
    with pytest.raises(FileError, match="lc_b fits base/x, base/y; lc_a fits base/x, base/y"):
        lcmulti_keras.load_legacy_weights(model, path)
    for mine, was in zip(model.get_weights(), before, strict=True):
        close(mine, was)
    # With other shapes there is one way.
    wide = (random(4, 2, 3), random(4, 3))
    inner = {"lc_b/kernel:0": random(4, 3, 2), "lc_b/bias:0": random(4, 2)}
    path = write(tmp_path / "w.h5", {"base": inner | arrays("lc_a", *wide)})
    model = chain(chain(LC(3, 1, name="x"), LC(2, 1, name="y"), name="base"))
    lcmulti_keras.load_legacy_weights(model, path)
    close(model.layers[0].layers[0].kernel[:, 0], wide[0])


def branching(first, second):
    """Make a model of two parallel layers, which only their names distinguish."""
    x = keras.Input(SHAPE)
    a, b = LC(2, 1, name=first), LC(2, 1, name=second)
    return keras.Model(x, keras.layers.Subtract()([a(x), b(x)]))


def test_layers_side_by_side(tmp_path):
    found, x = weights("left", "right"), random(3, *SHAPE)
    path = write(tmp_path / "w.h5", groups(found))
    for names in (("left", "right"), ("right", "left")):
        model = branching(*names)
        lcmulti_keras.load_legacy_weights(model, path)
        close(model(x), pointwise(x, *found[names[0]]) - pointwise(x, *found[names[1]]))
    with pytest.raises(FileError, match="left fits one, two; right fits one, two"):
        lcmulti_keras.load_legacy_weights(branching("one", "two"), path)


@pytest.mark.slow
def test_automatic_names_that_contradict_the_order_are_no_proof(tmp_path):
    keras.utils.clear_session()
    names = ("locally_connected1d_1", "locally_connected1d")
    path = write(tmp_path / "w.h5", groups(weights(*names)))
    with pytest.raises(FileError, match="does not tell which weights go to which"):
        lcmulti_keras.load_legacy_weights(branching(None, None), path)


def test_a_stack_has_one_order_whatever_its_names(tmp_path):
    found, x = weights("b", "a", "c"), random(3, *SHAPE)
    path = write(tmp_path / "w.h5", groups(found))
    model = chain(LC(2, 1, name="one"), LC(2, 1, name="two"), LC(2, 1))
    lcmulti_keras.load_legacy_weights(model, path)
    close(model(x), through(x, found, ("b", "a", "c")))


def with_head(units, name, *layers):
    return chain(*layers, keras.layers.Flatten(), keras.layers.Dense(units, name=name))


def two():
    return LC(2, 1, name="lc_a"), LC(2, 1, name="lc_b")


HEAD = {"head/kernel:0": random(8, 3), "head/bias:0": random(3)}
PARTIAL = {
    "no head": (lambda: chain(*two()), True, "has no layer"),
    "another head": (lambda: with_head(5, "new", *two()), True, "has no layer"),
    "a head of another size": (lambda: with_head(5, "head", *two()), False, "has shape (8, 3)"),
    "within a model": (lambda: with_head(5, "new", chain(*two())), True, "has no layer"),
}


@pytest.mark.parametrize("case", PARTIAL)
@pytest.mark.parametrize("nested", [False, True])
def test_by_name(case, nested, tmp_path):
    make, fits, why = PARTIAL[case]
    found = weights("lc_a", "lc_b")
    inner = groups(found)
    layers = {"base": inner["lc_a"] | inner["lc_b"]} if nested else inner
    path = write(tmp_path / "w.h5", layers | {"head": HEAD})
    model = make()
    with pytest.raises(FileError):
        lcmulti_keras.load_legacy_weights(model, path)
    if not fits:
        with pytest.raises(FileError, match="skip_mismatch=True leaves what does not fit"):
            lcmulti_keras.load_legacy_weights(model, path, by_name=True)
    loaded = lcmulti_keras.load_legacy_weights(model, path, by_name=True, skip_mismatch=not fits)
    assert [each.rpartition("/")[2] for each in loaded.taken] == ["lc_a", "lc_b"]
    assert list(loaded.left) == ["head"] and why in loaded.left["head"], loaded
    assert ("kept" in str(loaded)) == bool(loaded.kept) == (case != "no head")
    layers = {each.name: each for each in model._flatten_layers()}
    for name, (kernel, bias) in found.items():
        close(layers[name].kernel[:, 0], kernel)
        close(layers[name].bias, bias)


def test_by_name_takes_nothing_in_silence(tmp_path):
    path = write(tmp_path / "w.h5", groups(weights("lc_a")))
    with pytest.raises(FileError, match="has no weights that this model takes"):
        lcmulti_keras.load_legacy_weights(chain(LC(2, 1, name="x")), path, by_name=True)


def test_by_name_where_keras_gave_the_names(tmp_path):
    """In a model without its first ``Dense``, Keras gives the second the name of the first."""

    def model(*units):
        keras.utils.clear_session()
        return keras.Sequential([keras.Input((2,)), *map(keras.layers.Dense, units)])

    def stored(*shapes):
        names = ["dense", *(f"dense_{i}" for i in range(1, len(shapes)))]
        found = {n: arrays(n, random(*s), random(s[1])) for n, s in zip(names, shapes, strict=True)}
        return write(tmp_path / "w.h5", found), found

    path, _ = stored((2, 2), (2, 2), (2, 2))
    with pytest.raises(FileError, match="other layers that Keras named 'dense'"):
        lcmulti_keras.load_legacy_weights(model(2, 2), path, by_name=True)
    lcmulti_keras.load_legacy_weights(model(2, 2, 2), path, by_name=True)
    path, found = stored((2, 3), (3, 4), (4, 5))
    headless = model(3, 4)
    loaded = lcmulti_keras.load_legacy_weights(headless, path, by_name=True)
    assert loaded.taken == ("dense", "dense_1") and list(loaded.left) == ["dense_2"]
    close(headless.layers[1].kernel, found["dense_1"]["dense_1/kernel:0"])


def dense(*shapes):
    """Draw the arrays of a stack of Dense layers, by path."""
    found = {}
    for i, shape in enumerate(shapes):
        place = f"layers/dense{f'_{i}' if i else ''}/vars"
        found |= {f"{place}/0": random(*shape), f"{place}/1": random(shape[1])}
    return found


def test_skip_mismatch_by_path(tmp_path):
    path = write_paths(tmp_path / "w.weights.h5", dense((2, 3), (3, 4), (4, 5)))

    def model(*units):
        return keras.Sequential([keras.Input((2,)), *map(keras.layers.Dense, units)])

    loaded = lcmulti_keras.load_legacy_weights(model(3, 4, 7), path, skip_mismatch=True)
    assert len(loaded.taken) == 2 and list(loaded.left) == ["layers/dense_2"]
    loaded = lcmulti_keras.load_legacy_weights(model(3, 4), path, skip_mismatch=True)
    assert len(loaded.taken) == 2 and list(loaded.left) == ["layers/dense_2"]
    path = write_paths(tmp_path / "w.weights.h5", dense((2, 2), (2, 2), (2, 2)))
    with pytest.raises(FileError, match="another number of layers than the model at layers/dense"):
        lcmulti_keras.load_legacy_weights(model(2, 2), path, skip_mismatch=True)
    with pytest.raises(FileError, match="has no names of layers"):
        lcmulti_keras.load_legacy_weights(model(2, 2, 2), path, by_name=True)


class SetTwice(keras.Model):
    """A model whose first attribute is set anew: its place among the others cannot be seen."""

    def __init__(self):
        super().__init__()
        self.a, self.b = LC(2, 1), LC(2, 1)
        del self.a
        self.a = LC(2, 1)

    def build(self, shape):
        self.a.build(shape)
        self.b.build(shape)

    def call(self, x):
        return self.b(self.a(x))


def test_attributes_set_twice_are_refused_with_the_reason(tmp_path):
    model, kernel, bias = SetTwice(), random(4, 2, 2), random(4, 2)
    model(random(1, *SHAPE))
    names = ("locally_connected1d", "locally_connected1d_1")
    found = {f"layers/{n}/vars/{i}": each for n in names for i, each in enumerate((kernel, bias))}
    path = write_paths(tmp_path / "w.weights.h5", found)
    with pytest.raises(FileError, match="where an attribute was set twice, it cannot be seen"):
        lcmulti_keras.load_legacy_weights(model, path)


# Against tf_keras --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "torch", "tensorflow"])
@pytest.mark.parametrize("name", OLD_MODELS)
def test_models_of_tf_keras(backend, name, loaded):
    """Models load right that were saved and are loaded with different layers frozen."""
    found = loaded(backend)["old_models"][name]
    assert found["loaded"] > 0
    assert found["wrong"] == []
    refused = [each for each in found["refused"] if backend != "torch" or name not in HIDDEN]
    assert refused == []
    for _, reason in found["refused"]:
        assert "it cannot be seen which attributes were set first" in reason
