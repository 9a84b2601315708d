"""Releases of the frameworks that are installed, and skips for older ones."""

import importlib.metadata

import pytest

from lcmulti.conformance.certify.frameworks import HURRY


def release(name):
    """The release of a package in numbers; () if it is not there."""
    for each in (name, f"{name}-cpu"):  # as TensorFlow may be called
        try:
            found = importlib.metadata.version(each)
        except importlib.metadata.PackageNotFoundError:
            continue
        return tuple(int(part) for part in found.split(".") if part.isdigit())
    return ()


def is_older(name, *than):
    """Whether a package is installed in a release before *than*."""
    return () < release(name)[: len(than)] < than


def before(name, *than, lacks):
    """Return a mark that skips a test where the package is older and lacks what it needs."""
    shown = ".".join(map(str, than))
    return pytest.mark.skipif(is_older(name, *than), reason=f"before {name} {shown}: {lacks}")


def xla_flags():
    """Return the flags with which XLA compiles quickly. An unknown flag would end the process."""
    flags = [f"--{name}={str(value).lower()}" for name, value in HURRY.items()]
    has_not = is_older("jaxlib", 0, 7) or release("jaxlib") >= (0, 11)
    if has_not or is_older("tensorflow", 2, 20):
        flags = [each for each in flags if "fusion_emitters" not in each]
    return " ".join(flags)
