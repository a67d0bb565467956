from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolrec.data import Dataset, load_dataset
from toolrec.data.filters import FilterConfig
from toolrec.data.pool import MAX_SHOWN_TEXT
from toolrec.data.prepare import prepare
from toolrec.data.reading.attributes import AttributeOptions
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
from toolrec.data.sources import SourceConfig, read_source
from toolrec.data.sources.demo import MAX_LENGTH, MIN_LENGTH, DemoConfig, read_demo
from toolrec.data.sources.movielens import GENRES_100K
from toolrec.data.sources.recbole import RecBoleConfig, read_items, read_recbole
from toolrec.errors import ConfigError, DataError
from toolrec.grammar import ItemLine, parse_item_line, render_item_line

Recbole = Callable[..., Path]


def prepared(config: SourceConfig, out: Path, *, attributes: list[str] | None = None, **filters: object) -> Dataset:
    prepare(read_source(config), out, filters=FilterConfig(**filters), attributes=attributes)  # type: ignore[arg-type]
    return load_dataset(out)


def native_100k(folder: Path) -> Path:
    """Two users and four movies in the layout of MovieLens 100K."""
    folder.mkdir()
    rows = [f"{user}\t{item}\t{rating}\t{881250949 + item}" for user in (1, 2) for item, rating in ((10, 5), (2, 3), (1, 4))]
    (folder / "u.data").write_text("\n".join(rows) + "\n")

    def flags(*genres: str) -> str:
        return "|".join("1" if genre in genres else "0" for genre in GENRES_100K)

    items = [
        f"1|Les Misérables (1995)|01-Jan-1995||http://x|{flags('Drama', 'Musical')}",
        f"2|unknown||||{flags('unknown')}",
        f"10|Seven (a.k.a. Se7en) (1995) |01-Jan-1995||http://x|{flags('Crime')}",
        f"11|Nobody's (1901)|||http://x|{flags('War')}",
    ]
    (folder / "u.item").write_bytes(("\n".join(items) + "\n").encode("latin-1"))
    return folder


def native_1m(folder: Path, *, movies_encoding: str = "latin-1") -> Path:
    """Two users and four movies in the layout of MovieLens 1M."""
    folder.mkdir()
    rows = [f"{user}::{item}::{rating}::{978300760 + item}" for user in (1, 2) for item, rating in ((10, 5), (2, 3), (1, 4))]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    movies = "1::Léon: The Professional (1994)::Crime|Drama\n2::Alien (1979)::Sci-Fi\n10::Up (2009)::Animation\n"
    (folder / "movies.dat").write_bytes(movies.encode(movies_encoding))
    return folder


def check_native(dataset: Dataset, titles: list[str], genres: list[tuple[str, ...]], years: list[float]) -> None:
    assert dataset.pool.titles[1:] == titles
    assert [dataset.pool.values("genre", index) for index in range(1, 4)] == genres
    np.testing.assert_array_equal(dataset.pool.numbers("release_year")[1:], years)
    # By time, so by item id here: 1, 2, 10 with ratings 4, 3, 5.
    assert [dataset.pool.item_ids[item] for item in (*dataset.history(1, "test"), dataset.target(1, "test"))] == ["1", "2", "10"]
    assert dataset.ratings is not None and dataset.ratings.tolist() == [4, 3, 5] * 2
    assert dataset.manifest["timestamp_kind"] == "unix_seconds"
    assert dataset.pool.domain.is_movies and dataset.pool.domain.consumed == "watched"


@pytest.mark.parametrize("as_zip", [False, True])
def test_movielens_100k_native(tmp_path: Path, zipped: Callable[[Path], Path], as_zip: bool) -> None:
    folder = native_100k(tmp_path / "ml-100k")
    dataset = prepared(SourceConfig(source="ml-100k", path=zipped(folder) if as_zip else folder), tmp_path / "out")
    titles = ["Les Misérables (1995)", "unknown", "Seven (a.k.a. Se7en) (1995)"]
    check_native(dataset, titles, [("Drama", "Musical"), (), ("Crime",)], [1995, np.nan, 1995])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movielens_1m_native(tmp_path: Path, encoding: str) -> None:
    folder = native_1m(tmp_path / "ml-1m", movies_encoding=encoding)
    dataset = prepared(SourceConfig(source="ml-1m", path=folder), tmp_path / "out")
    titles = ["Léon: The Professional (1994)", "Alien (1979)", "Up (2009)"]
    check_native(dataset, titles, [("Crime", "Drama"), ("Sci-Fi",), ("Animation",)], [1994, 1979, 2009])


