"""MovieLens in GroupLens' own layouts (100K: `u.data`, `u.item`; 1M and 10M: `ratings.dat`, `movies.dat`; later ones:
`ratings.csv`, `movies.csv`) and in RecBole's.

Source: the README files that GroupLens ships with the data sets.
"""

from __future__ import annotations

import re
from dataclasses import replace

from toolrec.data.raw import RawAttribute, RawData, RawInteractions, RawItems
from toolrec.data.reading.attributes import AttributeOptions
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
from toolrec.data.reading.formats import TextOptions
from toolrec.data.reading.tables import as_number, code_interactions, decode_latin, read_columns, refuse_repeated_ids, to_numbers
from toolrec.data.reading.times import in_one_unit
from toolrec.data.sources.layout import LayoutConfig, interactions_of, table_of
from toolrec.data.sources.recbole import RecBoleConfig, read_recbole
from toolrec.errors import DataError

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""The genre flags of `u.item`, in their order; `unknown` counts as no genre."""

_YEAR_IN_TITLE = re.compile(r"\((\d{4})\)\s*$")
_CSV = ("ratings.csv", "movies.csv")
_NATIVE = {
    "ml-100k": ("u.data", "u.item"), "ml-1m": ("ratings.dat", "movies.dat"), "ml-10m": ("ratings.dat", "movies.dat"),
    **dict.fromkeys(("ml-20m", "ml-25m", "ml-32m", "ml-latest", "ml-latest-small"), _CSV),
}  # fmt: skip
_CSV_COLUMNS = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
_RECBOLE_NAMES = {"class": "genre"}
_NO_GENRE = frozenset({"unknown", "unkonwn"})
_NONE_LISTED = "(no genres listed)"


def read_movielens(name: str, files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads one of the MovieLens sets from a folder or zip, in the layout that its files show.

    Raises:
        DataError: missing, damaged, wrongly encoded, or another data set.
    """
    needed = _NATIVE[name]
    if files.ending_with(".inter") and not files.has(*needed):
        return _read_recbole_layout(name, files, config)
    if not files.has(*needed):
        other = next((known for known, files_of in _NATIVE.items() if files.has(*files_of)), None)
        if other is not None:
            raise DataError(f"these are the files of {other}, not of {name}", value=str(files.path))
        missing = [file for file in needed if not files.has(file)]
        raise DataError(
            f"the source has no file {' and no file '.join(missing)}",
            value=str(files.path),
            allowed=f"a folder or zip with {' and '.join(needed)}, or with RecBole's {name}.inter and {name}.item",
        )
    findings = Findings()
    if needed == _CSV:
        interactions, items = _read_csv(files, config, findings)
    elif name == "ml-100k":
        interactions, items = _read_100k(files)
    else:
        interactions, items = _read_1m(files)
    if needed != _CSV and interactions.timestamps is not None:
        in_one_unit(interactions.timestamps, findings, subject="timestamps", unit=config.time_unit)
    return RawData(
        name=config.name,
        layout="grouplens",
        interactions=interactions,
        items=items,
        domain=config.domain,
        origin={"file": files.label, "sha256": files.checksums},
        findings=findings,
    )


def _read_csv(files: SourceFiles, config: LayoutConfig, findings: Findings) -> tuple[RawInteractions, RawItems]:
    text = TextOptions(separator=",", has_header=True, encoding="utf-8")
    interactions = interactions_of(table_of(files, ["ratings.csv"], text=text), _CSV_COLUMNS, config, findings)
    table = table_of(files, ["movies.csv"], text=text)
    missing = [name for name in ("movieId", "title", "genres") if name not in table.columns]
    if missing:
        raise DataError(f"movies.csv, line 1: no column {', '.join(missing)}", value=", ".join(table.columns))
    rows = [
        [str(cell) for cell in row]
        for batch in table.batches(["movieId", "title", "genres"])
        for row in zip(*(batch[name].to_pylist() for name in ("movieId", "title", "genres")), strict=True)
    ]
    genres = [tuple(genre for genre in row[2].split("|") if genre and genre != _NONE_LISTED) for row in rows]
    num_none = sum(row[2] == _NONE_LISTED for row in rows)
    if num_none:
        findings.note("attribute genre", f"{num_none:,} values count as missing", f"'{_NONE_LISTED}'")
    return interactions, _items("movies.csv", rows, genres, first_line=2)


