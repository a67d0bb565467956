"""`toolrec data prepare` and `toolrec data show`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolrec.files import shared_path

if TYPE_CHECKING:
    from toolrec.data import Dataset, DomainWords
    from toolrec.data.pool import AttributeKind
    from toolrec.data.sources.demo import DemoConfig

app = typer.Typer(help="Prepare data sets and look at them.", no_args_is_help=True)

SOURCES = ("demo", "ml-100k", "ml-1m", "recbole")
DEFAULT_MIN_ITEM_INTERACTIONS = {"ml-1m": 5}
"""ML-1M's usual item set: 3,416 items with at least 5 ratings."""


@app.command()
def prepare(
    name: str = typer.Argument(..., metavar="NAME", help=f"What to prepare: {', '.join(SOURCES)}."),
    source: Path | None = typer.Option(None, help="Folder or zip with the source's files; MovieLens is downloaded without one."),
    out: Path | None = typer.Option(None, help="Data set folder to write.  [default: data/NAME]"),
    attributes: str | None = typer.Option(
        None,
        help="Attributes to keep, as a,b; for RecBole files a:KIND sets a kind (category, categories, number, text).  [all]",
    ),
    min_rating: float | None = typer.Option(None, help="Drop interactions rated lower."),
    min_item_interactions: int | None = typer.Option(
        None, help="Drop items with fewer interactions, once.  [default: 5 for ml-1m, else 1]"
    ),
    k_core_users: int = typer.Option(1, help="Drop users with fewer interactions, until none is left (with --k-core-items)."),
    k_core_items: int = typer.Option(1, help="Drop items with fewer interactions, until none is left (with --k-core-users)."),
    repeats: str = typer.Option(
        "first", help="When a user comes back to an item: keep only the first time, or keep all (first, keep)."
    ),
    tie_break: str = typer.Option("source_order", help="Order among equal timestamps of a user: source_order or item_id."),
    seed: int | None = typer.Option(None, help="demo: the seed.  [default: 0]"),
    users: int | None = typer.Option(None, help="demo: how many users.  [default: 1000]"),
    items: int | None = typer.Option(None, help="demo: how many items.  [default: 500]"),
    data_name: str | None = typer.Option(None, "--name", help="Name of the data set.  [default: the source's]"),
    title_column: str | None = typer.Option(None, help="recbole: the column with titles.  [default: found by its name]"),
    sequence_separator: str | None = typer.Option(
        None, help="RecBole files: between the values of an entry.  [default: | in a column that has it, else a space]"
    ),
    extra_items: Path | None = typer.Option(
        None, help="A RecBole .item file (or a folder or zip with one) with more attributes."
    ),
    item_word: str | None = typer.Option(None, help="What prompts call an item, as in movie.  [default: the source's]"),
    items_word: str | None = typer.Option(None, help="Its plural.  [default: --item-word with an s]"),
    consumed_word: str | None = typer.Option(None, help="What users did with items, as in watched.  [default: the source's]"),
    mirror: str | None = typer.Option(
        None, envvar="TOOLREC_MOVIELENS_URL", help="Download MovieLens from here.  [default: GroupLens]"
    ),
) -> None:
    """Turn a source into a data set folder: filters, order, leave-one-out split, item pool."""
    from toolrec.data.filters import FilterConfig
    from toolrec.data.prepare import prepare as prepare_source
    from toolrec.data.sources import SourceConfig, SourceName, read_source
    from toolrec.data.sources.download import GROUPLENS_URL
    from toolrec.data.store import refuse_other_folder
    from toolrec.errors import ConfigError

    if name not in SOURCES:
        raise ConfigError("unknown source", value=name, allowed=SOURCES)
    names, kinds = _attributes(attributes)
    least = DEFAULT_MIN_ITEM_INTERACTIONS.get(name, 1) if min_item_interactions is None else min_item_interactions
    filters = FilterConfig(
        min_rating=min_rating,
        min_item_interactions=least,
        k_core_users=k_core_users,
        k_core_items=k_core_items,
        repeats=repeats,  # type: ignore[arg-type]
        tie_break=tie_break,  # type: ignore[arg-type]
    )
    config = SourceConfig(
        source=SourceName(name),
        path=source,
        name=_checked_name(data_name),
        demo=_demo(seed, users, items),
        title_column=title_column,
        sequence_separator=sequence_separator,
        kinds=kinds,
        extra_items=extra_items,
        domain=_domain(item_word, items_word, consumed_word),
        mirror_url=mirror or GROUPLENS_URL,
    )
    folder = out or Path("data") / (data_name or (name if name != "recbole" or source is None else source.stem))
    shared_path(folder)  # refuses what a submitted job would lose
    refuse_other_folder(folder)  # before any download
    manifest = prepare_source(read_source(config), folder, filters=filters, attributes=names)
    _tell(manifest, folder)


