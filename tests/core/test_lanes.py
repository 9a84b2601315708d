"""The parts of the tests are disjoint and together all of them."""

import argparse
from types import SimpleNamespace

import pytest
from lanes import part, pytest_collection_modifyitems


class Item:
    def __init__(self, name):
        self.location, self.marks = (f"{name[0]}.py",), {}

    def get_closest_marker(self, name):
        return self.marks.get(name)

    def add_marker(self, mark):
        self.marks[mark.name] = mark.mark


def chosen(items, **options):
    left = []
    options = {"--full": False, "--rest": False, "--part": None} | options
    hook = SimpleNamespace(pytest_deselected=lambda items: left.extend(items))  # noqa: PLW0108 (by name)
    config = SimpleNamespace(args=[], getoption=options.get, hook=hook)
    kept = list(items)
    pytest_collection_modifyitems(config, kept)
    assert len(kept) + len(left) == len(items)
    return kept


def test_parts():
    items = [Item(f"{letter}{number}") for letter in "abcde" for number in range(3)]
    parts = [chosen(items, **{"--part": (number, 3)}) for number in (1, 2, 3)]
    assert sorted(id(item) for each in parts for item in each) == sorted(map(id, items))
    files = [{item.location for item in each} for each in parts]
    assert [len(each) for each in files] == [2, 2, 1]
    assert sum(map(len, files)) == len(set().union(*files))


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/b", "-1/2"])
def test_wrong_parts(text):
    assert part("3/3") == (3, 3)
    with pytest.raises(argparse.ArgumentTypeError, match="expected K/N"):
        part(text)
