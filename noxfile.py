"""Sessions that check lcmulti: ``nox -s lint``, ``nox -s torch``, ``nox`` for the usual ones."""

import functools
import os
import re
import shutil
import time
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False

PYPROJECT = nox.project.load_toml("pyproject.toml")

CHECK = """
import sys, numpy, lcmulti
x, kernel = numpy.ones((2, 5, 3)), numpy.ones((4, 2, 3, 7))
assert (lcmulti.local_conv(x, kernel) == 6).all()
assert "site-packages" in lcmulti.__file__
assert not {"torch", "jax", "tensorflow", "keras"} & set(sys.modules)
"""


def install(session: nox.Session, *requirements: str, groups: tuple[str, ...] = ()) -> None:
    """Install requirements and dependency groups, in the versions of constraints.txt."""
    for group in groups:
        requirements += nox.project.dependency_groups(PYPROJECT, group)
    # Compiles what is imported, instead of all files of a framework.
    session.install("--no-compile", "-c", "constraints.txt", *requirements)


def run_tests(session: nox.Session, extras: str) -> None:
    """Run pytest with the arguments after ``--`` on nox's command line."""
    install(session, "-e", f".[{extras}]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style with ruff, and types with mypy (strict, on the core and the backends)."""
    install(session, "-e", ".", groups=("lint",))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


PYTHONS = ["3.11", "3.12", "3.13"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests without any framework, on each supported Python."""
    run_tests(session, "test")


@nox.session
def torch(session: nox.Session) -> None:
    """Run the tests with PyTorch alone."""
    run_tests(session, "test,torch,triton,onnx")


@nox.session
@nox.parametrize("version", ["3.6.0", "3.7.1", "3.8.0", "3.9.0"])
def triton(session: nox.Session, version: str) -> None:
    """Compile a sample of the GPU kernels with each version of Triton that is accepted."""
    install(session, "-e", ".[triton,test]")
    session.install("--no-deps", f"triton=={version}")  # not that of constraints.txt
    session.run("pytest", "--full", "tests/triton/test_compiled.py", "-k", "sample or constants")


@nox.session
def jax(session: nox.Session) -> None:
    """Run the tests with JAX alone."""
    run_tests(session, "test,jax,flax,equinox")


@nox.session
def tensorflow(session: nox.Session) -> None:
    """Run the tests with TensorFlow alone."""
    run_tests(session, "test,tensorflow")


@nox.session
def cross(session: nox.Session) -> None:
    """Run the tests and `lcmulti parity` with all frameworks together."""
    run_tests(session, "test,all,legacy")
    session.run("lcmulti", "parity")


VERSIONS = {  # extras that come into an environment together
    "numpy": "test,report",
    "torch": "test,torch",
    "jax": "test,flax,equinox",
    "tensorflow": "test,tensorflow,keras",
}


@nox.session(python=False)  # it makes environments of its own, one for each framework
@nox.parametrize("which", [nox.param(each, id=each) for each in ("oldest", "newest")])
def versions(session: nox.Session, which: str) -> None:
    """Quick tests and a certificate with the oldest or newest of all, into docs/versions.md.

    Words after ``--`` are frameworks to run alone.
    """
    frameworks = session.posargs or list(VERSIONS)
    for name in frameworks:
        pythons = [each for each in PYTHONS if shutil.which(f"python{each}")]
        folder = Path(session.create_tmp(), name).resolve()
        python = f"python{pythons[0 if which == 'oldest' else -1]}"
        if not folder.exists():
            session.run(python, "-m", "venv", str(folder), external=True)
        run = functools.partial(session.run, str(folder / "bin" / "python"), external=True)
        chosen = ("-c", "constraints-oldest.txt") if which == "oldest" else ("--upgrade",)
        run("-m", "pip", "install", "-q", "--no-compile", *chosen, "-e", f".[{VERSIONS[name]}]")
        run("docs/run_versions.py", which, name)


OWN = ("numpy", "torch", "jax", "tensorflow")


@nox.session
@nox.parametrize("backend", [nox.param(name, id=name) for name in OWN])
def certify(session: nox.Session, backend: str) -> None:
    """Certify one of our own backends; ``-- --nightly`` takes hours."""
    extras = "conformance" if backend == "numpy" else f"conformance,{backend}"
    peers = ("peers",) if backend == "jax" else ()  # Flax, whose layer results are compared with
    install(session, "-e", f".[{extras}]", groups=peers)
    session.run("lcmulti", "certify", backend, *session.posargs)


@nox.session
def example(session: nox.Session) -> None:
    """Install the example plugin as its users would, and certify what it adds."""
    install(session, ".[conformance]", "tests/example_plugin")
    session.chdir(session.create_tmp())  # away from the checkout: the installed package is used
    session.run("lcmulti", "certify", "strict", "--certificate", "strict.md")
    session.run("lcmulti", "certify", "numpy", "--implementation", "einsum")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the settings with 20,000 files."""
    install(session, "-e", ".[test]")
    examples = {"FUZZ_EXAMPLES": "20000"}
    session.run("pytest", "tests/core/test_fuzz.py", *session.posargs, env=examples)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the core in small ways, which tests must notice (survivors: docs/mutation.md)."""
    install(session, "-e", ".[test]", groups=("mutation",))
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def native(session: nox.Session) -> None:
    """Build the native kernels, certify them for each framework, and test their doors."""
    install(session, "-e", ".[test,all]", "./backends/native")
    for name in OWN:
        session.run("lcmulti", "certify", name, "--implementation", "native")
    session.run("pytest", "tests/native", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the kernels' wheel for this machine; certify it without a compiler."""
    install(session, groups=("wheel",))
    folder = Path(session.create_tmp(), "wheels").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    built, repaired = folder / "built", folder / "repaired"
    session.run("pip", "wheel", "-q", "--no-deps", "-w", str(built), "./backends/native")
    session.run("auditwheel", "repair", "-w", str(repaired), *map(str, built.iterdir()))
    (wheel,) = repaired.iterdir()
    session.log(wheel.name)
    session.run("python", "-m", "venv", str(folder / "fresh"))
    alone = {"PATH": str(folder / "fresh" / "bin")}  # nothing else is found, no compiler either
    run = functools.partial(session.run, external=True, include_outer_env=False, env=alone)
    constraints = str(Path("constraints.txt").resolve())
    run("pip", "install", "-q", "-c", constraints, ".[conformance]", str(wheel))
    session.chdir(folder)
    run("python", "-m", "lcmulti_native")
    run("lcmulti", "certify", "numpy", "--implementation", "native")


WIDE = ("amx", "avx512bf16", "avx512")


def fuzz_native(
    session: nox.Session, sanitizers: str, isas: tuple[str, ...], *options: str
) -> None:
    """Build the native kernels' fuzzer and run it with each of some instruction sets."""
    folder = Path(session.create_tmp(), sanitizers.replace(",", "-"))
    session.run(
        "cmake", "-S", "backends/native", "-B", str(folder), "-DLCMULTI_FUZZ=ON",
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DLCMULTI_SANITIZE={sanitizers}", *options,
    )  # fmt: skip
    # Without a number, make starts all compilers at once, which may take too much memory.
    session.run("cmake", "--build", str(folder), "--parallel", str(os.cpu_count()))
    for isa in isas:
        session.run(
            str(folder / "fuzz"), *(session.posargs or ["20"]),
            env={"LCMULTI_NATIVE_ISA": isa}, external=True,
        )  # fmt: skip


@nox.session
def sanitize(session: nox.Session) -> None:
    """Fuzz the native kernels' geometry under the address, undefined and thread sanitizers."""
    install(session, "cmake")
    for sanitizers in ("address,undefined", "thread"):
        fuzz_native(session, sanitizers, (*WIDE, "avx2", "plain"))


@nox.session
def emulate(session: nox.Session) -> None:
    """Fuzz the code for AVX-512 and AMX likewise, on a processor with AVX2."""
    install(session, "cmake")
    fuzz_native(session, "address,undefined", WIDE, "-DLCMULTI_EMULATE=ON")


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmark the working tree quickly; ``-- continuous BASE HEAD`` compares two commits.

    Further words are asv's: ``-- --bench ratios``. The comparison fails on a regression by a
    factor of 1.2.
    """
    install(session, "-e", ".[all,legacy]", groups=("bench",))
    session.chdir("asv_benches")
    session.run("asv", "machine", "--yes", silent=True)
    if session.posargs[:1] == ["continuous"]:
        session.run("asv", "continuous", "--factor", "1.2", *session.posargs[1:])
        return
    head = session.run("git", "rev-parse", "HEAD", external=True, silent=True)
    chosen = session.posargs or [
        "--bench", "imports|overhead", "--bench", "(auto|training)', 'keras_docstring_1d",
    ]  # fmt: skip
    session.run(
        "asv", "run", "--quick", "--python=same", "--set-commit-hash", str(head).strip(), *chosen
    )


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html and follow its links; asv's pages too if it has run.

    Warnings are errors.
    """
    install(session, "-e", ".[all,legacy]", groups=("docs", "bench"))
    site = Path("docs/_build/html").resolve()
    session.run(
        "sphinx-build", "-W", "--keep-going", "-b", "html", *session.posargs, "docs", str(site)
    )
    session.run("python", "docs/check_links.py", str(site))
    if Path("asv_benches/.asv/results").is_dir():
        session.chdir("asv_benches")
        session.run("asv", "publish", "--html-dir", str(site / "asv"))


EXAMPLES = ("digits_compare", "untie", "sharing", "topography", "faces", "snp", "field", "revive")


@nox.session
def figures(session: nox.Session) -> None:
    """Draw every figure of README and docs, and measure what needs no native kernels."""
    install(session, "-e", ".[all,legacy]")
    session.run("python", "docs/figures/draw.py")
    session.run("python", "docs/figures/native.py")  # of results kept: it measures nothing
    for name in EXAMPLES:
        with Path(f"docs/gallery/output/{name}.txt").open("w", encoding="utf-8") as output:
            command = (f"examples/{name}.py", "--figure", f"docs/figures/{name}.png")
            session.run("python", *command, stdout=output)
    session.run("python", "docs/figures/speed.py")
    session.run(
        "lcmulti", "bench", "deepface_l6", "--mode", "training", "--no-variants",
        "--plot", "docs/figures/bench.svg",
    )  # fmt: skip


README = Path(__file__).with_name("README.md").read_text("utf-8")
TABLE = README.split("| | install | train |\n|---|---|---|\n")[1].split("\n\n")[0].splitlines()
ROW = re.compile(r'\|.*\| `"\.\[(.+?)\]"` \| `(?:KERAS_BACKEND=(\w+) )?(examples/\w+\.py)` \|')
NEWCOMERS = [nox.param(*row.groups(), id=row[1]) for row in map(ROW.fullmatch, TABLE)]


@nox.session(reuse_venv=False)
@nox.parametrize(("extras", "keras", "example"), NEWCOMERS)
def newcomer(session: nox.Session, extras: str, keras: str | None, example: str) -> None:
    """Run the README's first steps for each framework, and print how long they took."""
    start = time.monotonic()
    session.install("-c", "constraints.txt", f".[{extras}]")
    session.run("python", example, env={"KERAS_BACKEND": keras})
    session.log(f"[{extras}] and {example}: {time.monotonic() - start:.0f} s")


def build_into(session: nox.Session, folder: Path) -> None:
    """Build sdist and wheel of lcmulti into a folder."""
    install(session, groups=("build",))
    session.run("python", "-m", "build", "--outdir", str(folder))


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel; test the wheel with only its dependencies installed."""
    dist = Path(session.create_tmp(), "dist").resolve()
    shutil.rmtree(dist, ignore_errors=True)
    build_into(session, dist)
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    (wheel,) = dist.glob("*.whl")
    session.run("python", "-m", "venv", str(dist / "fresh"))
    bin_dir, constraints = dist / "fresh" / "bin", Path("constraints.txt").resolve()
    fresh = functools.partial(session.run, external=True)
    fresh(str(bin_dir / "pip"), "install", "-q", "-c", str(constraints), str(wheel))
    session.chdir(dist)  # away from the checkout, which would be imported instead
    fresh(str(bin_dir / "python"), "-c", CHECK)
    fresh(str(bin_dir / "lcmulti"), "backends")
    fresh(str(bin_dir / "lcmulti"), "parity", "--cases", "docs")


@nox.session
def release_files(session: nox.Session) -> None:
    """Build what is published into a folder: ``nox -s release_files -- dist``."""
    folder = Path(*(session.posargs or ["dist"])).resolve()
    build_into(session, folder)
    # The kernels' source, for systems that no wheel of theirs is for.
    session.run("python", "-m", "build", "--sdist", "--outdir", str(folder), "backends/native")
    session.run("twine", "check", "--strict", *map(str, folder.iterdir()))


@nox.session
def changelog(session: nox.Session) -> None:
    """Show what changes/ would add to the changelog; ``-- VERSION`` writes it."""
    install(session, groups=("changelog",))
    if session.posargs:
        session.run("towncrier", "build", "--yes", "--version", *session.posargs)
    else:
        session.run("towncrier", "build", "--draft", "--version", "next")