@app.command()
def show(
    folder: Path = typer.Argument(..., metavar="DIR", help="A data set folder."),
    num_items: int = typer.Option(5, "--items", min=0, help="How many items to show."),
) -> None:
    """Print what a data set holds: counts, split, filters, attributes, a few items."""
    from rich.console import Console

    from toolrec.data import load_dataset

    dataset = load_dataset(folder)
    console = Console()
    console.print(_facts_table(dataset), _attributes_table(dataset))
    if num_items:
        console.print(_items_table(dataset, num_items))
    for note in dataset.manifest["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _attributes(text: str | None) -> tuple[list[str] | None, dict[str, AttributeKind]]:
    """Names and given kinds from `a,b:number`."""
    from toolrec.errors import ConfigError

    if text is None:
        return None, {}
    names, kinds = [], {}
    for entry in text.split(","):
        name, colon, kind = (part.strip() for part in entry.partition(":"))
        if not name or (colon and not kind):
            raise ConfigError("attributes are given as a,b or a:KIND,b", value=text)
        names.append(name)
        if colon:
            kinds[name] = kind
    return names, kinds  # type: ignore[return-value]


def _checked_name(name: str | None) -> str | None:
    from toolrec.errors import ConfigError

    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError("a name has letters, digits, dots, underscores and hyphens", value=name)
    return name


def _demo(seed: int | None, users: int | None, items: int | None) -> DemoConfig | None:
    from toolrec.data.sources.demo import DemoConfig

    given = {"seed": seed, "num_users": users, "num_items": items}
    given = {key: value for key, value in given.items() if value is not None}
    return DemoConfig(**given) if given else None  # type: ignore[arg-type]


def _domain(item: str | None, items: str | None, consumed: str | None) -> DomainWords | None:
    from toolrec.data import DomainWords
    from toolrec.errors import ConfigError

    if item is None:
        if items or consumed:
            raise ConfigError("--items-word and --consumed-word go with --item-word")
        return None
    return DomainWords(
        item=item,
        items=items or f"{item}s",
        consumed=consumed or DomainWords().consumed,
        is_movies=item.lower() in ("movie", "film"),
    )


def _tell(manifest: dict[str, Any], folder: Path) -> None:
    counts = manifest["counts"]
    for note in manifest["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(
        f"{manifest['name']}: {counts['num_users']:,} users, {counts['num_items']:,} items, "
        f"{counts['num_interactions']:,} interactions; attributes: {_names(manifest)}"
    )
    typer.echo(f"written to {folder}; look at it with `toolrec data show {folder}`")


def _names(manifest: dict[str, Any]) -> str:
    return ", ".join(attribute["name"] for attribute in manifest["attributes"]) or "none"


def _facts_table(dataset: Dataset) -> Any:
    from rich.table import Column, Table

    manifest, counts = dataset.manifest, dataset.manifest["counts"]
    length = counts["history_length"]
    density = counts["num_interactions"] / (counts["num_users"] * counts["num_items"])
    table = Table("fact", Column("value", overflow="fold"), title=f"{dataset.name} ({dataset.path})", show_header=False)
    facts = {
        "users": f"{counts['num_users']:,}",
        "items": f"{counts['num_items']:,}",
        "interactions": f"{counts['num_interactions']:,}",
        "density": f"{density:.2%}",
        "interactions of a user": f"min {length['min']:,}, median {length['median']:,g}, max {length['max']:,}",
        "ratings": "yes" if dataset.has_ratings else "no",
        "timestamps": manifest["timestamp_kind"],
        "split": "leave-one-out: last item test, last but one validation",
        "filters": _filters(manifest["filters"]),
        "repeats": "the first time kept" if manifest["filters"]["repeats"] == "first" else "all kept",
        "tie-break": manifest["tie_break"],
        "items are called": f"{manifest['domain']['item']}, {manifest['domain']['items']}; {manifest['domain']['consumed']}",
        "source": manifest["source"]["layout"],
        "checksum": dataset.checksum,
    }
    for fact, value in facts.items():
        table.add_row(fact, value)
    return table


def _filters(filters: dict[str, Any]) -> str:
    """The filters that do something."""
    active = {name: value for name, value in filters.items() if name != "repeats" and value not in (None, 1)}
    return ", ".join(f"{name} {value}" for name, value in active.items()) or "none"


def _attributes_table(dataset: Dataset) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="attributes")
    for heading in ("attribute", "kind", "values", "items with it", "most common"):
        table.add_column(heading, justify="right" if heading in ("values", "items with it") else "left")
    for name, spec in dataset.pool.attributes.items():
        table.add_row(
            escape(name),
            spec.kind,
            f"{spec.num_values:,}",
            f"{dataset.pool.coverage(name):.1%}",
            escape(_examples(dataset, name)),
        )
    return table


def _examples(dataset: Dataset, name: str) -> str:
    import numpy as np

    if dataset.pool.attributes[name].kind == "number":
        from toolrec.data.pool import format_number

        numbers = dataset.pool.numbers(name)
        low, middle, high = (format_number(float(f(numbers))) for f in (np.nanmin, np.nanmedian, np.nanmax))
        return f"{low} to {high}, median {middle}"
    if dataset.pool.attributes[name].kind == "text":
        shown = (dataset.pool.values(name, index) for index, text in enumerate(dataset.pool.texts(name)) if text)
        return next((values[0] for values in shown if values), "")
    vocabulary, _, value_ids = dataset.pool.categories(name)
    most = np.argsort(-np.bincount(value_ids, minlength=len(vocabulary)), kind="stable")[:4]
    return ", ".join(vocabulary[value] for value in most if value)


def _items_table(dataset: Dataset, num_items: int) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="items")
    for heading in ("item_id", "title", *dataset.pool.attributes):
        table.add_column(escape(heading))
    for index in range(1, min(num_items, dataset.num_items) + 1):
        values = (", ".join(dataset.pool.values(name, index)) for name in dataset.pool.attributes)
        table.add_row(*(escape(text) for text in (dataset.pool.item_ids[index], dataset.pool.titles[index], *values)))
    return table
