"""The user's own files: formats, guesses, corrections, and what is said of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import Result

from toolrec.data import Dataset, load_dataset
from toolrec.data.filters import FilterConfig
from toolrec.data.options import load_settings, template
from toolrec.data.prepare import prepare
from toolrec.data.sources import SourceConfig, read_source
from toolrec.errors import ConfigError, DataError

Cli = Callable[..., Result]
NUM_USERS, NUM_ITEMS = 8, 12


def clicks() -> pd.DataFrame:
    """Every user with every item but one, the times rising by user; rows shuffled, so that only the times give the order."""
    rows = [
        (f"reader{user}", f"b{(user + place) % NUM_ITEMS}", 1 + place % 5, 1_600_000_000 + 1000 * user + place)
        for user in range(NUM_USERS)
        for place in range(NUM_ITEMS - 1)
    ]
    return pd.DataFrame(rows, columns=["reader_id", "book_id", "stars", "clicked"]).sample(frac=1, random_state=0)


def books() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "book_id": [f"b{n}" for n in range(NUM_ITEMS)],
            "book_name": [f'Book "{n}", volume {n}' for n in range(NUM_ITEMS)],
            "genres": ["Drama|War" if n % 3 else "Love" for n in range(NUM_ITEMS)],
            "author": [f"Author {n % 4}" for n in range(NUM_ITEMS)],
            "year": [1990 + n if n else "n/a" for n in range(NUM_ITEMS)],
        }
    )


def expected_order(user: int) -> list[str]:
    return [f"b{(user + place) % NUM_ITEMS}" for place in range(NUM_ITEMS - 1)]


def order_of(dataset: Dataset, user: int) -> list[str]:
    index = dataset.user_index_of(f"reader{user}")
    return [dataset.pool.item_ids[item] for item in dataset.items[dataset.offsets[index] : dataset.offsets[index + 1]]]


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Writes a frame in the format that the name ends in."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        frame.astype({c: str for c in frame if frame[c].dtype == object}).to_parquet(path, index=False)
    elif name.endswith(".jsonl"):
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(frame.to_csv(index=False).encode())
    else:
        frame.to_csv(path, index=False, sep={".tsv": "\t", ".txt": ";"}.get(Path(name).suffix, ","))
    return path


def check_books(dataset: Dataset) -> None:
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (NUM_USERS, NUM_ITEMS, NUM_USERS * (NUM_ITEMS - 1))
    for user in range(NUM_USERS):
        assert order_of(dataset, user) == expected_order(user)
    assert dataset.ratings is not None and dataset.ratings[: NUM_ITEMS - 1].tolist() == [
        1 + place % 5 for place in range(NUM_ITEMS - 1)
    ]
    b4 = dataset.pool.index_of("b4")
    assert b4 is not None and dataset.pool.titles[b4] == 'Book "4", volume 4'
    assert dataset.pool.fields(b4) == (("genres", ("Drama", "War")), ("author", ("Author 0",)), ("year", ("1994",)))
    b0 = dataset.pool.index_of("b0")
    assert b0 is not None and dataset.pool.values("year", b0) == ()


FORMATS = [
    "clicks.csv",
    "clicks.tsv",
    "clicks.txt",
    "clicks.jsonl",
    "clicks.parquet",
    "clicks.csv.gz",
    "clicks.jsonl.gz",
    "clicks.csv.zst",
]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same(cli: Cli, tmp_path: Path, name: str) -> None:
    first = write(clicks(), tmp_path / name)
    second = write(books(), tmp_path / name.replace("clicks", "books"))
    result = cli("prepare", "--interactions", first, "--items", second, "--time-column", "clicked", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.exception
    check_books(load_dataset(tmp_path / "out"))
    said = " ".join(result.stdout.split())
    assert "found in the files" in said and "--title-column" in said


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(cli: Cli, tmp_path: Path, encoding: str) -> None:
    named = books().assign(book_name=[f"Café {n}" for n in range(NUM_ITEMS)])
    named.to_csv(tmp_path / "books.csv", index=False, encoding=encoding)
    clicks().to_csv(tmp_path / "clicks.csv", index=False, encoding=encoding)
    arguments = ("--interactions", tmp_path / "clicks.csv", "--items", tmp_path / "books.csv", "--out", tmp_path / "out")
    assert cli("prepare", *arguments).exit_code == 0
    assert load_dataset(tmp_path / "out").pool.titles[1] == "Café 0"


def test_pandas_frames(tmp_path: Path) -> None:
    config = SourceConfig(source="own", interactions=clicks(), items=books(), name="mine", columns={"time": "clicked"})
    prepare(read_source(config), tmp_path / "out", filters=FilterConfig())
    check_books(load_dataset(tmp_path / "out"))


def test_part_files_in_a_folder(cli: Cli, tmp_path: Path) -> None:
    frame = clicks()
    (tmp_path / "parts").mkdir()
    for number in range(3):
        write(frame.iloc[number::3], tmp_path / "parts" / f"part-{number}.csv")
    (tmp_path / "parts" / "_SUCCESS").write_text("")
    items = write(books(), tmp_path / "books.csv")
    result = cli(
        "prepare", "--interactions", tmp_path / "parts", "--items", items, "--time-column", "clicked", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.exception
    check_books(load_dataset(tmp_path / "out"))
    (tmp_path / "parts" / "part-1.csv").write_text("reader_id,book_id,stars,clicked\nr,b1,x,1\n")
    wrong = cli("prepare", "--interactions", tmp_path / "parts", "--out", tmp_path / "none")
    assert "part-1.csv, line 2, column stars: not a number; got: 'x'" in str(wrong.exception)


def test_urls(cli: Cli, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/clicks.csv.gz", gzip.compress(clicks().to_csv(index=False).encode()))
    memory.pipe("/bucket/books.csv", books().to_csv(index=False).encode())
    result = cli(
        "prepare", "--interactions", "memory://bucket/clicks.csv.gz", "--items", "memory://bucket/books.csv",
        "--time-column", "clicked", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    check_books(dataset)
    assert dataset.name == "clicks"
    absent = cli("prepare", "--interactions", "memory://bucket/none.csv", "--out", tmp_path / "none")
    assert isinstance(absent.exception, DataError) and "does not exist" in str(absent.exception)


def test_toml_and_flags(cli: Cli, tmp_path: Path) -> None:
    write(clicks(), tmp_path / "clicks.csv")
    write(books(), tmp_path / "books.csv")
    settings = tmp_path / "mine.toml"
    settings.write_text(
        'name = "shelf"\ninteractions = "clicks.csv"\nitems = "books.csv"\ntime_column = "clicked"\nitem_word = "book"\n'
        'consumed_word = "read"\nrating_words = "{rating} of 5"\nattributes = ["author", "era"]\n'
        '[kinds]\nera = "category"\n[rename]\nyear = "era"\n'
    )
    result = cli("prepare", "--config", settings, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    assert dataset.name == "shelf" and {name: spec.kind for name, spec in dataset.pool.attributes.items()} == {
        "author": "category", "era": "category"
    }  # fmt: skip
    domain = dataset.pool.domain
    assert (domain.item, domain.items, domain.consumed, domain.rating) == ("book", "books", "read", "{rating} of 5")
    assert cli("prepare", "--config", settings, "--name", "other", "--out", tmp_path / "b").exit_code == 0
    assert load_dataset(tmp_path / "b").name == "other"  # a flag wins


def test_the_template_is_valid_toml_and_knows_every_setting(cli: Cli, tmp_path: Path) -> None:
    result = cli("template", "--name", "shelf")
    (tmp_path / "shelf.toml").write_text(result.stdout)
    settings = load_settings(tmp_path / "shelf.toml", {})
    assert settings.name == "shelf" and settings.interactions == str(tmp_path / "clicks.csv")
    # Each example is taken when its comment mark is removed, one at a time.
    lines = template().split("\n")
    examples = [line[2:] for line in lines if line.startswith("# ") and " = " in line]
    assert len(examples) > 35
    for example in examples:
        if not example.startswith(("year", "genre", "book_genre", "behavior")):
            (tmp_path / "one.toml").write_text(example.replace("none", '"x"') + "\n")
            load_settings(tmp_path / "one.toml", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nome = 'x'", "unknown setting nome; did you mean name?; it comes from file "),
        ("max_values = 'many'", "max_values (--max-values) is not a whole number; got: many; allowed: a whole number, 2 or more"),
        ("split = 'half'", "split (--split) has no such value; got: half"),
        ("keep = ['x']", "--keep is given as COLUMN=VALUE; got: x"),
        ("[kinds\n", "the settings are not TOML"),
        ("since = 'soon'", "since is no time; got: soon"),
        ("[kinds]\nyear = 'date'", "unknown kind for the attribute year"),
        ("rating_words = 'stars'", "begins with {rating}"),
    ],
)
def test_bad_settings(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    write(clicks(), tmp_path / "clicks.csv")
    (tmp_path / "bad.toml").write_text('interactions = "clicks.csv"\n' + text)
    result = cli("prepare", "--config", tmp_path / "bad.toml", "--out", tmp_path / "out")
    assert isinstance(result.exception, (ConfigError, DataError)) and message in str(result.exception), result.exception
    assert not (tmp_path / "out").exists()


def test_without_items_times_and_ratings(cli: Cli, tmp_path: Path) -> None:
    write(clicks().sort_values("clicked")[["reader_id", "book_id"]], tmp_path / "clicks.csv")
    result = cli("prepare", "--interactions", tmp_path / "clicks.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    assert order_of(dataset, 3) == expected_order(3)
    notes = " ".join(dataset.manifest["notes"])
    for lost in (
        "no titles and no attributes",
        "the order of the rows is taken for the order in time",
        "prompts show no ratings",
    ):
        assert lost in notes


def test_without_a_header(cli: Cli, tmp_path: Path) -> None:
    clicks().to_csv(tmp_path / "clicks.csv", index=False, header=False)
    result = cli("prepare", "--interactions", tmp_path / "clicks.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    assert order_of(dataset, 2) == expected_order(2) and dataset.has_ratings
    assert any("by its values: the file has no header" in note for note in dataset.manifest["notes"])


def test_items_in_the_file_of_interactions(cli: Cli, tmp_path: Path) -> None:
    both = clicks().merge(books(), on="book_id").sort_values("clicked")
    write(both, tmp_path / "both.csv")
    result = cli(
        "prepare", "--interactions", tmp_path / "both.csv", "--items", tmp_path / "both.csv", "--time-column", "clicked",
        "--attributes", "genres,author", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    assert dataset.pool.titles[1].startswith('Book "') and order_of(dataset, 1) == expected_order(1)


@pytest.mark.parametrize(
    ("times", "first_day"),
    [
        (["2020-09-13T12:26:40Z", "2020-09-14", "2020-09-15 01:00:00"], "2020-09-13"),
        (["1600000000", "1600100000", "1600200000"], "2020-09-13"),
        (["1600000000000", "1600100000000", "1600200000000"], "2020-09-13"),
        (["1600000000000000", "1600100000000000", "1600200000000000"], "2020-09-13"),
        (["2001-09-09", "2001-09-10", "2001-09-11"], "2001-09-09"),
    ],
)
def test_times_in_any_unit(cli: Cli, tmp_path: Path, times: list[str], first_day: str) -> None:
    rows = [f"u{user},i{place},{times[place]}" for user in range(2) for place in (2, 0, 1)]
    (tmp_path / "c.csv").write_text("user,item,date\n" + "\n".join(rows) + "\n")
    assert cli("prepare", "--interactions", tmp_path / "c.csv", "--out", tmp_path / "out").exit_code == 0
    dataset = load_dataset(tmp_path / "out")
    assert [dataset.pool.item_ids[item] for item in dataset.items[:3]] == ["i0", "i1", "i2"]
    assert any(f"{first_day} to" in finding["what"] for finding in dataset.manifest["findings"])


def test_json_ids_of_several_types_and_lists(cli: Cli, tmp_path: Path) -> None:
    pairs = [(user, item) for user in range(3) for item in range(5)]
    rows = [{"user": user, "item": item if item % 2 else str(item), "ts": 10**9 + item} for user, item in pairs]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    items = [{"id": item, "title": f"T{item}", "tags": ["a", "b"] if item % 2 else ["c"], "more": {"x": 1}} for item in range(5)]
    (tmp_path / "i.jsonl").write_text("\n".join(map(json.dumps, items)))
    result = cli("prepare", "--interactions", tmp_path / "c.jsonl", "--items", tmp_path / "i.jsonl", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    assert dataset.pool.item_ids[1:] == ["0", "1", "2", "3", "4"] and dataset.pool.values("tags", 2) == ("a", "b")
    assert any("it holds nested records" in note for note in dataset.manifest["notes"])


def test_places_titles_entities_and_caps(cli: Cli, tmp_path: Path) -> None:
    write(clicks(), tmp_path / "clicks.csv")
    cities = ["Tampa", "tampa", "Tampa", "Reno"] * 3
    shops = pd.DataFrame(
        {
            "book_id": [f"b{n}" for n in range(NUM_ITEMS)],
            "name": ["Starbucks" if n in (0, 3) else f"Shop &amp; Co {n}" for n in range(NUM_ITEMS)],
            "city": cities,
            "tags": [f"t{n % 3};rare{n}" for n in range(NUM_ITEMS)],
        }
    )
    write(shops, tmp_path / "shops.csv")
    result = cli(
        "prepare", "--interactions", tmp_path / "clicks.csv", "--items",
        tmp_path / "shops.csv", "--attributes", "city,tags:categories",
        "--sequence-separator", ";", "--max-values", "3", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    titles = dict(zip(dataset.pool.item_ids, dataset.pool.titles, strict=True))
    assert (titles["b0"], titles["b3"], titles["b1"]) == ("Starbucks (Tampa)", "Starbucks (Reno)", "Shop & Co 1")
    assert dataset.pool.categories("city")[0] == ["", "Reno", "Tampa"]  # spellings put together
    assert dataset.pool.categories("tags")[0] == ["", "t0", "t1", "t2"]
    assert any("12 of 15 values left out, the rarest" in note for note in dataset.manifest["notes"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "clicks.csv is empty"),
        (b"user,item\n", "a header and no rows"),
        (b"alpha\nbeta\n", "clicks.csv, line 1: no column separator found"),
        (b"who,what\nu,i\n", "clicks.csv, line 1: no column is recognised as the user"),
        (b"user,item,stars\nu,i,5\nu,j\n", "clicks.csv, line 3: 2 columns where 3 are expected"),
        (b"user,item,stars\nu,i,5\nu,j,good\n", "clicks.csv, line 3, column stars: not a number; got: 'good'"),
        (b"user,item,time\nu,i,2020-01-01\nu,j,soon\n", "clicks.csv, line 3, column time: not a time"),
        (b"user,item,user\nu,i,5\n", "a column twice; got: 'user'"),
        (b"user,item\n,\n ,\n", "no row has both a user and an item"),
        (b'{"user": 1, "item": 2}\n{"user": 1, "item" 2}\n', "clicks.csv, line 2, character 20: not JSON"),
        (b'{"user": 1, "item": 2}\n[1]\n', "clicks.csv, line 2: not a JSON object"),
        (b"[1, 2]", "line 1: a JSON array"),
        (b"PAR1 and no more", "not a whole Parquet file"),
        (b"user,item\n\x00\x01,2\n", "not a text file"),
        (b"\x1f\x8b\x08\x00broken", "cannot be read"),
    ],
)
def test_bad_files_are_told_with_their_place(cli: Cli, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "clicks.csv").write_bytes(content)
    result = cli("prepare", "--interactions", tmp_path / "clicks.csv", "--out", tmp_path / "out")
    assert isinstance(result.exception, DataError), result.exception
    assert message in str(result.exception) and result.exception.exit_code == 2
    assert sorted(child.name for child in tmp_path.iterdir()) == ["clicks.csv"]


def test_damage_beyond_the_sample(cli: Cli, tmp_path: Path) -> None:
    good = "".join(f'{{"user": "u{n % 100}", "item": "i{n % 77}", "note": "{"x" * 900}"}}\n' for n in range(12_000))
    (tmp_path / "clicks.jsonl").write_text(good + '{"user": "u1", "item": \n')
    result = cli("prepare", "--interactions", tmp_path / "clicks.jsonl", "--out", tmp_path / "out")
    assert "clicks.jsonl, line 12001, character" in str(result.exception)
    (tmp_path / "clicks.jsonl").write_bytes(good.encode() + b'{"user": "u1", "item": "\xff"}\n')
    result = cli("prepare", "--interactions", tmp_path / "clicks.jsonl", "--out", tmp_path / "out")
    assert "clicks.jsonl, line 12001, character 25: not UTF-8 text" in str(result.exception)


def test_a_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    write(clicks(), tmp_path / "clicks.csv")
    result = cli("prepare", "--interactions", tmp_path / "clicks.csv", "--dry-run", "--out", tmp_path / "out")
    assert result.exit_code == 0 and "nothing was written" in result.stdout and not (tmp_path / "out").exists()


def test_names_of_data_sets(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps never share a folder because their names were cut at a dot."""
    monkeypatch.chdir(tmp_path)
    for core in ("5core", "10core"):
        write(clicks(), tmp_path / f"beauty.{core}.csv.gz")
        assert cli("prepare", "--interactions", f"beauty.{core}.csv.gz").exit_code == 0
    assert sorted(child.name for child in (tmp_path / "data").iterdir()) == ["beauty.10core", "beauty.5core"]


def test_as_texts_keeps_whole_numbers_whole() -> None:
    from toolrec.data.reading.formats import as_texts

    assert as_texts(pa.array([1.0, 2.5, None])).to_pylist() == ["1", "2.5", None]
    assert as_texts(pa.array([10**15, 7])).to_pylist() == [str(10**15), "7"]
    assert as_texts(pa.array(["a", "b", "a"]).dictionary_encode()).to_pylist() == ["a", "b", "a"]