def test_files_one_folder_down_and_windows_line_ends(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    folder = native_1m(outer / "ml-1m")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    dataset = prepared(SourceConfig(source="ml-1m", path=outer), tmp_path / "out")
    assert dataset.pool.values("genre", 3) == ("Animation",)


def test_the_files_of_the_other_movielens(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="files of ml-1m, not of ml-100k"):
        read_source(SourceConfig(source="ml-100k", path=native_1m(tmp_path / "x")))


def damaged_1m(tmp_path: Path, name: str, content: bytes | None) -> SourceConfig:
    folder = native_1m(tmp_path / "ml-1m")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return SourceConfig(source="ml-1m", path=folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ratings.dat", None, "no file ratings.dat"),
        ("movies.dat", None, "no file movies.dat"),
        ("ratings.dat", b"", "ratings.dat is empty"),
        ("ratings.dat", b"  \n\n", "ratings.dat is empty"),
        ("ratings.dat", b"1::1::5::9\n1::2::five::9\n", "line 2: rating is not a number; got: five"),
        ("ratings.dat", b"1::1::5::9\n1::2::4::\n", "line 2: timestamp is not a number"),
        ("ratings.dat", b"1::1::nan::9\n", "line 1: rating is not a number; got: nan"),
        ("ratings.dat", b"1::1::5::9\n1::2::inf::9\n", "line 2: rating is not a number; got: inf"),
        ("ratings.dat", b"1::1::5::9\n1::2::5\n", "line 2: 3 columns where 4 are expected"),
        ("ratings.dat", b"1::1::5::9\n\n1::2::5::9\n", "line 2: an empty line"),
        ("ratings.dat", b"1::1::5::9\r\n\r\n1::2::5::9\r\n", "line 2: an empty line"),
        ("ratings.dat", b"\n1::1::5::9\n", "line 1: an empty line"),
        ("ratings.dat", b"1,1,5,9\n1,2,5,9\n", "line 1: 1 columns where 4 are expected"),
        ("ratings.dat", "1::é::5::9\n".encode("latin-1"), "line 1: not UTF-8"),
        ("ratings.dat", "1::1::5::9\n".encode("utf-16"), "null bytes"),
        ("movies.dat", "1::Up (2009)::War\n".encode("utf-16"), "null bytes"),
        ("movies.dat", b"1::Up (2009)::War\n2::Down\n", "line 2: 2 columns where 3 are expected"),
        ("movies.dat", b"1::Up (2009)::War\n1::Down (2010)::War\n", "lines 1 and 2: the same item id twice; got: 1"),
    ],
)
def test_bad_movielens_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    with pytest.raises(DataError) as raised:
        read_source(damaged_1m(tmp_path, name, content))
    assert message in str(raised.value)


def test_recbole_kinds_and_values(recbole: Recbole, tmp_path: Path) -> None:
    dataset = prepared(SourceConfig(source="recbole", path=recbole()), tmp_path / "out")
    assert dataset.name == "tiny"
    assert {spec.name: spec.kind for spec in dataset.pool.attributes.values()} == {
        "genre": "categories", "year": "number", "maker": "category"
    }  # fmt: skip
    assert dataset.pool.fields(2) == (("genre", ("Drama",)), ("year", ("1991.5",)), ("maker", ("acme",)))
    assert dataset.pool.fields(3) == ()
    assert dataset.pool.index_of("i6") is None  # nobody's: the pool is what is left in the interactions
    assert dataset.pool.titles[1:] == ["The First", "The Second", "The Third", "The Fourth", "The Fifth"]
    assert not dataset.pool.domain.is_movies


