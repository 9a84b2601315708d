"""Sphinx: ``nox -s docs`` builds the site with warnings as errors."""

import argparse
import ast
import dataclasses
import inspect
import os
import re
import textwrap
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "numpy")

import torch  # noqa: F401 - before TensorFlow: both carry an OpenMP runtime

import lcmulti

DOCS = Path(__file__).parent

project = "lcmulti"
author = "The lcmulti developers"
copyright = author
version = release = lcmulti.__version__

extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "sphinx_copybutton",
]  # fmt: skip
exclude_patterns = ["_build"]
default_role = "py:obj"  # names in single backticks in docstrings become links if they are known
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc sections have the types
autodoc_preserve_defaults = True  # as they are written: print, not <built-in function print>
autodoc_member_order = "bysource"
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
numpydoc_show_inherited_class_members = False
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"lcmulti {version}"
html_static_path = ["_static"]
html_css_files = ["figures.css"]
html_show_sphinx = False


def outside_links(app, docname, source):
    """Replace a link to a file of the checkout that is not a page by its text."""
    folder = (DOCS / docname).parent

    def plain(match):
        target = match[2].partition("#")[0]
        if "://" in target or target.startswith("#") or not target:
            return match[0]
        path = (folder / target).resolve()
        return match[0] if path.is_relative_to(DOCS) else match[1]

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", plain, source[0])


def write_command_line(app):
    """Write a page with the help of every command, as printed at 80 columns."""
    os.environ["COLUMNS"] = "80"
    from lcmulti.cli import _parser

    parser = _parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    parts = ["# Command line", f"```text\n{parser.format_help()}```"]
    for name, command in commands.choices.items():
        parts += [f"## lcmulti {name}", f"```text\n{command.format_help()}```"]
    page = DOCS / "reference" / "command_line.md"
    text = "\n\n".join(parts) + "\n"
    if not page.exists() or page.read_text("utf-8") != text:
        page.write_text(text, "utf-8")


class AsWritten:
    """A default value that is shown as it is written."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def defaults_of(cls):
    """Default values of a class's arguments, as text; those a data class makes, as they look."""
    if dataclasses.is_dataclass(cls) and "__init__" not in inspect.getsource(cls):
        made = (each for each in dataclasses.fields(cls) if callable(each.default_factory))
        return {each.name: repr(each.default_factory()) for each in made}
    (init,) = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__))).body
    named, given = init.args.args, init.args.defaults
    pairs = [*zip(named[len(named) - len(given) :], given, strict=True)]
    pairs += zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    return {each.arg: ast.unparse(value) for each, value in pairs if value is not None}


def own_signature(app, what, name, obj, options, signature, returned):
    """The signature of ``__init__``: Keras' and Flax's metaclasses hide it.

    A protocol has none, because nobody makes an object of it.
    """
    if what != "class":
        return None
    if getattr(obj, "_is_protocol", False):
        return "", returned
    if not name.startswith("lcmulti_") and not dataclasses.is_dataclass(obj):
        return None
    written, plain = defaults_of(obj), []
    for each in list(inspect.signature(obj.__init__).parameters.values())[1:]:
        default = AsWritten(written[each.name]) if each.name in written else each.default
        plain.append(each.replace(annotation=inspect.Parameter.empty, default=default))
    return str(inspect.Signature(plain)), returned


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", write_command_line)
    app.connect("source-read", outside_links)
    app.connect("autodoc-process-signature", own_signature)
