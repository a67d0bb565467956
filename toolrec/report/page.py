"""The page itself: one HTML file with scripts and styles inside, served, or written with all data inside.

The data of a written page are parts: gzip in base64 in elements that are no scripts. The browser unpacks the first two to
show the overview and the table, and a block of traces when a user of it is opened.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

from toolrec.data import Dataset
from toolrec.report.compare import compare_json, refuse_other_users
from toolrec.report.overview import overview_json
from toolrec.report.source import RunSource
from toolrec.runs.run import load_run
from toolrec.util.files import atomic_file

STYLES = ("page.css",)
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "text.js", "data.js", "charts.js", "users.js", "trace.js", "page.js")
"""In the order in which they run; each later one uses those before it."""

PART = "part:"


def write_report(runs: Sequence[Path], path: Path, *, dataset: Dataset | None = None) -> None:
    """Writes runs as one page that needs no network, whole or not at all.

    Args:
        runs: run folders; several are compared, the first with each other.
        path: the HTML file.
        dataset: the runs' data set, where it is loaded already.

    Raises:
        RunFolderError: one is no run folder, or it is damaged.
        ConfigError: the runs are over other data or another split, so they cannot be compared.
        StorageError: the file cannot be written.
    """
    sources = open_sources(runs, dataset=dataset)
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        _write(handle, sources)


def open_sources(runs: Sequence[Path], *, dataset: Dataset | None = None) -> list[RunSource]:
    """Opens the runs of one page.

    Raises:
        RunFolderError: one is no run folder, or it is damaged.
        ConfigError: they are over other data or another split.
    """
    sources: list[RunSource] = []
    for run in runs:
        sources.append(RunSource(load_run(run), dataset=dataset or _shared(sources, run)))
    refuse_other_users(sources)
    return sources


def _shared(sources: Sequence[RunSource], run: Path) -> Dataset | None:
    """The data set of an earlier one of the runs, where it is this one's too: it is read once."""
    checksum = load_run(run).manifest["settings"]["dataset_checksum"]
    stored = (source.stored_dataset for source in sources)
    return next((dataset for dataset in stored if dataset is not None and dataset.checksum == checksum), None)


def runs_json(sources: Sequence[RunSource]) -> dict[str, Any]:
    """The parts' list of runs: enough to know what to load, and when a run has grown."""
    return {
        "runs": [
            {
                "name": source.path.resolve().name,
                "status": source.run.status,
                "num_users": sum(source.sizes.values()),
            }
            for source in sources
        ]
    }


def served_page() -> str:
    """The page without data: it asks the server that it came from."""
    return "".join([*_head(title="toolrec", connects=True), *_scripts(), "</body></html>\n"])


def content_security_policy(*, connects: bool) -> str:
    """Only the page's own scripts and styles, by their hashes; connections to the server that it came from, or none."""
    scripts = " ".join(_hash(text) for text in _texts(SCRIPTS))
    styles = " ".join([*(_hash(text) for text in _texts(STYLES)), _hash(chart_style())])
    connect = "; connect-src 'self'" if connects else ""
    return f"default-src 'none'; script-src {scripts}; style-src {styles}{connect}; base-uri 'none'; form-action 'none'"


def _write(handle: TextIO, sources: Sequence[RunSource]) -> None:
    """Overview and users come before the scripts, the traces behind them: the first table does not wait for the whole file."""
    title = "toolrec: " + ", ".join(source.path.resolve().name for source in sources)
    handle.writelines(_head(title=title, connects=False))
    for name, value in _first_parts(sources):
        handle.write(_part(name, value))
    handle.writelines(_scripts())
    for number, source in enumerate(sources):
        for key in source.blocks:
            handle.write(_part(f"run/{number}/block/{key}", source.block_json(key)))
    handle.write("</body></html>\n")


def _first_parts(sources: Sequence[RunSource]) -> Iterator[tuple[str, Any]]:
    yield "runs", runs_json(sources)
    for number, source in enumerate(sources):
        yield f"run/{number}/overview", overview_json(source)
        yield f"run/{number}/users", source.users_json()
    if len(sources) > 1:
        yield "compare", compare_json(sources)


def _part(name: str, value: Any) -> str:
    packed = gzip.compress(as_json(value), compresslevel=9, mtime=0)
    return f'<script type="application/gzip" id="{PART}{name}">{base64.b64encode(packed).decode("ascii")}</script>\n'


def as_json(value: Any) -> bytes:
    """JSON in ASCII: lone halves of surrogate pairs, which LLMs write, pass as they are."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _head(*, title: str, connects: bool) -> Iterable[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{html.escape(content_security_policy(connects=connects))}">\n'
    yield '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
    yield f"<title>{html.escape(title)}</title>\n"
    for text in _texts(STYLES):
        yield f"<style>{text}</style>\n"
    yield '</head>\n<body>\n<noscript>This page shows its data by a script of its own.</noscript>\n<div id="page"></div>\n'


def _scripts() -> Iterable[str]:
    for text in _texts(SCRIPTS):
        yield f"<script>{text}</script>\n"


@cache
def _texts(names: tuple[str, ...]) -> tuple[str, ...]:
    folder = files("toolrec.report") / "assets"
    return tuple(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


@cache
def chart_style() -> str:
    """The style element that the chart library puts into each of its drawings; the page allows it by its hash."""
    return (files("toolrec.report") / "assets" / "chart-style.css").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
