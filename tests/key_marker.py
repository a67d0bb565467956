"""A key set to a marker, and the search for it in all that a test session leaves behind: files, Ray's logs, captured output.

`conftest.py` takes the hooks in. The session fails where the marker is found, whatever its tests said.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

VARIABLES = ("OPENAI_API_KEY", "TOOLREC_TEST_SESSION_KEY")
MARKER = os.environ.setdefault("TOOLREC_TEST_MARKER", f"sk-session-{secrets.token_hex(12)}")
"""New in every session, so that it stands in no source; a session started by a test has that session's."""
MAX_FILE_BYTES = 512 * 1024**2

_found: list[str] = []
_ray_folder: Path | None = None


def files_with(marker: str, folders: Iterable[Path]) -> Iterator[Path]:
    """The files below the folders that hold the marker, in their name, their bytes or (Parquet is compressed) their values."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if marker in path.name or (path.is_file() and not path.is_symlink() and _holds(path, marker)):
                yield path


def _holds(path: Path, marker: str) -> bool:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} is too large to be searched")
    raw = path.read_bytes()
    if marker.encode() in raw:
        return True
    if raw[:4] == b"PAR1" == raw[-4:]:
        return marker in str(pq.read_table(path).to_pydict())
    return False


def pytest_configure(config: pytest.Config) -> None:
    global _ray_folder
    for name in VARIABLES:
        os.environ[name] = MARKER
    # Ray's sessions of this run, those of the commands that it starts too; short, because sockets lie below it.
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker is None:
        _ray_folder = Path(tempfile.mkdtemp(prefix="tr-"))
        os.environ["RAY_TMPDIR"] = str(_ray_folder)
    else:  # below the folder of the process that started it, which searches for all its workers
        os.environ["RAY_TMPDIR"] = str(Path(os.environ["RAY_TMPDIR"]) / worker)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    said = [report.longreprtext, *(text for _, text in report.sections)]
    place = f"output of {report.nodeid}"
    if place not in _found and any(MARKER in text for text in said):
        _found.append(place)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _ray_folder is None:
        return
    folders = [_ray_folder]
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is not None and factory._basetemp is not None:
        folders.append(factory._basetemp)
    _found.extend(str(path) for path in files_with(MARKER, folders))
    if _found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif exitstatus == 0:
        shutil.rmtree(_ray_folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for place in _found:
        terminalreporter.write_line(f"KEY FOUND in {place}", red=True)
