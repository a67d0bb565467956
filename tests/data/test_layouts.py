"""Every published layout: whole files load right, damaged ones are refused with their place and leave nothing behind."""

from __future__ import annotations

import ast
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from data_layouts import ITEMS, LAYOUTS, NUM_ITEMS, NUM_USERS, Files, Layout
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from toolrec.data import Dataset, load_dataset
from toolrec.data.filters import FilterConfig
from toolrec.data.prepare import prepare
from toolrec.data.sources import SOURCES, SourceConfig, read_source
from toolrec.data.sources.registry import REGISTRY
from toolrec.errors import InputError

Cli = Callable[..., Result]


def write(files: Files, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def prepared(name: str, source: Path, out: Path) -> Dataset:
    prepare(read_source(SourceConfig(source=name, path=source)), out, filters=FilterConfig())
    return load_dataset(out)


def check(dataset: Dataset, layout: Layout) -> None:
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (NUM_USERS, NUM_ITEMS, NUM_USERS * NUM_ITEMS)
    assert sorted(dataset.pool.titles[1:]) == sorted(layout.titles)
    # Every user went through the items in the order of their numbers.
    numbers = [int("".join(filter(str.isdigit, dataset.pool.item_ids[item]))) for item in dataset.items]
    assert numbers == [*ITEMS] * NUM_USERS
    for attribute in layout.attributes:
        assert dataset.pool.coverage(attribute) > 0.4, attribute


@pytest.mark.parametrize("name", LAYOUTS)
def test_whole_files_load(name: str, tmp_path: Path) -> None:
    source = write(LAYOUTS[name].files, tmp_path / "deep" / "folder")
    check(prepared(name, tmp_path / "deep", tmp_path / "out"), LAYOUTS[name])
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, f"inner/{file.name}")
    check(prepared(name, tmp_path / "packed.zip", tmp_path / "zipped"), LAYOUTS[name])
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as tar:
        for file in source.iterdir():
            tar.add(file, f"inner/{file.name}")
    check(prepared(name, tmp_path / "packed.tar.gz", tmp_path / "tarred"), LAYOUTS[name])


def with_line(content: bytes, line: int, text: bytes) -> bytes:
    lines = content.split(b"\n")
    lines[line - 1] = text
    return b"\n".join(lines)


def _cut_item(content: bytes) -> bytes:
    return with_line(content, 3, content.split(b"\n")[2][:-3])


