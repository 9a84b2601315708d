"""Settings: the places they come from, which place is stronger, and changes in a scope."""

import asyncio
import os
import re
import threading
from pathlib import Path

import pytest
from helpers_settings import write

import lcmulti
from lcmulti.choosing import settings
from lcmulti.choosing.config import config
from lcmulti.choosing.settings import DEFAULTS, current, sources
from lcmulti.choosing.user_settings import write_user_setting
from lcmulti.errors import ConfigError


def test_defaults(isolated):
    assert (
        current()
        == DEFAULTS
        == ("numpy", "auto", "channels_last", 256 * 2**20, None, "ieee", "tuned")
    )
    assert {source.place for source in sources().values()} == {"default"}


def test_each_stronger_place_wins(isolated, monkeypatch):
    """Add the places from the last to the first, and test that each overrides the ones before."""

    def now():
        return sources()["max_workspace"]

    assert now().place == "default"
    place = write(settings.user_file(), "max_workspace = 1")
    assert now() == (1, place)
    place = write(isolated / "pyproject.toml", "[tool.lcmulti]\nmax_workspace = 2")
    assert now() == (2, place)
    place = write(isolated / "lcmulti.toml", "max_workspace = 3")
    assert now() == (3, place)
    monkeypatch.setenv("LCMULTI_MAX_WORKSPACE", "4")
    assert now() == (4, "LCMULTI_MAX_WORKSPACE")
    with config(max_workspace=5):
        assert now() == (5, "lcmulti.config(...)")
        assert config.max_workspace == 5
    assert now() == (4, "LCMULTI_MAX_WORKSPACE")


def test_the_call_is_stronger_than_all(monkeypatch):
    monkeypatch.setenv("LCMULTI_DATA_FORMAT", "channels_first")
    assert lcmulti.LocalConvSpec((9, 2), 3, 2, data_format="channels_last").in_channels == 2
    assert lcmulti.LocalConvSpec((9, 2), 3, 2).in_channels == 9


def test_places_add_up(isolated, monkeypatch):
    user = write(settings.user_file(), "threads = 3\nmax_workspace = 1")
    project = write(isolated / "lcmulti.toml", 'data_format = "channels_first"\nmax_workspace=2')
    found = sources()
    assert found["threads"] == (3, user)
    assert found["data_format"] == ("channels_first", project)
    assert found["max_workspace"] == (2, project)
    assert found["implementation"] == ("auto", "default")


def test_keras_json_is_the_last_resort_for_data_format(isolated):
    place = write(isolated / "keras" / "keras.json", '{"image_data_format": "channels_first"}')
    assert sources()["data_format"] == ("channels_first", place)
    assert sources()["backend"] == ("numpy", "default")
    user = write(settings.user_file(), 'data_format = "channels_last"')
    assert sources()["data_format"] == ("channels_last", user)


def test_nearest_project_file(isolated, monkeypatch):
    outer = write(isolated / "lcmulti.toml", "threads = 2")
    below = isolated / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    settings.reload()
    assert sources()["threads"] == (2, outer)
    # A pyproject.toml in between ends the search: it is the project's, and has no settings.
    write(isolated / "a" / "pyproject.toml", "[project]\nname = 'a'")
    assert sources()["threads"] == (None, "default")
    inner = write(isolated / "a" / "pyproject.toml", "[tool.lcmulti]\nthreads = 4")
    assert sources()["threads"] == (4, inner)


@pytest.mark.parametrize(
    "text, size",
    [("0", 0), ("1024", 1024), ("1KiB", 1024), (" 64 mib ", 64 * 2**20), ("2GiB", 2**31),
     ("3GB", 3 * 10**9), ("5B", 5)],
)  # fmt: skip
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("LCMULTI_MAX_WORKSPACE", text)
    assert current().max_workspace == size


def test_threads_auto(monkeypatch):
    monkeypatch.setenv("LCMULTI_THREADS", "auto")
    assert current().threads is None
    monkeypatch.setenv("LCMULTI_THREADS", "2")
    assert current().threads == 2


WRONG = [
    ("backend", "theano", "'numpy'"),
    ("implementation", "fastest", "'auto'"),
    ("data_format", "NHWC", "'channels_first'"),
    ("max_workspace", "lots", "bytes, or a size such as '256MiB'"),
    ("max_workspace", "-1", "bytes, or a size such as '256MiB'"),
    ("max_workspace", "9" * 31, "bytes, or a size such as '256MiB'"),
    ("max_workspace", "٣", "bytes, or a size such as '256MiB'"),
    ("threads", "0", "a positive integer"),
    ("threads", "two", "a positive integer or 'auto'"),
    ("backend", "", "a name"),
    ("backend", "os.path:join", "'numpy'"),
]


@pytest.mark.parametrize("name, value, choices", WRONG)
def test_errors_name_setting_value_place_and_choices(isolated, monkeypatch, name, value, choices):
    def caught(action):
        with pytest.raises(ConfigError) as error:
            action()
        return str(error.value)

    places = {}
    with monkeypatch.context() as patch:
        variable = f"LCMULTI_{name.upper()}"
        patch.setenv(variable, value)
        places[variable] = caught(current)
    path = write(isolated / "lcmulti.toml", f'{name} = "{value}"')
    places[path] = caught(current)
    (isolated / "lcmulti.toml").unlink()
    settings.reload()
    places["lcmulti.config(...)"] = caught(lambda: config(**{name: value}))
    places["lcmulti config set"] = caught(lambda: write_user_setting(name, value))
    for place, message in places.items():
        assert message.startswith(f"{name}: expected ")
        for word in (choices, repr(value), place):
            assert word in message


