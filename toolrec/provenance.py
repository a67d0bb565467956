"""What a run was made with beside its settings: code, packages, machine. It changes no setting, and may change a figure."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CODE_SUFFIXES = (".py", ".jinja", ".json")


@cache
def package_hash() -> str:
    """SHA-256 over the package's own code and prompt templates: two commits that differ in docs alone have the same."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in CODE_SUFFIXES and path.is_file():
            digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def part_hashes(parts: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 over the sources of each part that is not the package's own, by the name that the settings give it.

    The sources are the part's module and what it imports, directly or not, from the folder in which it was found. Of an
    installed part they are those of its own package.

    Args:
        parts: classes or functions by name; one without a source file is left out.
    """
    found = {}
    for name, part in parts.items():
        digest = hashlib.sha256()
        sources = _own_sources(getattr(part, "__module__", ""))
        for module in sorted(sources):
            digest.update(f"{module}\0".encode())
            digest.update(hashlib.sha256(sources[module].read_bytes()).digest())
        if sources:
            found[name] = digest.hexdigest()
    return found


def _own_sources(name: str) -> dict[str, Path]:
    """Module name -> file, of a module and of all that it imports from the folder that it comes from. Nothing is imported."""
    origin = getattr(sys.modules.get(name), "__file__", None)
    if origin is None or not Path(origin).is_file() or _is_ours(Path(origin)):
        return {}
    first = Path(origin).absolute()
    depth = name.count(".") + (first.name == "__init__.py")
    root = first.parents[min(depth, len(first.parents) - 1)]
    is_installed = root.resolve() in _site_folders()
    found = {name: first.resolve()}  # under whatever name it lies: a link, the script that runs, a compiled module
    waiting = [name, *_imports(first, _package_of(name, first))]
    while waiting:
        module = waiting.pop()
        if module in found or (is_installed and module.partition(".")[0] != name.partition(".")[0]):
            continue
        path = root.joinpath(*module.split("."))
        source = next((one for one in (path / "__init__.py", path.with_suffix(".py")) if one.is_file()), None)
        if source is None or _is_ours(source):
            continue
        found[module] = source.resolve()
        waiting += _imports(source, _package_of(module, source))
    return found


def _is_ours(source: Path) -> bool:
    return source.resolve().is_relative_to(PACKAGE.resolve())


def _package_of(module: str, source: Path) -> str:
    """What a module's relative imports are relative to."""
    return module if source.name == "__init__.py" else module.rpartition(".")[0]


def _imports(source: Path, package: str) -> Iterator[str]:
    """What a file imports, by absolute names; of `from a import b` both `a` and `a.b`, and of `a.b` also `a`."""
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):  # compiled, or edited since it was imported; its bytes are in the hash
        return
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                try:
                    base = importlib.util.resolve_name("." * node.level + base, package)
                except ImportError:  # beyond the top, as in `try: from .a import b` of a file that is also run by itself
                    continue
            names = [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


@cache
def _site_folders() -> frozenset[Path]:
    known = [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")]
    return frozenset(Path(folder).resolve() for folder in (*known, *site.getsitepackages(), site.getusersitepackages()))


def installed_packages() -> dict[str, str]:
    """Every installed distribution and its version, as `pip freeze` names them; read once a process."""
    return dict(_installed())


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    found = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata  # parsed at each look
        if metadata["Name"]:
            found[metadata["Name"]] = metadata["Version"]
    return tuple(sorted(found.items(), key=lambda item: item[0].lower()))


def machine_facts() -> dict[str, Any]:
    """The driver's machine: thread counts and the CPU decide on the last bits of scores, and on the weights of trainings."""
    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