def damages(layout: Layout) -> dict[str, tuple[Files, str]]:
    """What is done to the files, and what the message has to say."""
    rows, items, files = layout.rows, layout.items or layout.rows, layout.files
    third = layout.first_row + 2
    line = f"{rows}, line {third}"
    is_sequences = rows in ("train.txt", "Beauty.txt")  # where half a line is a whole one
    return {
        "rows missing": ({name: content for name, content in files.items() if name != rows}, ""),
        "rows empty": ({**files, rows: b""}, f"{rows} is empty"),
        "rows blank": ({**files, rows: b"\n \n"}, f"{rows} is empty"),
        "items empty": ({**files, items: b""}, f"{items} is empty"),
        "row of one word": ({**files, rows: with_line(files[rows], third, b"broken")}, line),
        "not UTF-8": ({**files, rows: with_line(files[rows], third, b"\xff\xfe" + files[rows].split(b"\n")[third - 1])}, rows),
        "null bytes": ({**files, rows: b"\x00\x01\x02\x03" * 50}, rows),
        "rows are a picture": ({**files, rows: b"\x89PNG\r\n\x1a\n\x00\x00"}, rows),
        "row cut": (
            {**files, rows: with_line(files[rows], third, b"2 x" if is_sequences else files[rows].split(b"\n")[third - 1][:3])},
            line,
        ),
        "row of marks": ({**files, rows: with_line(files[rows], third, b'}{",:;|')}, line),
        "gzip cut": ({**files, rows: b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03abc"}, rows),
        "zstd cut": ({**files, rows: b"\x28\xb5\x2f\xfdabc"}, rows),
    }


DAMAGES = sorted(damages(LAYOUTS["recbole"]))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_files_are_refused(cli: Cli, tmp_path: Path, name: str, damage: str) -> None:
    files, expected = damages(LAYOUTS[name])[damage]
    source = write(files, tmp_path / "source")
    result = cli("prepare", name, "--source", source, "--out", tmp_path / "out")
    assert isinstance(result.exception, InputError), (result.exception, result.stdout)
    assert expected in str(result.exception)
    assert [child.name for child in tmp_path.iterdir()] == ["source"]


JSON_LAYOUTS = ("amazon-2014", "amazon-2018", "amazon-2023", "yelp", "goodreads", "steam")


@pytest.mark.parametrize("name", JSON_LAYOUTS)
def test_damaged_items_are_refused(cli: Cli, tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    assert layout.items is not None
    content = layout.files[layout.items]
    lines = content.split(b"\n")
    for number, (changed, expected) in enumerate(
        {
            with_line(content, 3, lines[2][:-3]): f"{layout.items}, line 3, character ",
            with_line(content, 3, b"[1, 2]"): f"{layout.items}, line 3: not a record",
            with_line(content, 3, b'"text"'): f"{layout.items}, line 3: not a record",
            with_line(content, 3, b"[" * 4000): f"{layout.items}, line 3",
            content.replace(b"B3", b"B2")
            .replace(b"'3'", b"'2'")
            .replace(b'"book_id": "3"', b'"book_id": "2"'): "the same item id twice",
        }.items()
    ):
        source = write({**layout.files, layout.items: changed}, tmp_path / f"source{number}")
        result = cli("prepare", name, "--source", source, "--out", tmp_path / "out")
        assert isinstance(result.exception, InputError) and expected in str(result.exception), (result.exception, expected)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", JSON_LAYOUTS)
def test_values_of_another_type_are_told_with_their_place(cli: Cli, tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    column = {"amazon-2023": "timestamp", "yelp": "date", "goodreads": "date_added", "steam": "date"}.get(name, "unixReviewTime")
    lines = layout.files[layout.rows].split(b"\n")
    row = dict(json.loads(lines[4]) if name != "steam" else ast.literal_eval(lines[4].decode()))
    row[column] = "not at all"
    text = repr(row) if name == "steam" else json.dumps(row)
    source = write({**layout.files, layout.rows: with_line(layout.files[layout.rows], 5, text.encode())}, tmp_path / "source")
    result = cli("prepare", name, "--source", source, "--out", tmp_path / "out")
    assert f"{layout.rows}, line 5, column {column}: not a time" in str(result.exception), result.exception


PIECES = (
    b"", b"\n", b'"', b"\t", b",", b"::", b"null", b"NaN", b"-1", b"1e999", b"[]", b"{}", b"\xef\xbb\xbf", b"\r\n", b"\x00",
    b"\\u0000", b"\\ud800",
)  # fmt: skip


@given(data=st.data())
def test_nothing_but_our_errors(data: st.DataObject) -> None:
    """Whatever stands in the files, preparing ends well or with an error of ours that leaves nothing behind."""
    name = data.draw(st.sampled_from(sorted(LAYOUTS)))
    files = dict(LAYOUTS[name].files)
    victim = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[victim])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 30))
        piece = data.draw(st.one_of(st.binary(max_size=20), st.sampled_from(PIECES)))
        content[start : start + length] = piece
    files[victim] = bytes(content)
    # Not tmp_path_factory: it keeps every folder, and looks through all of them for the next number.
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = write(files, folder / "source")
        try:
            prepared(name, source, folder / "out")
        except InputError as error:
            assert str(error)
            assert [child.name for child in folder.iterdir()] == ["source"]


@given(content=st.one_of(st.binary(max_size=400), st.text(max_size=400).map(lambda text: text.encode("utf-8", "replace"))))
def test_own_files_of_anything(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "clicks.csv").write_bytes(b"user,item,rating,time\n" + content)
        try:
            raw = read_source(SourceConfig(source="own", interactions=folder / "clicks.csv"))
            prepare(raw, folder / "out", filters=FilterConfig())
        except InputError:
            assert [child.name for child in folder.iterdir()] == ["clicks.csv"]


BENCHMARK = {
    f"x.{part}.inter": b"user_id:token\titem_id:token\ttimestamp:float\n"
    + b"".join(b"u%d\ti%d\t%d\n" % (user, item, 1_600_000_000 + item) for user in range(1, 13) for item in items)
    for part, items in {"train": range(1, 9), "valid": range(9, 11), "test": range(11, 14)}.items()
}


@given(data=st.data())
def test_benchmark_files_of_anything(data: st.DataObject) -> None:
    """A split that files give is kept, replaced with a warning, or refused; what is written can be read."""
    files = dict(BENCHMARK)
    victim = data.draw(st.sampled_from(sorted(files)))
    lines = files[victim].split(b"\n")
    row = st.sampled_from([line for content in BENCHMARK.values() for line in content.split(b"\n")[1:]])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(1, len(lines)))
        lines[place : place + data.draw(st.integers(0, 60))] = data.draw(st.lists(row, max_size=4))
    files[victim] = b"\n".join(lines)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = write(files, folder / "source")
        try:
            dataset = prepared("recbole", source, folder / "out")
        except InputError:
            assert [child.name for child in folder.iterdir()] == ["source"]
            return
        for split in ("valid", "test"):
            users, targets = dataset.users_with_target(split), dataset.all_targets(split)
            assert len(users) and (targets[users, 0] > 0).all() and (targets.sum(axis=1) > 0).sum() == len(users)
            for user in users:
                held, history = set(targets[user].tolist()) - {0}, set(dataset.history(int(user), split).tolist())
                assert history and not held & history


