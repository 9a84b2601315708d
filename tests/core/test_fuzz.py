"""Random configuration files give settings or a documented error, and nothing else."""

import json
import os
import tomllib

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings

from lcmulti.choosing import settings
from lcmulti.choosing.config import config
from lcmulti.choosing.user_settings import write_user_setting
from lcmulti.errors import ConfigError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
fuzzed = hypothesis_settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
)

NAMES = (*settings.DEFAULTS._fields, "Backend", "max-workspace", "tool", "")
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
        st.sampled_from([
            "numpy", "NUMPY", " numpy ", "os:system", "../x", "auto", "channels_first", "256MiB",
            "1e9", "-1", "0", "٣", "9" * 400, 2**70, -1, 0, 1.5,
        ]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip


def spelled(value):
    """A value roughly as TOML writes it, or something similar if TOML cannot write it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {spelled(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelled, value)) + "]"
    return json.dumps(value)


LINES = st.tuples(st.sampled_from(NAMES), VALUES).map(
    lambda pair: f"{json.dumps(pair[0])} = {spelled(pair[1])}"
)
TEXTS = st.one_of(
    st.lists(LINES, max_size=4).map("\n".join),
    st.lists(LINES, max_size=3).map(lambda lines: "[tool.lcmulti]\n" + "\n".join(lines)),
    st.sampled_from(
        ["[tool]\nlcmulti = 3\n", "tool = 3\n", "[[tool]]\n", "[tool.lcmulti.backend]\n"]
    ),
    st.text(),
)
BYTES = st.one_of(TEXTS.map(lambda text: text.encode("utf-8", "replace")), st.binary())


def is_right(found):
    assert isinstance(found.backend, str)
    assert found.data_format in ("channels_last", "channels_first")
    assert type(found.max_workspace) is int
    assert found.max_workspace >= 0
    assert found.threads is None or found.threads >= 1


@pytest.mark.parametrize("name", ["lcmulti.toml", "pyproject.toml", "user", "keras.json"])
@fuzzed
@given(content=BYTES)
@example(content=b"a = " + b"[" * 5000)
@example(content=b"\xef\xbb\xbfbackend = 'numpy'")
@example(content=b"max_workspace = " + b"9" * 5000)
def test_files(isolated, name, content):
    path = {
        "user": settings.user_file(), "keras.json": isolated / "keras" / "keras.json",
    }.get(name, isolated / name)  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    settings.reload()
    try:
        is_right(settings.current())
    except ConfigError as error:
        assert name != "keras.json", "that file is not ours to judge"
        assert str(error)
    finally:
        path.unlink()


@pytest.mark.parametrize("name", settings.DEFAULTS._fields)
@fuzzed
@given(value=st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_variables(monkeypatch, name, value):
    with monkeypatch.context() as patch:
        patch.setenv(f"LCMULTI_{name.upper()}", value)
        try:
            is_right(settings.current())
        except ConfigError as error:
            assert error.argument == name


@pytest.mark.parametrize("name", settings.DEFAULTS._fields)
@fuzzed
@given(value=VALUES)
def test_scopes_and_files_written(name, value):
    """A refused value changes nothing; a written one can be read again."""
    before = settings.current()
    try:
        with config(**{name: value}) as inside:
            is_right(inside)
    except ConfigError as error:
        assert error.argument == name
    assert settings.current() == before
    try:
        path = write_user_setting(name, value)
    except ConfigError:
        assert settings.current() == before
        return
    written = "auto" if value is None else value  # in place of null, which TOML does not have
    assert tomllib.loads(path.read_text(encoding="utf-8"))[name] == written
    is_right(settings.current())
    path.unlink()
    settings.reload()
