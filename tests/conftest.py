import os

from releases import xla_flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests run most compiled functions once, so XLA compiles quickly. `test_as_users_compile` does not.
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

# Failed assertions in these helpers are explained as those in tests are.
pytest.register_assert_rewrite("helpers_hostile", "helpers_native")

# No deadline: a first example loads and plans, so its time says nothing.
hypothesis.settings.register_profile("lcmulti", deadline=None)
hypothesis.settings.load_profile("lcmulti")

# The functions themselves, because a test may replace their names.
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
    """Run each test without files or variables of settings but those it makes itself."""
    home = tmp_path_factory.mktemp("home")
    for variable in [each for each in os.environ if each.startswith("LCMULTI_")]:
        if variable != "LCMULTI_NATIVE_ISA":
            monkeypatch.delenv(variable)
    monkeypatch.setenv("KERAS_HOME", str(home / "keras"))
    monkeypatch.setattr(settings, "user_file", lambda: home / "config" / "lcmulti.toml")
    monkeypatch.chdir(home)
    settings.reload()
    yield home
    settings.reload()


@pytest.fixture
def fresh():
    """Empty the caches before and after a test that changes the plugins."""
    forget()
    yield
    forget()


@pytest.fixture
def install(monkeypatch, fresh):
    """Install plugins for one test: lcmulti's own for NumPy, those of the test, and no others."""

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
        except SystemExit as end:  # argparse exits after --help, --version and wrong usage
            code = end.code or 0
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run
