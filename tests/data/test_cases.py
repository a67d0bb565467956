"""Odd inputs that went wrong when a new user tried them: each is one kind of mistake, and the right values stand here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from toolrec.data import Dataset, load_dataset
from toolrec.errors import DataError

REPOSITORY = Path(__file__).resolve().parents[2]
Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def cases() -> Path:
    folder = Path(os.environ.get("TOOLREC_TEST_DATA", REPOSITORY / ".." / "shared" / "data")).parent / "cases" / "data"
    if not folder.is_dir():
        pytest.skip(f"no odd inputs at {folder} (TOOLREC_TEST_DATA/../cases/data)")
    return folder


@pytest.fixture
def prepared(cases: Path, cli: Cli, tmp_path: Path) -> Callable[..., tuple[Dataset, str]]:
    """Prepares a case; gives the data set and what was said."""

    def run(name: str, *flags: str) -> tuple[Dataset, str]:
        result = cli("prepare", "recbole", "--source", cases / name, "--out", tmp_path / "out", *flags)
        assert result.exit_code == 0, result.exception
        return load_dataset(tmp_path / "out"), result.stdout

    return run


def kinds(dataset: Dataset) -> dict[str, str]:
    return {name: spec.kind for name, spec in dataset.pool.attributes.items()}


def values(dataset: Dataset, attribute: str) -> list[tuple[str, ...]]:
    return [dataset.pool.values(attribute, index) for index in range(1, dataset.num_items + 1)]


def items_of(dataset: Dataset, user_id: str) -> list[str]:
    user = dataset.user_index_of(user_id)
    return [dataset.pool.item_ids[item] for item in dataset.items[dataset.offsets[user] : dataset.offsets[user + 1]]]


@pytest.mark.parametrize(
    ("case", "attributes"),
    [
        ("attribute_constant", {}),  # genre and price have one value each
        ("attribute_mostly_missing", {"price": "number"}),
        ("category_numeric_codes_token", {"brand_id": "category", "price": "number"}),
        ("category_python_list_token", {"genre": "categories", "price": "number"}),
        ("description_token_seq", {"price": "number"}),
        ("genre_nan_text", {"genre": "category", "price": "number"}),
        ("no_genres_listed", {"genre": "categories", "price": "number"}),
        ("title_column_called_book_name", {"genre": "category", "price": "number"}),
        ("year_token_some_nan", {"year": "number", "price": "number"}),
    ],
)
def test_kinds_of_attributes(prepared: Callable[..., tuple[Dataset, str]], case: str, attributes: dict[str, str]) -> None:
    dataset, _ = prepared(case)
    assert kinds(dataset) == attributes


def test_what_is_left_out_is_said_with_its_reason(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    _, said = prepared("attribute_constant")
    assert "column genre: left out: it has one value only, 'Drama'" in said
    _, said = prepared("attribute_mostly_missing", "--overwrite")
    assert "column genre: left out: 3 of 15 items have a value (20%), each another one" in said
    _, said = prepared("description_token_seq", "--overwrite")
    assert "looks like free text; description:text keeps it" in said
    dataset, _ = prepared("attribute_constant", "--overwrite", "--attributes", "genre")
    assert kinds(dataset) == {"genre": "category"}  # who names it gets it


def test_values_of_attributes(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    dataset, _ = prepared("category_python_list_token")
    assert values(dataset, "genre")[:3] == [("Comedy",), (), ("Action", "Sci-Fi")]
    dataset, said = prepared("genre_nan_text", "--overwrite")
    assert values(dataset, "genre")[:6] == [("Comedy",), ("Drama",), ("Action",), (), (), ()]
    assert "3 values count as missing ('nan' 1×, 'None' 1×, 'N/A' 1×)" in said
    dataset, said = prepared("no_genres_listed", "--overwrite")
    assert values(dataset, "genre")[:3] == [("Action",), (), ("Comedy", "Drama")]
    assert "'(no genres listed)' 5×" in said
    dataset, _ = prepared("year_token_some_nan", "--overwrite")
    assert values(dataset, "year")[:3] == [("1990",), ("2001",), ()]
    dataset, _ = prepared("category_numeric_codes_token", "--overwrite")
    assert values(dataset, "brand_id")[:4] == [("000",), ("001",), ("002",), ("003",)]


@pytest.mark.parametrize("case", ["pandas_to_csv_quotes", "title_csv_quotes_kept"])
def test_quotation_marks_of_csv_are_undone(prepared: Callable[..., tuple[Dataset, str]], case: str) -> None:
    dataset, said = prepared(case)
    assert dataset.pool.titles[1] in ('Title 0, the "film"', 'Title 1, the "best"')
    assert "quotation marks around 15 titles undone" in said


def test_a_title_column_is_found_by_the_end_of_its_name(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    dataset, said = prepared("title_column_called_book_name")
    assert dataset.pool.titles[1:4] == ["Title 1", "Title 2", "Title 3"]
    assert "titles: column book_name (no column is called title" in said


def test_missing_ids_are_dropped_and_counted(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    dataset, said = prepared("item_id_nan")
    assert dataset.pool.index_of("nan") is None and len(dataset.items) == 72 - 1
    assert "1 of 72 rows dropped: no value in column item_id (x.inter, line 5)" in said
    dataset, said = prepared("user_id_nan_third", "--overwrite")
    assert "nan" not in dataset.user_ids and len(dataset.items) == 72 - 24
    assert "warning: interactions: 24 of 72 rows dropped: no value in column user_id" in said


@pytest.mark.parametrize(
    ("case", "shown"),
    [
        ("item_id_nbsp", r"'i3\xa0'"),
        ("item_id_trailing_space_in_inter_only", "'i3 '"),
        ("item_nfc_vs_nfd", r"'e\u0301i4'"),
    ],
)
def test_ids_that_look_alike_are_mended_and_shown(prepared: Callable[..., tuple[Dataset, str]], case: str, shown: str) -> None:
    dataset, said = prepared(case)
    assert dataset.num_items == 15 and dataset.pool.coverage("genre") == 1.0  # every item found its entry
    assert "ids mended" in said and shown in said


def test_users_that_differ_in_blanks_are_one(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    dataset, said = prepared("user_trailing_space_some_rows")
    assert dataset.num_users == 12 and len(items_of(dataset, "u3")) == 72 // 12
    assert "1 ids mended, 1 of them are now one with another id (blanks at the ends: 'u3 ')" in said


def test_ids_of_the_two_files_are_compared(
    prepared: Callable[..., tuple[Dataset, str]], cases: Path, cli: Cli, tmp_path: Path
) -> None:
    dataset, said = prepared("item_1.0_vs_1")
    assert dataset.name == "item_1.0_vs_1"  # not cut at a dot
    assert dataset.pool.coverage("genre") == 1.0 and "decimals left out" in said
    _, said = prepared("item_1.0_vs_1_partly", "--overwrite")
    assert "warning: item ids: 4 of 15 item ids have an entry in x.item" in said and "11 would match but for" in said
    _, said = prepared("items_missing_in_item_file", "--overwrite")
    assert "warning: item ids: 5 of 15 item ids have an entry in x.item" in said
    refused = cli("prepare", "recbole", "--source", cases / "item_file_of_another_set", "--out", tmp_path / "none")
    assert isinstance(refused.exception, DataError)
    assert "0 of 15 item ids of x.inter are in x.item; got: 'i4', 'i10', 'i9', … against 'zz0'" in str(refused.exception)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("case", ["ts_column_named_time", "ts_column_named_Timestamp_caps"])
def test_times_are_found_under_other_names(prepared: Callable[..., tuple[Dataset, str]], case: str) -> None:
    dataset, said = prepared(case)
    assert dataset.manifest["timestamp_kind"] == "unix_seconds" and "no timestamps" not in said
    assert any("2020-09-13 to" in finding["what"] for finding in dataset.manifest["findings"])


def test_shuffled_rows_are_put_in_order_of_time(prepared: Callable[..., tuple[Dataset, str]], cases: Path) -> None:
    dataset, _ = prepared("ts_column_named_Timestamp_caps")
    rows = [line.split("\t") for line in (cases / "ts_column_named_Timestamp_caps" / "x.inter").read_text().splitlines()[1:]]
    expected = [item for _, item in sorted((float(row[3]), row[1]) for row in rows if row[0] == "u7")]
    assert items_of(dataset, "u7") == expected


def test_times_that_contradict_themselves(
    prepared: Callable[..., tuple[Dataset, str]], cases: Path, cli: Cli, tmp_path: Path
) -> None:
    refused = cli("prepare", "recbole", "--source", cases / "ts_mixed_s_ms", "--out", tmp_path / "none")
    assert isinstance(refused.exception, DataError)
    assert "Unix seconds: 36 rows, Unix milliseconds: 36 rows" in str(refused.exception)
    _, said = prepared("ts_one_zero")
    assert "1 times are 0" in said
    dataset, _ = prepared("ts_ns_19digits", "--overwrite")
    assert dataset.manifest["timestamp_kind"] == "unix_seconds"
    assert any("Unix nanoseconds, 2020-09-13" in finding["what"] for finding in dataset.manifest["findings"])


@pytest.mark.parametrize("case", ["ts_all_equal", "ts_scientific_3digits", "ties_all_rows_sorted_by_item"])
def test_ties_are_measured(prepared: Callable[..., tuple[Dataset, str]], case: str) -> None:
    dataset, said = prepared(case)
    assert dataset.manifest["ties"] == {"neighbours": 1.0, "targets": 1.0, "in_id_order": case == "ties_all_rows_sorted_by_item"}
    assert "warning: timestamps: 100.0% of neighbours in a history have equal times, 100.0% of test targets are tied" in said
    assert ("which is the order of the item ids here" in said) == (case == "ties_all_rows_sorted_by_item")


def test_mixed_units_can_be_read_each_by_its_size(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    dataset, said = prepared("ts_mixed_s_ms", "--time-unit", "mixed")
    assert dataset.manifest["ties"]["neighbours"] == 0 and "each time read by its size" in said
    assert items_of(dataset, "u1")[:5] == ["i4", "i10", "i9", "i3", "i6"]  # as in the file, whose rows stand in order


def test_kinds_of_interactions_are_not_mixed_silently(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    _, said = prepared("behaviour_column")
    assert "columns not read: 'behavior'" in said and "interactions of several kinds are mixed" in said
    dataset, _ = prepared("behaviour_column", "--overwrite", "--keep", "behavior=view")
    assert len(dataset.items) == 48


def test_headers(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    dataset, said = prepared("header_twice_inter_no_numbers")
    assert not {"user_id:token"} & set(dataset.user_ids) and "1 rows dropped: the header once more (x.inter, line 22)" in said
    _, said = prepared("header_with_spaces", "--overwrite")
    assert "blanks in the header left out (' item_id:token')" in said


def test_benchmark_files_are_put_together(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    dataset, said = prepared("benchmark_split_files")
    assert (dataset.num_users, len(dataset.items)) == (12, 72)
    assert "warning: split: the source's is not kept; split anew: leave one out" in said  # whole users are held out in it


def test_sets_that_are_too_small_to_say_anything(prepared: Callable[..., tuple[Dataset, str]]) -> None:
    _, said = prepared("one_user_only")
    assert "warning: users: 1 only" in said and "Recall@10 is 1 for any method" in said
    _, said = prepared("one_item_repeated_keep", "--repeats", "keep", "--overwrite")
    assert "warning: items: 1 only" in said


@pytest.mark.parametrize(
    ("case", "raw", "shown"),
    [("title_bidi_bell", ("\x07", "\u202e"), r"\u202e"), ("title_markup_escape_injection", ("\x1b",), r"\x1b[31m")],
)
def test_titles_cannot_steer_a_terminal(
    prepared: Callable[..., tuple[Dataset, str]], cli: Cli, tmp_path: Path, case: str, raw: tuple[str, ...], shown: str
) -> None:
    dataset, said = prepared(case)
    assert raw[0] in dataset.pool.titles[1]  # data stays data
    screen = "".join(cli("show", tmp_path / "out").stdout.split())
    assert shown in screen and not any(mark in screen + said for mark in raw)