def test_unknown_settings_list_the_choices(isolated):
    for action in (
        lambda: config(bakend="numpy"),
        lambda: write_user_setting("bakend", "numpy"),
    ):
        with pytest.raises(ConfigError, match="bakend: expected one of the settings 'backend', "):
            action()
    path = write(isolated / "lcmulti.toml", 'bakend = "numpy"')
    with pytest.raises(ConfigError, match="bakend") as error:
        current()
    assert path in str(error.value)
    with pytest.raises(AttributeError, match="no setting 'bakend'; there are backend"):
        _ = config.bakend


def test_nested_and_none():
    with config(threads=2, max_workspace="1KiB"):
        with config(threads=3):
            assert current()[3:5] == (1024, 3)
            with config(threads=None, max_workspace=None):
                assert current() == DEFAULTS
        assert current()[3:5] == (1024, 2)
    assert current() == DEFAULTS


def test_a_change_without_a_block_is_said_to_have_changed_nothing():
    with pytest.warns(RuntimeWarning, match=r"config\(threads=2\) changed nothing; write: with "):
        config(threads=2)
    assert current() == DEFAULTS


def test_a_function_may_be_decorated_and_a_change_entered_again():
    @config(threads=2)
    def inner(depth):
        assert current().threads == 2
        return depth and inner(depth - 1)

    assert (inner(2), current().threads) == (0, None)
    change = config(threads=3)
    for _ in range(2):
        with change, change as now:
            assert now.threads == current().threads == 3
        assert current() == DEFAULTS


def test_undone_after_an_exception():
    with pytest.raises(KeyError), config(threads=2):
        raise KeyError
    assert current().threads is None


def test_nothing_changes_if_one_of_several_is_wrong():
    with pytest.raises(ConfigError), config(threads=2, backend="theano"):
        pass
    assert current() == DEFAULTS


def test_a_change_is_seen_in_its_own_thread_alone():
    seen, both_inside = {}, threading.Barrier(2)

    def work(threads):
        with config(threads=threads):
            both_inside.wait(10)
            seen[threads] = config.threads
            both_inside.wait(10)

    with config(threads=9):
        workers = [threading.Thread(target=work, args=(n,)) for n in (1, 2)]
        for each in workers:
            each.start()
        for each in workers:
            each.join()
        assert config.threads == 9
    assert seen == {1: 1, 2: 2}


def test_a_change_is_seen_in_its_own_task_alone():
    async def work(threads):
        with config(threads=threads):
            await asyncio.sleep(0)
            return config.threads

    async def both():
        return await asyncio.gather(work(1), work(2))

    assert asyncio.run(both()) == [1, 2]


def test_variables_are_read_anew_and_files_once(isolated, monkeypatch):
    write(isolated / "lcmulti.toml", "threads = 2")
    assert current().threads == 2
    (isolated / "lcmulti.toml").write_text("threads = 3")
    assert current().threads == 2
    monkeypatch.setenv("LCMULTI_THREADS", "4")
    assert current().threads == 4
    monkeypatch.delenv("LCMULTI_THREADS")
    settings.reload()
    assert current().threads == 3


def test_repr_tells_all():
    assert repr(config) == (
        "lcmulti.config(backend='numpy', implementation='auto', data_format='channels_last', "
        "max_workspace=268435456, threads=None, precision='ieee', tiles='tuned')"
    )


UNKNOWN = {
    "LCMULTI_IMPLEMENTAION": "did you mean LCMULTI_IMPLEMENTATION?",
    "lcmulti_backend": "did you mean LCMULTI_BACKEND?",
    "LCMULTI_WORKSPACE": "did you mean LCMULTI_MAX_WORKSPACE?",
    "LCMULTI_NATIVE_IAS": "did you mean LCMULTI_NATIVE_ISA?",
    "LCMULTI_VERSION": "there are LCMULTI_BACKEND, LCMULTI_IMPLEMENTATION, ",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_variable_is_told_once(name, monkeypatch):
    current()
    monkeypatch.setenv(name, "native")
    with pytest.warns(RuntimeWarning) as told:
        assert current() == DEFAULTS
        sources()
        monkeypatch.setenv("LCMULTI_THREADS", "2")
        assert current().threads == 2
    said = f"the environment variable {name} is no setting of lcmulti and changes nothing; "
    assert [str(each.message).partition(UNKNOWN[name])[:2] for each in told] == [
        (said, UNKNOWN[name])
    ]


def test_variables_that_our_packages_read_are_known(monkeypatch):
    root = Path(__file__).parents[2]
    texts = [path.read_text("utf-8") for path in root.glob("[lb]*/**/*.py")]
    read = {name for text in texts for name in re.findall(r'"(LCMULTI_[A-Z_]+)"', text)}
    assert "LCMULTI_NATIVE_ISA" in read
    for name in read - {"LCMULTI_"}:
        monkeypatch.setenv(name, "avx2")
    current()


def test_an_environment_that_is_a_plain_dictionary(isolated, monkeypatch):
    monkeypatch.setattr(os, "environ", {"LCMULTI_THREADS": "3"})
    assert settings.current().threads == 3