def test_the_registry_is_complete(cli: Cli) -> None:
    shown = "".join(cli("list").stdout.split())
    for name, entry in REGISTRY.items():
        assert name in SOURCES and name in shown
        assert entry.home_page.startswith("http") and entry.licence and entry.citation and entry.files and entry.attributes
    assert {"ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest", "ml-latest-small"} <= set(REGISTRY)
    assert {layout for layout in LAYOUTS if layout != "recbole"} <= set(REGISTRY)


@pytest.fixture(scope="session")
def native(test_data: Path) -> Path:
    path = test_data / "native-samples.zip"
    if not path.is_file():
        pytest.skip("native-samples.zip is not at hand (TOOLREC_TEST_DATA)")
    return path


SAMPLES = {
    # interactions, items with an entry of their own, attributes that the records have
    "amazon-2014": (100, {"categories", "price"}),
    "amazon-2018": (200, {"brand", "categories", "sales_rank"}),
    "amazon-2023": (121, {"price"}),
    "yelp": (200, {"city", "stars", "categories", "postal_code"}),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_real_records_in_their_owners_layouts(native: Path, tmp_path: Path, name: str) -> None:
    folder = {"yelp": "yelp-2022"}.get(name, name)
    with zipfile.ZipFile(native) as archive:
        for member in archive.namelist():
            if f"/{folder}/" in member and not member.endswith("/"):
                (tmp_path / "source").mkdir(exist_ok=True)
                (tmp_path / "source" / Path(member).name).write_bytes(archive.read(member))
    raw = read_source(SourceConfig(source=name, path=tmp_path / "source"))
    num_interactions, attributes = SAMPLES[name]
    assert len(raw.interactions.users) == num_interactions
    assert attributes <= {attribute.name for attribute in raw.items.attributes}
    assert raw.interactions.timestamps is not None and raw.interactions.timestamps.min() > 1e8
    assert any(raw.items.titles)
