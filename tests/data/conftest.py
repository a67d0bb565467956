from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from toolrec.cli.data import app
from toolrec.data import Dataset, load_dataset
from toolrec.data.filters import FilterConfig
from toolrec.data.prepare import prepare
from toolrec.data.sources.demo import DemoConfig, read_demo

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Finds a real data file, or skips the test."""
    folder = Path(os.environ.get("TOOLREC_TEST_DATA", REPOSITORY / ".." / "shared" / "data"))

    def find(name: str) -> Path:
        if not (folder / name).is_file():
            pytest.skip(f"{name} is not at hand (TOOLREC_TEST_DATA)")
        return folder / name

    return find


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo data set."""
    out = tmp_path_factory.mktemp("data") / "demo"
    prepare(read_demo(DemoConfig(num_users=80, num_items=150)), out, filters=FilterConfig())
    return out


@pytest.fixture(scope="session")
def demo(demo_folder: Path) -> Dataset:
    return load_dataset(demo_folder)


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Runs `toolrec data …` in process; an error of ours is `result.exception`."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\ttitle:token_seq\tgenre:token_seq\tyear:float\tmaker:token\n"


def recbole_rows(*, num_users: int = 4, num_items: int = 5) -> str:
    """Every user with every item, in the items' order; ratings 1 to 5."""
    rows = []
    for user in range(1, num_users + 1):
        for place in range(1, num_items + 1):
            rows.append(f"u{user}\ti{place}\t{1 + (place - 1) % 5}\t{1_000_000_000 + place}\n")
    return "".join(rows)


ITEM_ROWS = (
    "i1\tThe First\tDrama Comedy\t1990\tacme\n"
    "i2\tThe Second\tDrama\t1991.5\tacme\n"
    "i3\tThe Third\t\t\t\n"
    "i4\tThe Fourth\tComedy\t1993\tzeta\n"
    "i5\tThe Fifth\tWar Drama Comedy\t1994\tzeta\n"
    "i6\tNobody's\tWestern\t1900\tnobody\n"
)


@pytest.fixture
def recbole(tmp_path: Path) -> Callable[..., Path]:
    """Writes a RecBole folder, whole by default; `inter` and `item` take the place of its files' text, None leaves one out."""

    def write(inter: str | bytes | None = INTER + recbole_rows(), item: str | bytes | None = ITEM + ITEM_ROWS) -> Path:
        folder = tmp_path / "tiny"
        folder.mkdir(exist_ok=True)
        for suffix, text in (("inter", inter), ("item", item)):
            if text is not None:
                (folder / f"tiny.{suffix}").write_bytes(text.encode() if isinstance(text, str) else text)
        return folder

    return write


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[[Path], Path]:
    """A zip of a folder, its files below the folder's name."""

    def pack(folder: Path) -> Path:
        path = tmp_path / f"{folder.name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{folder.name}/{file.name}")
        return path

    return pack