@pytest.mark.parametrize(
    ("column", "entries", "separator", "kind", "values"),
    [
        ("tags:token_seq", ["a b|c", "d"], None, "categories", [("a b", "c"), ("d",)]),
        ("tags:token_seq", ["a b", "c c"], None, "categories", [("a", "b"), ("c",)]),
        ("tags:token_seq", ["a b, c", "d"], ",", "categories", [("a b", "c"), ("d",)]),
        ("tags:token", ["a b|c", "d"], None, "categories", [("a b", "c"), ("d",)]),
        ("tags:token", ["a b", "c"], None, "category", [("a b",), ("c",)]),
        ("tags:token", ["1995", "12.50"], None, "number", [("1995",), ("12.5",)]),
        ("tags:token", ["1995", "V"], None, "category", [("1995",), ("V",)]),
        ("tags:float", ["1.5", "", "2.5"], None, "number", [("1.5",), ()]),
    ],
)
def test_recbole_inference(
    recbole: Recbole, column: str, entries: list[str], separator: str | None, kind: str, values: list[tuple[str, ...]]
) -> None:
    rows = "".join(f"i{place}\t{entry}\n" for place, entry in enumerate([*entries, entries[0]], start=1))
    folder = recbole(item=f"item_id:token\t{column}\n{rows}")
    options = AttributeOptions(separator=separator)
    items = read_items(SourceFiles(folder), RecBoleConfig(name="x", attributes=options), Findings())
    raw = read_recbole(SourceFiles(folder), RecBoleConfig(name="x", attributes=options))
    assert [attribute.kind for attribute in items.attributes] == [kind]
    out = folder.parent / "out"
    prepare(raw, out, filters=FilterConfig())
    pool = load_dataset(out).pool
    assert [pool.values("tags", index) for index in (1, 2)] == values


def test_recbole_without_items_times_and_ratings(recbole: Recbole, tmp_path: Path) -> None:
    rows = "".join(f"{user}\t{item}\n" for user in "ab" for item in (3, 1, 2))
    source = recbole(inter="user_id:token\titem_id:token\n" + rows, item=None)
    dataset = prepared(SourceConfig(source="recbole", path=source), tmp_path / "out")
    assert [dataset.pool.titles[item] for item in dataset.items] == ["3", "1", "2"] * 2
    assert not dataset.has_ratings and not dataset.has_timestamps and not dataset.pool.attributes
    assert any("no .item file" in note for note in dataset.manifest["notes"])
    assert any("the order of the rows is taken for the order in time" in note for note in dataset.manifest["notes"])


def test_recbole_given_kind_and_title_column(recbole: Recbole, tmp_path: Path) -> None:
    config = SourceConfig(
        source="recbole", path=recbole(), columns={"title": "maker"}, attributes=AttributeOptions(kinds={"year": "category"})
    )
    dataset = prepared(config, tmp_path / "out", attributes=["year"])
    assert dataset.pool.attributes["year"].kind == "category"
    assert dataset.pool.titles[1:] == ["acme (1990)", "acme (1991.5)", "i3", "zeta (1993)", "zeta (1994)"]


def test_identifiers_are_no_attributes_unless_asked_for(recbole: Recbole, tmp_path: Path) -> None:
    item = "item_id:token\tcode:token\tvector:float_seq\n" + "".join(f"i{n}\tc{n}\t1 2\n" for n in range(1, 6))
    path = recbole(item=item)
    dataset = prepared(SourceConfig(source="recbole", path=path), tmp_path / "out")
    assert not dataset.pool.attributes
    assert any("column code: left out: every item has a value of its own" in note for note in dataset.manifest["notes"])
    assert any("column vector: left out: float_seq" in note for note in dataset.manifest["notes"])
    dataset = prepared(
        SourceConfig(source="recbole", path=path, attributes=AttributeOptions(kinds={"code": "category"})), tmp_path / "other"
    )
    assert list(dataset.pool.attributes) == ["code"]


