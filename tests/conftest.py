import os

from releases import xla_flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most functions are compiled once and run once. As users compile, `test_as_users_compile` does.
os.environ.setdefault("XLA_FLAGS", xla_flags())

import importlib.metadata
import importlib.util
from types import SimpleNamespace

if importlib.util.find_spec("torch"):
    import torch  # noqa: F401 - before TensorFlow: both carry an OpenMP runtime

import hypothesis
import numpy as np
import pytest
from installed import INSTALLED
from strangers import Point

from lcmulti import plugins
from lcmulti.choosing import dispatch, framework, settings
from lcmulti.cli import main
from lcmulti.numpy import plugin as numpy_plugin
from lcmulti.operations import calling

pytest_plugins = ["lanes"]

# What fails in these says why, as in a test.
pytest.register_assert_rewrite("helpers_hostile", "helpers_native")

# First uses load and plan; how long one example takes says nothing here.
hypothesis.settings.register_profile("lcmulti", deadline=None)
hypothesis.settings.load_profile("lcmulti")

# By value, so that a test may replace one of them.
CACHED = (
    plugins.registry,
    plugins.load_backend,
    plugins.load_implementation,
    framework._named,
    dispatch._plan,
    dispatch.operation,
)


def forget():
    """Drop every cache that depends on settings or plugins."""
    settings.reload()
    for cached in CACHED:
        cached.cache_clear()
    calling.calls.clear()


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path_factory):
    """No user file, no variables, no keras.json, no project file but what the test makes."""
    home = tmp_path_factory.mktemp("home")
    for variable in settings.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(home / "keras"))
    monkeypatch.setattr(settings, "user_file", lambda: home / "config" / "lcmulti.toml")
    monkeypatch.chdir(home)
    settings.reload()
    yield home
    settings.reload()


@pytest.fixture
def fresh():
    """Caches empty before and after: for tests that change what plugins there are."""
    forget()
    yield
    forget()


@pytest.fixture
def install(monkeypatch, fresh):
    """Install plugins for one test, beside lcmulti's own for NumPy, in place of all others."""

    def installed(**named):
        points = [Point("lcmulti", numpy_plugin)]
        points += [Point(name, plugin) for name, plugin in named.items()]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
        return plugins.registry()

    return installed


@pytest.fixture(params=INSTALLED)
def backend(request):
    """The name of each installed backend in turn."""
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def lcm(capsys, monkeypatch):
    """Run a command line at 80 columns; return its exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        try:
            code = main([str(each) for each in arguments])
        except SystemExit as end:  # argparse's own: --help, --version, usage
            code = end.code or 0
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run
