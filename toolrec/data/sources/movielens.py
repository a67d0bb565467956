"""MovieLens in GroupLens' own layouts (100K: `u.data`, `u.item`; 1M: `ratings.dat`, `movies.dat`) and in RecBole's.

Source: the README files that GroupLens ships with the two data sets.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from toolrec.data.pool import MOVIES
from toolrec.data.raw import RawAttribute, RawData, RawInteractions, RawItems
from toolrec.data.sources.files import SourceFiles
from toolrec.data.sources.recbole import RecBoleConfig, read_recbole
from toolrec.data.sources.tables import as_number, code_interactions, decode_latin, read_columns, refuse_repeated_ids, to_numbers
from toolrec.errors import DataError

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""The genre flags of `u.item`, in their order; `unknown` counts as no genre."""

_YEAR_IN_TITLE = re.compile(r"\((\d{4})\)\s*$")
_NATIVE = {"ml-100k": ("u.data", "u.item"), "ml-1m": ("ratings.dat", "movies.dat")}
_RECBOLE_NAMES = {"class": "genre"}
_NO_GENRE = frozenset({"unknown", "unkonwn"})


def read_movielens(name: str, path: Path) -> RawData:
    """Reads `ml-100k` or `ml-1m` from a folder or zip, in the layout that its files show.

    Raises:
        DataError: missing, damaged, wrongly encoded, or another data set.
    """
    files = SourceFiles(path)
    if files.ending_with(".inter") and not files.has(*_NATIVE[name]):
        return _read_recbole_layout(name, files)
    other = next((known for known, needed in _NATIVE.items() if known != name and files.has(*needed)), None)
    if other is not None:
        raise DataError(f"these are the files of {other}, not of {name}", value=str(path))
    missing = [needed for needed in _NATIVE[name] if not files.has(needed)]
    if missing:
        raise DataError(
            f"the source has no file {' and no file '.join(missing)}",
            value=str(path),
            allowed=f"a folder or zip with {' and '.join(_NATIVE[name])}, or with RecBole's {name}.inter and {name}.item",
        )
    interactions, items = (_read_100k if name == "ml-100k" else _read_1m)(files)
    return RawData(
        name=name,
        layout="grouplens",
        interactions=interactions,
        items=items,
        domain=MOVIES,
        origin={"file": path.name, "sha256": files.checksums},
    )


def _read_recbole_layout(name: str, files: SourceFiles) -> RawData:
    raw = read_recbole(files, RecBoleConfig(name=name, rename=_RECBOLE_NAMES, domain=MOVIES))
    attributes = [_as_native(attribute) for attribute in raw.items.attributes]
    attributes.sort(key=lambda attribute: attribute.name != "genre")  # as from GroupLens' files
    return replace(raw, items=replace(raw.items, attributes=attributes))


def _as_native(attribute: RawAttribute) -> RawAttribute:
    """The same kinds as from GroupLens' files; RecBole's have a few words in place of years and genres that are not known."""
    if attribute.name == "release_year" and attribute.kind == "category":
        years = [None if text is None else as_number(text) for text in attribute.values]
        return replace(attribute, kind="number", values=years, description="year of release")
    if attribute.name == "genre":
        genres = [tuple(genre for genre in values if genre not in _NO_GENRE) for values in attribute.values]
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


def _items(where: str, rows: list[list[str]], genres: list[tuple[str, ...]]) -> RawItems:
    item_ids, titles = [row[0] for row in rows], [row[1].strip() for row in rows]
    refuse_repeated_ids(item_ids, where=where)
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