def test_a_column_given_as_text(recbole: Recbole, tmp_path: Path) -> None:
    plot = "a  very <long> plot | " + "word, " * 50
    item = f"item_id:token\tplot:token_seq\ni1\t{plot}\ni2\t\ni3\tshort\ni4\tshort\n"
    config = SourceConfig(source="recbole", path=recbole(item=item), attributes=AttributeOptions(kinds={"plot": "text"}))
    pool = prepared(config, tmp_path / "out").pool
    assert pool.attributes["plot"].kind == "text" and pool.attributes["plot"].num_values == 2
    assert pool.texts("plot")[1] == " ".join(plot.split())  # whole, for the encoder
    (shown,) = pool.values("plot", 1)  # cut and clean, for prompts
    assert len(shown) == MAX_SHOWN_TEXT and shown.startswith("a very ‹long› plot / word") and shown.endswith("…")
    line = render_item_line(ItemLine(item_id="i1", title="One", fields=pool.fields(1)))
    parsed = parse_item_line(line)
    assert parsed is not None and parsed.fields[0][0] == "plot" and len(parsed.fields[0][1]) == 1
    assert pool.values("plot", 2) == () and pool.coverage("plot") == 3 / pool.num_items
    for wrong in (lambda: pool.categories("plot"), lambda: pool.numbers("plot")):
        with pytest.raises(DataError):
            wrong()


