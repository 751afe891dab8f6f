"""The shape of the code, held: who imports whom, which library lives where, how long things may get."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "web": ("web",),
    "pipeline": ("pipeline",),
    "signaling": ("signaling", "pipeline.events", "pipeline.errors"),
    "compat_ws": (
        "compat_ws",
        "pipeline",
        "signaling.bodies",
        "signaling.errors",
        "signaling.rate_limit",
        "signaling.rtvi",
        "signaling.schema",
    ),
    "media_server": ("media_server", "web", "pipeline", "signaling", "compat_ws"),
}
"""Ours, by prefix; the composition root alone may import all."""

FORBIDDEN: dict[str, tuple[str, ...]] = {
    "web": ("aiortc", "av", "numpy"),
    "pipeline": ("aiortc", "aioice", "aiohttp.web", "aiohttp.web_request"),
    "signaling": ("aiortc", "aioice", "av", "numpy"),
    "compat_ws": ("aiortc", "aioice", "av"),
}
"""Libraries a package never sees."""

HOME: dict[str, tuple[str, ...]] = {
    "alembic": ("pipeline/migrations/",),
    "asyncpg": ("pipeline/database.py",),
    "cartesia": ("pipeline/tts/cartesia.py", "pipeline/tts/_cartesia_voices.py"),
    "ctranslate2": ("pipeline/stt/",),
    "elevenlabs": ("pipeline/tts/elevenlabs.py", "pipeline/tts/_elevenlabs_voices.py"),
    "espeakng_loader": ("pipeline/tts/espeak.py", "pipeline/tts/_espeak.py"),
    "faster_whisper": ("pipeline/stt/", "pipeline/vad/silero.py"),
    "groq": ("pipeline/llm/groq.py",),
    "nltk": ("pipeline/llm/eliza.py",),
    "onnxruntime": ("pipeline/vad/", "pipeline/turn/"),
    "pocketsphinx": ("pipeline/stt/",),
    "sqlalchemy": (
        "pipeline/catalogue.py",
        "pipeline/database.py",
        "pipeline/kept_voices.py",
        "pipeline/migrations/",
        "pipeline/rows.py",
        "pipeline/tables.py",
    ),
    "torch": ("pipeline/llm/", "pipeline/tts/"),
    "torchaudio": ("pipeline/tts/", "pipeline/torch_audio.py"),
    "transformers": ("pipeline/llm/", "pipeline/tts/"),
    "TTS": ("pipeline/tts/",),
    "uvloop": ("media_server/",),
}
"""Heavy libraries, and the files (or folders of engines) that alone may import them."""

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True)
class Import:
    """One imported module, at a line of a source file."""

    module: str
    line: int
    lazy: bool


@cache
def sources() -> tuple[Path, ...]:
    """Return every source file that ships, as paths relative to the root."""
    return tuple(sorted(f.relative_to(ROOT) for package in MAY_IMPORT for f in (ROOT / package).rglob("*.py")))


@cache
def tree(source: Path) -> ast.Module:
    """Parse a source file."""
    return ast.parse((ROOT / source).read_text())


@cache
def imports(source: Path) -> tuple[Import, ...]:
    """Return what a file imports, relative imports resolved; each name of a ``from`` import as a module of its own."""
    return tuple(_imports(source))


def _imports(source: Path) -> Iterator[Import]:
    at_top = {id(node) for node in tree(source).body}
    package = source.with_suffix("").parts[:-1]
    for node in ast.walk(tree(source)):
        lazy = id(node) not in at_top
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (Import(f"{module}.{alias.name}", node.lineno, lazy) for alias in node.names)


def under(module: str, *prefixes: str) -> bool:
    """Tell whether ``module`` is one of ``prefixes`` or lies below one."""
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def attributes(source: Path) -> Iterator[tuple[str, int]]:
    """Yield dotted names as they are written, with their line."""
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node), node.lineno


@pytest.mark.parametrize("source", sources(), ids=str)
def test_packages_import_only_what_they_may(source: Path) -> None:
    package = source.parts[0]
    ours = [i for i in imports(source) if under(i.module, *MAY_IMPORT)]
    allowed = MAY_IMPORT[package]
    assert [f"{source}:{i.line} {i.module}" for i in ours if not under(i.module, *allowed)] == []


@pytest.mark.parametrize("source", sources(), ids=str)
def test_packages_do_not_see_libraries_that_are_not_theirs(source: Path) -> None:
    forbidden = FORBIDDEN.get(source.parts[0], ())
    assert [f"{source}:{i.line} {i.module}" for i in imports(source) if under(i.module, *forbidden)] == []


@pytest.mark.parametrize("source", sources(), ids=str)
def test_heavy_libraries_stay_in_their_engines_files(source: Path) -> None:
    def stray(module: str) -> bool:
        home = next((places for name, places in HOME.items() if under(module, name)), None)
        return home is not None and not str(source).startswith(home)

    assert [f"{source}:{i.line} {i.module}" for i in imports(source) if stray(i.module)] == []


def test_the_pipeline_touches_av_to_resample_and_to_decode_files() -> None:
    users = {str(s) for s in sources() if s.parts[0] == "pipeline" for i in imports(s) if under(i.module, "av")}
    assert users <= {"pipeline/resample.py", "pipeline/sound_decoder.py"}


def test_threads_live_in_one_file() -> None:
    names = ("threading", "concurrent.futures", "multiprocessing", "_thread", "queue")
    users = {str(s) for s in sources() for i in imports(s) if under(i.module, *names)}
    assert users <= {"pipeline/threads.py"}


@pytest.mark.parametrize("source", sources(), ids=str)
def test_nothing_runs_on_the_default_executor(source: Path) -> None:
    found = [f"{source}:{line} {name}" for name, line in attributes(source) if name.endswith("asyncio.to_thread")]
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".run_in_executor"):
            executor = node.args[0] if node.args else None
            if isinstance(executor, ast.Constant) and executor.value is None:
                found.append(f"{source}:{node.lineno} run_in_executor(None, ...)")
    assert found == []


@pytest.mark.parametrize("source", sources(), ids=str)
def test_no_wall_clock_for_media(source: Path) -> None:
    """Wall-clock time is for what people and other systems read: credentials' expiry, protocols' timestamps, logs."""
    wall = {f"{source}:{line}" for name, line in attributes(source) if name == "time.time"}
    wall |= {f"{source}:{i.line}" for i in imports(source) if i.module == "time.time"}
    if source.parts[0] in ("pipeline", "media_server"):
        assert wall == set()


@pytest.mark.parametrize("source", sources(), ids=str)
def test_a_file_is_read_in_one_sitting(source: Path) -> None:
    assert len((ROOT / source).read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("source", sources(), ids=str)
def test_a_function_fits_the_screen(source: Path) -> None:
    functions = [n for n in ast.walk(tree(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f for f in functions if (f.end_lineno or f.lineno) - f.lineno + 1 > MAX_FUNCTION_LINES]
    assert [f"{source}:{f.lineno} {f.name}" for f in long] == []


@pytest.mark.parametrize("source", sources(), ids=str)
def test_no_error_vanishes(source: Path) -> None:
    """``except ...: pass`` hides a fault; ``contextlib.suppress`` at least names it where it happens."""
    handlers = [n for n in ast.walk(tree(source)) if isinstance(n, ast.ExceptHandler)]
    silent = [h for h in handlers if all(isinstance(s, ast.Pass) for s in h.body)]
    assert [f"{source}:{h.lineno}" for h in silent] == []


def test_what_is_imported_is_declared() -> None:
    """A library that merely comes along with another may be gone with the other's next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(w for extra in project["optional-dependencies"].values() for w in extra)]
    declared = {normalized(re.split(r"[^\w.-]", requirement)[0]) for requirement in wanted}
    distributions = packages_distributions()
    theirs = {i.module.split(".")[0] for s in sources() for i in imports(s)} - set(MAY_IMPORT) - sys.stdlib_module_names
    known = {name: {normalized(d) for d in distributions.get(name, [name])} for name in theirs}
    assert [name for name, owners in known.items() if not owners & declared] == []


def normalized(distribution: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_the_packages_that_ship_are_the_ones_that_exist() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(shipped) == sorted({str(s.parent).replace("/", ".") for s in sources()})


@pytest.mark.parametrize(
    "document", sorted(p.relative_to(ROOT) for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=str
)
def test_documents_point_to_what_exists(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / document).read_text())
    assert [target for target in targets if not (ROOT / document.parent / target).exists()] == []