def _read_recbole_layout(name: str, files: SourceFiles, config: LayoutConfig) -> RawData:
    options = AttributeOptions(kinds={"genre": "categories"}, max_values=config.attributes.max_values)
    raw = read_recbole(files, RecBoleConfig(name=config.name, rename=_RECBOLE_NAMES, domain=config.domain, attributes=options))
    attributes = [_as_native(attribute) for attribute in raw.items.attributes]
    attributes.sort(key=lambda attribute: attribute.name != "genre")  # as from GroupLens' files
    return replace(raw, items=replace(raw.items, attributes=attributes))


def _as_native(attribute: RawAttribute) -> RawAttribute:
    """The same kinds as from GroupLens' files; RecBole's have a few words in place of years and genres that are not known."""
    if attribute.name == "release_year":
        years = attribute.values
        if attribute.kind == "category":
            years = [None if text is None else as_number(text) for text in attribute.values]
        return replace(attribute, kind="number", values=years, description="year of release")
    if attribute.name == "genre":
        genres = [tuple(genre for genre in values or () if genre not in _NO_GENRE) for values in attribute.values]
        return replace(attribute, values=genres, description="genres of the movie")
    return attribute


def _read_1m(files: SourceFiles) -> tuple[RawInteractions, RawItems]:
    interactions = _read_ratings(files, "ratings.dat", "::")
    rows = _rows(files, "movies.dat", "::", 3)
    genres = [tuple(genre for genre in row[2].split("|") if genre) for row in rows]
    return interactions, _items("movies.dat", rows, genres)


def _read_100k(files: SourceFiles) -> tuple[RawInteractions, RawItems]:
    interactions = _read_ratings(files, "u.data", "\t")
    rows = _rows(files, "u.item", "|", 5 + len(GENRES_100K))
    genres = [
        tuple(genre for genre, flag in zip(GENRES_100K, row[5:], strict=True) if flag == "1" and genre != "unknown")
        for row in rows
    ]
    return interactions, _items("u.item", rows, genres)


def _read_ratings(files: SourceFiles, name: str, separator: str) -> RawInteractions:
    users, items, ratings, timestamps = read_columns(files.read(name), where=name, separator=separator, num_columns=4)
    return code_interactions(
        users, items, to_numbers(ratings, name="rating", where=name), to_numbers(timestamps, name="timestamp", where=name)
    )


def _rows(files: SourceFiles, name: str, separator: str, num_columns: int) -> list[list[str]]:
    rows = []
    for line, text in enumerate(decode_latin(files.read(name), where=name).rstrip().split("\n"), start=1):
        row = text.rstrip("\r").split(separator)
        if len(row) != num_columns:
            raise DataError(f"{name}, line {line}: {len(row)} columns where {num_columns} are expected",
                            hint=f"columns are separated by {separator!r}")  # fmt: skip
        rows.append(row)
    return rows


def _items(where: str, rows: list[list[str]], genres: list[tuple[str, ...]], *, first_line: int = 1) -> RawItems:
    item_ids, titles = [row[0] for row in rows], [row[1].strip() for row in rows]
    refuse_repeated_ids(item_ids, where=where, first_line=first_line)
    years = [_YEAR_IN_TITLE.search(title) for title in titles]
    return RawItems(
        item_ids=item_ids,
        titles=titles,
        attributes=[
            RawAttribute(name="genre", kind="categories", values=genres, description="genres of the movie"),
            RawAttribute(
                name="release_year",
                kind="number",
                values=[float(year.group(1)) if year else None for year in years],
                description="year of release",
            ),
        ],
    )
