"""The documentation builds without a warning, loads nothing from other hosts, and names only what exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from toolrec import __version__
from toolrec.cli import build_app

ROOT = Path(__file__).resolve().parents[1]
HISTORY = (ROOT / "docs" / "log.md",)
"""Pages that tell what was run in the past; a command in them need not exist any more."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(set((ROOT / "docs").rglob("*.md")) - set(HISTORY))]
FOREIGN_FLAGS = {
    *("--enable-auto-tool-choice", "--tool-call-parser", "--jinja"),  # LLM servers
    *("--http-host", "--metrics-export-port", "--working-dir", "--nproc-per-node", "--help"),  # Ray, torchrun, typer
}
"""Flags of other programs that the prose mentions."""


def commands_of(page: Path) -> list[list[str]]:
    """The words of every command line in the page's shell blocks; `a && b` and `a | b` are two."""
    found = []
    for block in re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = [*shlex.split(line, comments=True), ";"]
            while words:
                end = next(number for number, word in enumerate(words) if word in (";", "&&", "||", "|", "&"))
                found.append(words[:end])
                words = words[end + 1 :]
    return [words for words in found if words]


def own_arguments(words: list[str]) -> list[str] | None:
    """What follows `toolrec`, `python -m toolrec` or `python -m tune`, also behind a launcher; None for other programs."""
    for number, word in enumerate(words):
        if word == "toolrec" or words[number - 1 : number + 1] == ["-m", "toolrec"]:
            return words[number + 1 :]
        if words[number - 1 : number + 1] == ["-m", "tune"]:
            return ["tune", *words[number + 1 :]]
    return None


def named_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the rest of them."""
    command, rest = get_command(build_app()), list(words)
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    return command, rest


def with_job_apart(arguments: list[str]) -> list[list[str]]:
    """The command, and beside `toolrec submit` the command that it submits."""
    if arguments[:1] != ["submit"]:
        return [arguments]
    names = get_command(build_app()).commands
    begin = next((number for number, word in enumerate(arguments) if number and word in names), len(arguments))
    return [part for part in (arguments[:begin], arguments[begin:]) if part]


def all_flags(command: Any) -> set[str]:
    """The flags of a command and of all below it."""
    flags = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return flags.union(*(all_flags(child) for child in getattr(command, "commands", {}).values()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path):
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert len(sources) > 30
    assert not {str(source) for source in sources if not (site / source).is_file()}


def test_pages_load_nothing_from_other_hosts(site: Path):
    loads = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
    found = {(page.name, address) for page in site.rglob("*.html") for address in loads.findall(page.read_text(encoding="utf-8"))}
    assert not found
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_included_files_are_named_so_that_they_are_included(page: Path):
    marks = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("--8")]
    assert all(re.fullmatch(r'--8<-- "[\w./-]+"', line) for line in marks), marks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_commands_and_flags_exist(page: Path):
    for words in commands_of(page):
        arguments = own_arguments(words)
        if words[0] == "make":
            for verb in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{re.escape(verb)}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), verb
        if arguments is None:
            continue
        for part in with_job_apart(arguments):
            command, rest = named_command(part)
            assert not (hasattr(command, "commands") and rest and not rest[0].startswith("-")), f"no such command: {words}"
            known = all_flags(command)
            unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]
            assert not unknown, f"{' '.join(words)}: {unknown}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_pages_prose_names_exists(page: Path):
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    known = all_flags(get_command(build_app())) | FOREIGN_FLAGS
    for code in re.findall(r"`([^`\n]+)`", prose):
        for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", code):
            assert flag in known, code
        if re.fullmatch(r"(toolrec|tests|examples|benchmarks|serve|tune|docs)/[\w./-]+\.(py|yaml|md|svg)", code):
            assert (ROOT / code).is_file(), code
        if re.match(r"toolrec [a-z]", code):
            command, rest = named_command(code.split()[1:])
            assert not (hasattr(command, "commands") and rest and re.match(r"[a-z]", rest[0])), code


def test_the_commands_of_the_readme_are_found():
    assert sum(own_arguments(words) is not None for words in commands_of(ROOT / "README.md")) >= 5


def test_the_readmes_example_is_the_one_that_is_tested():
    [block] = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert block == (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")


def test_the_readmes_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?://)([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) >= 10
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w]+", "-", heading.lower()).strip("-") for heading in headings}, link


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_every_decision_has_a_number_of_its_own_that_its_title_repeats():
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [page.name.partition("-")[0] for page in pages]
    assert len(numbers) == len(set(numbers))
    for page, number in zip(pages, numbers, strict=True):
        assert page.read_text(encoding="utf-8").startswith(f"# {int(number)}. "), page.name
