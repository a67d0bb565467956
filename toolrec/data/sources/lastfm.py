"""Last.fm: the HetRec 2011 files (`user_artists.dat`, `artists.dat`) and the listening logs of Last.fm 1K."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from toolrec.data.raw import RawData
from toolrec.data.reading.attributes import AttributeOptions
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
from toolrec.data.reading.formats import TextOptions, as_texts
from toolrec.data.sources.layout import ItemTable, LayoutConfig, interactions_of, one_file, plain, raw_data, table_of
from toolrec.errors import DataError

_HETREC = {"user": "userID", "item": "artistID"}
_LOG = {"user": "column_1", "time": "column_2", "item": "column_3"}
_LOG_NAME = "userid-timestamp-artid-artname-traid-traname.tsv"
MAX_TAGS = 5


def read_lastfm(files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads the HetRec 2011 files: artists that a user listens to, without times; `tags.dat` gives each artist's tags.

    Raises:
        DataError: missing or damaged.
    """
    findings = Findings()
    for name in ("user_artists.dat", "artists.dat"):
        one_file(files, lambda found, name=name: found == name, what=name, allowed="the HetRec 2011 folder or zip")  # type: ignore[misc]
    text = TextOptions(separator="\t", has_header=True)
    plain_text = TextOptions(separator="\t", has_header=True, encoding="utf-8")
    interactions = interactions_of(table_of(files, ["user_artists.dat"], text=plain_text), _HETREC, config, findings)
    artists = table_of(files, ["artists.dat"], text=text)
    missing = [name for name in ("id", "name") if name not in artists.columns]
    if missing:
        raise DataError(f"artists.dat, line 1: no column {', '.join(missing)}", value=", ".join(artists.columns))
    tags = _tags(files)
    items = ItemTable(wanted=set(interactions.item_ids), where="artists.dat")
    line = 1
    for batch in artists.batches(["id", "name"]):
        for item_id, name in zip(batch["id"].to_pylist(), batch["name"].to_pylist(), strict=True):
            line += 1
            items.add(line, item_id, plain(name), {"tags": tags.get(item_id)})
    kinds = {"tags": "categories"} if tags else {}
    return raw_data(
        config, "lastfm", files, interactions, items.finish(config, findings, interactions=interactions, kinds=kinds), findings
    )


def _tags(files: SourceFiles) -> dict[str, list[str]]:
    """The tags that most users gave each artist."""
    if not files.has("tags.dat", "user_taggedartists.dat"):
        return {}
    # The file of tags is in latin-1, the others are in UTF-8.
    names: dict[str, str] = {}
    for batch in table_of(files, ["tags.dat"], text=TextOptions(separator="\t", has_header=True)).batches(["tagID", "tagValue"]):
        names.update(zip(batch["tagID"].to_pylist(), batch["tagValue"].to_pylist(), strict=True))
    counts: dict[str, Counter[str]] = {}
    table = table_of(files, ["user_taggedartists.dat"], text=TextOptions(separator="\t", has_header=True))
    for batch in table.batches(["artistID", "tagID"]):
        for artist, tag in zip(batch["artistID"].to_pylist(), batch["tagID"].to_pylist(), strict=True):
            if tag in names:
                counts.setdefault(artist, Counter())[names[tag]] += 1
    return {artist: [tag for tag, _ in count.most_common(MAX_TAGS)] for artist, count in counts.items()}


def read_lastfm_1k(files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads the listening log of Last.fm 1K, an interaction for each play of an artist.

    Plays of artists without an id are dropped and counted.

    Raises:
        DataError: missing or damaged.
    """
    findings = Findings()
    name = one_file(files, lambda found: found == _LOG_NAME, what=_LOG_NAME, allowed="the folder or tar of Last.fm 1K")
    table = table_of(files, [name], text=TextOptions(separator="\t", has_header=False, encoding="utf-8"))
    if len(table.columns) != 6:
        raise DataError(f"{name}, line 1: {len(table.columns)} columns where 6 are expected")
    interactions = interactions_of(table, _LOG, config, findings)
    names: dict[str, str] = {}
    for batch in table.batches(["column_3", "column_4"]):
        pairs: Any = zip(as_texts(batch["column_3"]).to_pylist(), as_texts(batch["column_4"]).to_pylist(), strict=True)
        for item_id, artist in pairs:
            names.setdefault(item_id, artist)
    items = ItemTable(wanted=set(interactions.item_ids), where=name)
    for line, (item_id, artist) in enumerate(names.items(), start=1):
        if item_id:
            items.add(line, item_id, plain(artist), {})
    no_attributes = replace(config, attributes=AttributeOptions(missing=config.attributes.missing))
    return raw_data(
        config,
        "lastfm-1k",
        files,
        interactions,
        items.finish(no_attributes, findings, interactions=interactions, kinds={}),
        findings,
    )
