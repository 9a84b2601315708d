"""Third-party plugins: good, conflicting and broken ones."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from strangers import backend_entry, hookimpl, implementation_entry, plugin_of

import lcmulti
from lcmulti import plugins
from lcmulti.errors import MissingBackendError, PluginError
from lcmulti.numpy.backend import Reference
from lcmulti.plugins.contract import CONTRACT


def only_error(registry):
    ((origin, error),) = registry.errors.items()
    return origin, error


def test_our_own_come_through_the_same_door():
    found = plugins.registry()
    assert str(found.origins["numpy"]).startswith("lcmulti 0.")
    assert "numpy" in found.backends
    assert [e.name for e in found.implementations_of("numpy")][-1] == "reference"


def test_a_strangers_implementation_is_used(install, rng):
    class Twice(Reference):
        def forward(self, x, kernel, spec, resources):
            return 2 * super().forward(x, kernel, spec, resources)

    sys.modules["strange_module"] = module = ModuleType("strange_module")
    module.twice = Twice()
    try:
        install(stranger=plugin_of((), [implementation_entry(load="strange_module:twice")]))
        x, kernel = rng.normal(size=(2, 5, 3)), rng.normal(size=(4, 2, 3, 7))
        usual = lcmulti.local_conv(x, kernel)
        strange = lcmulti.local_conv(x, kernel, implementation="strange")
        np.testing.assert_allclose(strange, 2 * usual)
    finally:
        del sys.modules["strange_module"]


def test_a_strangers_backend_is_used(install):
    install(stranger=plugin_of([backend_entry()], [implementation_entry(backend="stranger")]))
    x, kernel = np.ones((2, 5, 3)), np.ones((4, 2, 3, 7))
    assert (lcmulti.local_conv(x, kernel, backend="stranger") == 6).all()
    with lcmulti.config(backend="stranger"):
        assert lcmulti.explain(x, kernel).backend == "stranger"


@pytest.mark.parametrize(
    "entries, words",
    [
        (([backend_entry()], ()), "backend 'stranger'"),
        (((), [implementation_entry()]), "implementation ('numpy', 'strange')"),
    ],
)
def test_a_clash_names_both_distributions(install, entries, words):
    found = install(ours=plugin_of(*entries), theirs=plugin_of(*entries))
    origin, error = only_error(found)
    assert origin.distribution == "theirs"
    assert isinstance(error, PluginError)
    for word in (words, "ours 9.8", "theirs 9.8", "uninstall one of them"):
        assert word in str(error)


def test_of_a_wrong_plugin_nothing_is_registered(install):
    wrong = plugin_of([backend_entry()], [implementation_entry(), implementation_entry("auto")])
    found = install(wrong=wrong)
    assert list(found.backends) == ["numpy"]
    assert {name for _, name in found.implementations} == {"blocked", "reference"}


def test_a_broken_plugin_is_listed_and_the_others_work(install):
    found = install(
        broken=ImportError("no module named 'cuda_thing'"),
        good=plugin_of([backend_entry()]),
    )
    origin, error = only_error(found)
    assert str(origin) == "broken 9.8 (broken_plugin)"
    assert "cuda_thing" in str(error)
    assert sorted(found.backends) == ["numpy", "stranger"]
    assert lcmulti.local_conv(np.ones((1, 2, 1)), np.ones((2, 1, 1, 1))).shape == (1, 2, 1)


def test_a_hook_that_raises_is_listed(install):
    plugin = plugin_of()

    def raises():
        raise ZeroDivisionError("inside the hook")

    plugin.lcmulti_backends = hookimpl(raises)
    assert isinstance(only_error(install(wrong=plugin))[1], ZeroDivisionError)


def test_a_misspelled_hook_is_listed(install):
    plugin = plugin_of()
    plugin.lcmulti_backend = hookimpl(lambda: [backend_entry()])
    assert "lcmulti_backend" in str(only_error(install(wrong=plugin))[1])


def test_one_plugin_that_claims_a_name_twice(install):
    twice = plugin_of([backend_entry(), backend_entry()])
    error = only_error(install(wrong=twice))[1]
    assert "backend 'stranger' is provided by both wrong 9.8" in str(error)


@pytest.mark.parametrize(
    "entries, words",
    [
        (([backend_entry(contract=CONTRACT + 1)], ()),
         f"'stranger' is written for contract {CONTRACT + 1}; this lcmulti speaks"),
        (((), [implementation_entry(contract=0)]), "'strange' is written for contract 0"),
        ((["torch"], ()), "expected a BackendEntry, got 'torch'"),
        (([implementation_entry()], ()), "expected a BackendEntry, got ImplementationEntry("),
        (((), [backend_entry()]), "expected a ImplementationEntry, got BackendEntry("),
        (((), [None]), "expected a ImplementationEntry, got None"),
        (([backend_entry("")], ()), "expected a lower-case name other than 'auto', got ''"),
        (([backend_entry("auto")], ()), "other than 'auto', got 'auto'"),
        (((), [implementation_entry("Fast")]), "expected a lower-case name"),
        (([backend_entry(load="module")], ()), "'stranger' needs a load='module:attribute'"),
        (((), [implementation_entry(load=":x")]), "'strange' needs a load="),
    ],
)  # fmt: skip
def test_wrong_entries(install, entries, words):
    found = install(wrong=plugin_of(*entries))
    _, error = only_error(found)
    assert isinstance(error, PluginError)
    assert words in str(error)
    assert list(found.backends) == ["numpy"]


def test_an_absent_framework_is_an_instruction(install):
    install(stranger=plugin_of([backend_entry(package="surely_not_installed")]))
    with pytest.raises(MissingBackendError) as error:
        lcmulti.local_conv(np.ones((1, 2, 1)), np.ones((2, 1, 1, 1)), backend="stranger")
    assert str(error.value) == (
        "backend 'stranger' needs 'surely_not_installed', which is not installed; "
        "install it with: pip install stranger"
    )


def test_a_backend_that_fails_to_import_says_what_failed_and_what_mends_it(install):
    install(stranger=plugin_of([backend_entry(load="lcmulti.numpy.backend:absent")]))
    with pytest.raises(MissingBackendError) as error:
        plugins.load_backend("stranger")
    assert isinstance(error.value.__cause__, AttributeError)
    for word in ("stranger 9.8", "AttributeError", "'absent'", "pip install stranger"):
        assert word in str(error.value)


@pytest.mark.parametrize(
    "load, words",
    [
        ("no_such_module:x", "ModuleNotFoundError"),
        ("lcmulti.numpy.backend:absent", "AttributeError"),
        ("lcmulti.numpy.backend:backend", "lacks one of decline"),
    ],
)
def test_a_broken_implementation_is_passed_over_unless_it_is_named(install, load, words):
    entry = implementation_entry(load=load, priority=1000)
    install(stranger=plugin_of((), [entry]))
    x, kernel = np.ones((1, 2, 1)), np.ones((2, 1, 1, 1))
    found = lcmulti.explain(x, kernel)
    assert found.implementation == "blocked"
    assert words in next(v.reason for v in found.verdicts if v.name == "strange")
    with pytest.raises(lcmulti.errors.UnsupportedError, match=words):
        lcmulti.local_conv(x, kernel, implementation="strange")
    with pytest.raises(PluginError, match="stranger 9.8"):
        plugins.load_implementation("numpy", "strange")


def test_reading_entries_imports_no_framework():
    code = (
        "import sys; from lcmulti import plugins\n"
        "entries = plugins.registry().backends.values()\n"
        "[plugins.is_installed(e) and plugins.framework_version(e) for e in entries]\n"
        "assert not {'torch', 'jax', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_versions(backend):
    version = plugins.framework_version(plugins.registry().backends[backend])
    assert (
        sys.modules.get(backend) is None
        or version.split("+")[0] in sys.modules[backend].__version__
    )
    assert plugins.framework_version(backend_entry(package="surely_not_installed")) is None
