"""Files of settings: wrong, hostile and closed ones, and how the user's file is written."""

import os
import threading
import traceback

import pytest
from helpers_settings import write

import lcmulti
from lcmulti.choosing import setting_files, settings
from lcmulti.choosing.settings import DEFAULTS, current
from lcmulti.choosing.user_settings import remove_user_setting, write_user_setting
from lcmulti.errors import ConfigError, LcmultiError


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"image_data_format": "NHWC"}', '{"image_data_format": ["x"]}',
     "[" * 100_000, "\x00\xff"],
)  # fmt: skip
def test_a_keras_json_that_is_wrong_is_no_matter_of_ours(isolated, text):
    write(isolated / "keras" / "keras.json", text)
    assert current() == DEFAULTS


@pytest.mark.parametrize(
    "text",
    [b"threads = ", b"\xff\xfe", b"threads = 1\nthreads = 2", b"a = " + b"[" * 100_000,
     b"threads = [1]", b"threads = true", b"[threads]\nx = 1", b"max_workspace = 1.5"],
)  # fmt: skip
def test_a_hostile_project_file_is_a_clear_error_that_names_it(isolated, text):
    (isolated / "lcmulti.toml").write_bytes(text)
    settings.reload()
    with pytest.raises(ConfigError) as error:
        current()
    assert str(isolated / "lcmulti.toml") in str(error.value)


def test_a_tool_table_that_is_no_table(isolated):
    path = write(isolated / "pyproject.toml", "[tool]\nlcmulti = 3")
    with pytest.raises(ConfigError, match="expected a table of settings, got 3") as error:
        current()
    assert path in str(error.value)


def test_write_keeps_the_others_and_takes_effect():
    assert write_user_setting("threads", "3") == settings.user_file()
    write_user_setting("max_workspace", "64MiB")
    assert current().threads == 3
    assert current().max_workspace == 64 * 2**20
    write_user_setting("threads", "auto")
    assert current()[3:5] == (64 * 2**20, None)


def test_write_mends_a_wrong_value_of_the_same_setting():
    write(settings.user_file(), 'backend = "theano"')
    write_user_setting("backend", "numpy")
    assert current().backend == "numpy"


def test_write_does_not_touch_a_file_with_another_wrong_value():
    path = write(settings.user_file(), 'backend = "theano"')
    with pytest.raises(ConfigError, match="theano") as error:
        write_user_setting("threads", "3")
    assert path in str(error.value)
    assert settings.user_file().read_text() == 'backend = "theano"'


def test_write_is_atomic(monkeypatch):
    write_user_setting("threads", "3")
    before = settings.user_file().read_text()

    def full_disk(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(settings.user_file()), "replace", full_disk)
        with pytest.raises(ConfigError, match="No space left on device"):
            write_user_setting("threads", "4")
    assert settings.user_file().read_text() == before
    assert list(settings.user_file().parent.iterdir()) == [settings.user_file()]


def test_readers_never_see_half_a_file():
    """While one process writes, another always reads a whole file."""
    write_user_setting("max_workspace", "1")
    done = threading.Event()

    def writer():
        try:
            for n in range(200):
                write_user_setting("max_workspace", "1" * (1 + n % 20))
        finally:
            done.set()

    thread = threading.Thread(target=writer)
    thread.start()
    path = settings.user_file()
    while not done.is_set():
        text = path.read_text()
        assert text.startswith('max_workspace = "')
        assert text.endswith('"\n')
    thread.join()
    assert list(path.parent.iterdir()) == [path]


def test_write_to_a_place_that_is_no_folder(isolated):
    (isolated / "config").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"lcmulti\.toml: expected a writable file"):
        write_user_setting("threads", "3")


@pytest.mark.parametrize(
    "text",
    ["threads = " + "9" * 5000, "threads = 0x" + "f" * 5000, "threads = " + "[" * 3000 + "]" * 3000,
     "a" + ".a" * 100_000 + " = 1", "x" * 300_000, '"\\u001b[2J" = 1'],
)  # fmt: skip
def test_a_hostile_settings_file_is_one_short_error(isolated, text):
    write(isolated / "lcmulti.toml", text)
    with pytest.raises(ConfigError) as caught:
        current()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500
    shown = traceback.format_exception(caught.value)
    assert len(shown) < 100, "what Python shows of it has the parser's thousand frames"


def test_a_file_that_an_editor_of_windows_wrote(isolated):
    write(isolated / "lcmulti.toml", "\ufeffthreads = 3")
    assert current().threads == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
def test_a_keras_json_that_would_not_end_is_an_error(isolated):
    (isolated / "keras").mkdir(exist_ok=True)
    os.mkfifo(isolated / "keras" / "keras.json")
    with pytest.raises(ConfigError, match="is a pipe"):
        current()


def test_a_place_that_may_not_be_entered_has_no_settings(isolated, monkeypatch):
    write(isolated / "lcmulti.toml", "threads = 3")
    real = os.stat

    def closed(path, *args, **kwargs):
        if str(path).endswith("lcmulti.toml"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", closed)
    assert current() == DEFAULTS
    assert settings.closed_places()[str(isolated / "lcmulti.toml")] == "Permission denied"


def test_unset(isolated):
    write_user_setting("threads", "3")
    write_user_setting("data_format", "channels_first")
    assert remove_user_setting("threads")
    assert not remove_user_setting("threads")
    assert current() == DEFAULTS._replace(data_format="channels_first")
    with pytest.raises(ConfigError, match="one of the settings"):
        remove_user_setting("nonsense")
    write(settings.user_file(), "nonsense = 1")
    assert remove_user_setting("nonsense")


def test_the_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "lcmulti.toml"
    path.write_text("threads = ")
    with pytest.raises(LcmultiError) as caught:
        setting_files.read_toml(path)
    assert str(caught.value) == (
        f"{path}: expected a readable TOML file, got Invalid value (at end of document)"
    )


def test_no_limit_is_written_as_a_word(monkeypatch, tmp_path):
    path = tmp_path / "a" / "b" / "lcmulti.toml"
    monkeypatch.setattr(settings, "user_file", lambda: path)
    write_user_setting("threads", None)
    assert path.read_text() == 'threads = "auto"\n'
    with pytest.raises(AttributeError) as caught:
        lcmulti.config.thread
    assert str(caught.value).startswith("no setting 'thread'; there are backend, implementation, ")