HEAD = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"inter": None}, "no .inter file"),
        ({"inter": b""}, "tiny.inter is empty"),
        ({"inter": HEAD}, "a header and no rows"),
        ({"inter": b"user_id\titem_id\n1\t1\n"}, "line 1: a header of name:type"),
        ({"inter": b"user_id:token\tthing:token\n1\t1\n"}, "line 1: no column is recognised as the item"),
        ({"inter": b"user_id:token\tuser_id:token\n1\t1\n"}, "a column twice"),
        ({"inter": HEAD + b"u\ti\t5\t1\nu\tj\t5\n"}, "line 3: 3 columns where 4 are expected"),
        ({"inter": HEAD + b"u\ti\t5\t1\nu\tj\tx\t1\n"}, "tiny.inter, line 3, column rating: not a number; got: 'x'"),
        ({"inter": HEAD + b"u\ti\t5\tnoon\n"}, "tiny.inter, line 2, column timestamp: not a time"),
        ({"inter": HEAD + b"u\xff\ti\t5\t1\n"}, "not UTF-8"),
        ({"item": b"item_id:token\ttitle:token_seq\ni1\tA\ni1\tB\n"}, "and tiny.item, line 3: the same item id twice; got: i1"),
        ({"item": b"id:token\ttitle:token_seq\ni1\tA\n"}, "no column item_id"),
        ({"item": b"item_id:token\tyear:float\ni1\t1990\ni2\tMM\n"}, "line 3: year is not a number; got: MM"),
        ({"item": b"item_id:token\ttitle:token_seq\ni1\t\xe9\n"}, "not UTF-8"),
    ],
)  # fmt: skip
def test_bad_recbole_files(recbole: Recbole, parts: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(DataError) as raised:
        read_source(SourceConfig(source="recbole", path=recbole(**parts)))
    assert message in str(raised.value)


def test_ids_that_differ_by_marks_alone_are_said(recbole: Recbole, tmp_path: Path) -> None:
    rows = "".join(f"u{user}\t{item}\t5\t{time}\n" for user in (1, 2) for time, item in enumerate(("7.", "7", "*8*", "9")))
    raw = read_source(SourceConfig(source="recbole", path=recbole(inter=HEAD.decode() + rows, item=None)))
    notes = prepare(raw, tmp_path / "out", filters=FilterConfig())["notes"]
    [said] = [note for note in notes if "only by marks" in note]
    assert "1 differ from another id only by marks around it: '7.'" in said


@pytest.mark.parametrize("bad", ["a<b", "a>b", "a|b", "a[b", "a]b", "a\x01b", "x" * 513])
def test_item_ids_that_prompts_cannot_carry(recbole: Recbole, tmp_path: Path, bad: str) -> None:
    rows = "".join(f"u\t{item}\t5\t1\n" for item in ("i1", "i2", bad))
    raw = read_source(SourceConfig(source="recbole", path=recbole(inter=HEAD.decode() + rows)))
    with pytest.raises(DataError, match="1 item ids cannot be used"):
        prepare(raw, tmp_path / "out", filters=FilterConfig())
    assert not (tmp_path / "out").exists()


def test_attributes_unknown_empty_and_twice(recbole: Recbole, tmp_path: Path) -> None:
    item = (
        "item_id:token\tgenre:token_seq\tcolor:token\tlate:token\n"
        + "".join(f"i{n}\tWar\t\t\n" for n in range(1, 6))
        + "i6\tWar\t\tx\n"
    )
    raw = read_source(SourceConfig(source="recbole", path=recbole(item=item)))

    def run(*names: str) -> None:
        prepare(raw, tmp_path / "out", filters=FilterConfig(), attributes=names)

    with pytest.raises(ConfigError, match="got: mood; allowed: late, genre, color"):
        run("genre", "mood")
    with pytest.raises(ConfigError, match="named twice"):
        run("genre", "genre")
    with pytest.raises(DataError, match="no item has a value for this attribute; got: color"):
        run("color")
    with pytest.raises(DataError, match="no item that is left after filtering has a value"):
        run("late")
    assert not (tmp_path / "out").exists()


def test_zip_archives_that_are_not_whole(tmp_path: Path, recbole: Recbole, zipped: Callable[[Path], Path]) -> None:
    archive = zipped(recbole())
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a zip", whole[:60]):
        archive.write_bytes(content)
        with pytest.raises(DataError, match="not a whole zip archive"):
            read_source(SourceConfig(source="recbole", path=archive))
    # The directory at the end is whole and a member is not.
    start = whole.index(b"tiny/tiny.inter") + len("tiny/tiny.inter")
    archive.write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
    with pytest.raises(DataError, match="cannot be read from the archive"):
        read_source(SourceConfig(source="recbole", path=archive))


def test_members_outside_the_archive_are_never_written(tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as handle:
        handle.writestr("../../escaped.inter", HEAD + b"".join(b"u\ti%d\t5\t%d\n" % (n, n) for n in range(4)))
    dataset = prepared(SourceConfig(source="recbole", path=archive), tmp_path / "out")
    assert len(dataset.items) == 4
    assert not list(tmp_path.parent.rglob("escaped*")) and not list(tmp_path.rglob("escaped*"))


def test_source_missing_empty_or_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        SourceFiles(tmp_path / "none")
    with pytest.raises(DataError, match="has no files"):
        SourceFiles(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.inter").write_text("x")
    with pytest.raises(DataError, match="the source has 2 files"):
        SourceFiles(tmp_path).read("x.inter")


def test_attributes_that_differ_in_case_only(recbole: Recbole, tmp_path: Path) -> None:
    item = "item_id:token\tGenre:token\tgenre:token\n" + "".join(
        f"i{n}\t{'War' if n % 2 else 'Love'}\t{'Peace' if n < 3 else 'Hate'}\n" for n in range(1, 6)
    )
    config = SourceConfig(source="recbole", path=recbole(item=item))
    with pytest.raises(ConfigError, match="upper and lower case only"):
        prepared(config, tmp_path / "out")
    assert list(prepared(config, tmp_path / "out", attributes=["Genre"]).pool.attributes) == ["Genre"]


def test_columns_whose_names_prompts_cannot_carry(recbole: Recbole, tmp_path: Path) -> None:
    item = "item_id:token\tname:token\ttitle:token\ta,b:token\tok:token\n" + "".join(
        f"i{n}\tN\tT\tx\ty{n % 2}\n" for n in range(1, 6)
    )
    config = SourceConfig(source="recbole", path=recbole(item=item), columns={"title": "name"})
    dataset = prepared(config, tmp_path / "out")
    assert list(dataset.pool.attributes) == ["ok"]
    assert [note.split(":")[0] for note in dataset.manifest["notes"] if "prompts cannot carry" in note] == [
        "column 'title'",
        "column 'a,b'",
    ]


def test_kind_of_an_attribute_that_is_not_inferred(tmp_path: Path) -> None:
    extra = tmp_path / "extra.item"
    extra.write_text("item_id:token\tstars:token\n1\t4\n2\t4\n10\t3\n")
    path = native_1m(tmp_path / "ml-1m")

    def kind(**kinds: str) -> str:
        config = SourceConfig(source="ml-1m", path=path, extra_items=extra, attributes=AttributeOptions(kinds=kinds))  # type: ignore[arg-type]
        return next(attribute.kind for attribute in read_source(config).items.attributes if attribute.name == "stars")

    assert (kind(), kind(stars="category")) == ("number", "category")
    with pytest.raises(ConfigError, match="the kind of genre is fixed in this source"):
        kind(genre="number")


def test_extra_items(recbole: Recbole, tmp_path: Path) -> None:
    extra = tmp_path / "extra.item"
    extra.write_text("item_id:token\tdirector:token_seq\ni1\tAnn B|Cy D\ni5\tEve F\nzz\tGil H\n")
    config = SourceConfig(source="recbole", path=recbole(), extra_items=extra)
    dataset = prepared(config, tmp_path / "out", attributes=["director", "genre"])
    assert list(dataset.pool.attributes) == ["director", "genre"]
    assert [dataset.pool.values("director", index) for index in range(1, 6)] == [("Ann B", "Cy D"), (), (), (), ("Eve F",)]
    assert not [note for note in dataset.manifest["notes"] if "no title column" in note]  # the source has titles
    extra.write_text("item_id:token\tgenre:token\ni1\tx\ni2\tx\ni3\ty\n")
    with pytest.raises(DataError, match="attributes that the source has as well; got: genre"):
        read_source(config)
    extra.write_text("item_id:token\tcolor:token\nq\tx\n")
    with pytest.raises(DataError, match="no item of the source"):
        read_source(config)


def test_tie_break(recbole: Recbole, tmp_path: Path) -> None:
    rows = "".join(f"u\t{item}\t5\t7\n" for item in (10, 9, 2))
    config = SourceConfig(source="recbole", path=recbole(inter=HEAD.decode() + rows, item=None))
    by_source = prepared(config, tmp_path / "out")
    assert [by_source.pool.item_ids[item] for item in by_source.items] == ["10", "9", "2"]
    by_id = prepared(config, tmp_path / "other", tie_break="item_id")
    assert [by_id.pool.item_ids[item] for item in by_id.items] == ["2", "9", "10"]
    assert (by_source.manifest["tie_break"], by_id.manifest["tie_break"]) == ("source_order", "item_id")


def test_repeats_are_dropped_or_kept_and_told(recbole: Recbole, tmp_path: Path) -> None:
    rows = "".join(f"{user}\ti{item}\t5\t{place}\n" for user, history in {"u": (1, 2, 3, 1), "v": (1, 2, 1, 3)}.items()
                   for place, item in enumerate(history))  # fmt: skip
    config = SourceConfig(source="recbole", path=recbole(inter=HEAD.decode() + rows))
    dropped, kept = prepared(config, tmp_path / "a"), prepared(config, tmp_path / "b", repeats="keep")
    assert (len(dropped.items), len(kept.items)) == (3 + 3, 4 + 4)
    assert "dropped interactions of a user with an item that the user had before: 2" in dropped.manifest["notes"]
    assert "test targets that the user had before, a sure miss where seen items are masked: 1" in kept.manifest["notes"]


def test_demo_is_determined_by_its_seed(tmp_path: Path) -> None:
    def checksum(seed: int) -> str:
        raw = read_demo(DemoConfig(num_users=30, num_items=120, seed=seed))
        return str(prepare(raw, tmp_path / "demo", filters=FilterConfig(), overwrite=True)["checksum"])

    assert checksum(1) == checksum(1) != checksum(2)


def test_demo_as_described() -> None:
    raw = read_demo(DemoConfig())
    lengths = np.bincount(raw.interactions.users)
    assert len(lengths) == 1000 and lengths.min() >= MIN_LENGTH and lengths.max() <= MAX_LENGTH
    assert len(np.unique(raw.interactions.items)) == 500 == len(set(raw.items.titles))
    assert raw.interactions.ratings is not None and set(raw.interactions.ratings.tolist()) == {1, 2, 3, 4, 5}
    pairs = raw.interactions.users * 500 + raw.interactions.items
    assert len(np.unique(pairs)) == len(pairs)
    assert raw.interactions.timestamps is not None
    same_user = np.diff(raw.interactions.users) == 0
    assert np.all(np.diff(raw.interactions.timestamps)[same_user] > 0)


def test_demo_tastes_are_planted() -> None:
    """Two halves of a history share more genres, moods and years than the halves of two users."""
    raw = read_demo(DemoConfig(num_users=300, num_items=200))
    genre = next(attribute for attribute in raw.items.attributes if attribute.name == "genre")
    flags = np.array(
        [[name in value for name in sorted({g for v in genre.values for g in v})] for value in genre.values], dtype=float
    )
    flags -= flags.mean(axis=0)
    halves = []
    for user in range(300):
        items = raw.interactions.items[raw.interactions.users == user]
        halves.append((flags[items[::2]].mean(axis=0), flags[items[1::2]].mean(axis=0)))
    own = np.mean([first @ second for first, second in halves])
    other = np.mean([halves[user][0] @ halves[user - 1][1] for user in range(300)])
    assert own > other + 0.02


@pytest.mark.parametrize("settings_", [{"num_items": 10}, {"num_items": 1601}, {"num_users": 0}, {"seed": -1}])
def test_demo_settings_are_checked(settings_: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        DemoConfig(**settings_)


@pytest.mark.parametrize(
    "settings_",
    [
        {"source": "demo", "path": Path("x")},
        {"source": "ml-1m", "demo": DemoConfig()},
        {"source": "recbole"},
        {"source": "ml-1m", "columns": {"title": "x"}},
        {"source": "ml-1m", "attributes": AttributeOptions(separator="|")},
    ],
)
def test_settings_that_do_not_fit_the_source(settings_: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SourceConfig(**settings_)  # type: ignore[arg-type]


def test_real_ml_1m(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    config = SourceConfig(source="ml-1m", path=real_data("ml-1m.zip"))
    dataset = prepared(config, tmp_path / "out", min_item_interactions=5)
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (6_040, 3_416, 999_611)
    assert dataset.manifest["dropped"]["interactions_before"] == 1_000_209
    assert dataset.manifest["dropped"]["rare_items"] == 3_706 - 3_416
    assert dataset.manifest["timestamp_kind"] == "position"
    toy_story = dataset.pool.index_of("1")
    assert toy_story is not None
    assert dataset.pool.fields(toy_story) == (("genre", ("Animation", "Children's", "Comedy")), ("release_year", ("1995",)))
    assert np.bincount(dataset.items, minlength=dataset.num_items + 1)[1:].min() == 5


def test_real_ml_1m_with_extra_items(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    config = SourceConfig(source="ml-1m", path=real_data("ml-1m.zip"), extra_items=real_data("ml-1m-extra.zip"))
    dataset = prepared(config, tmp_path / "out", attributes=["genre", "mpaa", "director"], min_item_interactions=5)
    toy_story = dataset.pool.index_of("1")
    assert toy_story is not None
    assert dataset.pool.values("director", toy_story) == ("John Lasseter",)
    assert [spec.kind for spec in dataset.pool.attributes.values()] == ["categories", "category", "categories"]


def test_real_ml_100k(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    dataset = prepared(SourceConfig(source="ml-100k", path=real_data("ml-100k.zip")), tmp_path / "out")
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (943, 1_682, 100_000)
    assert dataset.manifest["timestamp_kind"] == "unix_seconds"
    assert {name: spec.kind for name, spec in dataset.pool.attributes.items()} == {
        "genre": "categories",
        "release_year": "number",
    }
    assert dataset.pool.attributes["genre"].num_values == 18


@pytest.mark.parametrize(("name", "num_before"), [("yelp-s3rec", 316_354), ("amazon-beauty", 198_502)])
def test_real_recbole(real_data: Callable[[str], Path], tmp_path: Path, name: str, num_before: int) -> None:
    config = SourceConfig(source="recbole", path=real_data(f"{name}.zip"))
    dataset = prepared(config, tmp_path / "out", attributes=["category_list"])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["dropped"]["interactions_before"] == num_before
    assert manifest["dropped"]["users_before"] == dataset.num_users + manifest["dropped"]["short_users"]
    assert dataset.pool.attributes["category_list"].kind == "categories"
    assert all(not value.endswith(" ") for value in dataset.pool.categories("category_list")[0])
