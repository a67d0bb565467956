"""`toolrec data prepare`, `list`, `template`, `show`, `check` and `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolrec.cli.places import PLACE
from toolrec.cli.settings import TREES, command_of, resolved
from toolrec.util.files import shared_path

if TYPE_CHECKING:
    from toolrec.data import Dataset
    from toolrec.data.check import Check
    from toolrec.data.reading.findings import Finding

app = typer.Typer(help="Prepare data sets and look at them.", no_args_is_help=True)


@app.command(cls=command_of(TREES["data prepare"]))
def prepare(
    ctx: typer.Context,
    name: str | None = typer.Argument(
        None, metavar="[NAME]", help="A known source (`toolrec data list`), recbole, or demo; own files need none."
    ),
    out: Path | None = typer.Option(None, **PLACE, help="Data set folder to write.  [default: data/NAME]"),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace another data set that is already at --out."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what was found, and write nothing."),
) -> None:
    """Turn a source into a data set folder: what was found is said first; then filters, order, split, item pool."""
    from toolrec.data.options import default_name
    from toolrec.data.prepare import prepare as prepare_source
    from toolrec.data.sources import OWN, SOURCES, read_source
    from toolrec.data.store import refuse_other_folder
    from toolrec.errors import ConfigError

    settings = resolved(ctx).settings
    chosen = name or OWN
    if chosen not in SOURCES:
        raise ConfigError("unknown source", value=chosen, allowed=SOURCES)
    filters, split_config, source_config = settings.filter_config(chosen), settings.split_config(), settings.source_config(chosen)
    folder = out or Path("data") / default_name(chosen, settings)
    shared_path(folder)  # refuses what a submitted job would lose
    refuse_other_folder(folder)  # before any download
    raw = read_source(source_config)
    if chosen == OWN or dry_run:
        _print_findings(raw.findings.entries)
    else:
        for entry in raw.findings.entries:
            if entry.level != "found":
                _echo(f"{'warning' if entry.level == 'warning' else 'note'}: {entry.as_sentence()}")
    if dry_run:
        typer.echo("nothing was written (--dry-run)")
        return
    manifest = prepare_source(
        raw,
        folder,
        filters=filters,
        attributes=settings.attribute_names,
        split=split_config,
        plain_titles=settings.plain_titles,
        overwrite=overwrite,
    )
    _tell(manifest, folder, told=set(raw.findings.sentences()))


@app.command("list")
def list_sources() -> None:
    """List the published data sets that `prepare` knows by name, and where to get them."""
    from rich.console import Console
    from rich.padding import Padding

    from toolrec.data.sources.registry import ENTRIES

    console = Console(highlight=False)
    for entry in ENTRIES:
        how = f"toolrec data prepare {entry.name}" + ("" if entry.download else " --source PATH (download by hand)")
        console.print(f"{entry.title}: {how}", style="bold", markup=False, soft_wrap=True)
        facts = {"page": entry.home_page, "files": entry.files, "attributes": entry.attributes}
        for name, fact in {**facts, "licence": entry.licence, "cite": entry.citation}.items():
            console.print(Padding(f"{name}: {fact}", (0, 0, 0, 4), expand=False), markup=False)
    console.print(
        "Beside these: recbole (a folder or zip of atomic files), demo (made up), and your own files with --interactions.",
        soft_wrap=True,
    )


@app.command()
def template(
    name: str = typer.Option("mine", "--name", help="Name of the data set."),
) -> None:
    """Print a commented TOML file with every setting of `prepare`."""
    from toolrec.data.options import checked_name
    from toolrec.data.options import template as write_template

    typer.echo(write_template(checked_name(name)), nl=False)


@app.command()
def check(
    folder: Path = typer.Argument(..., **PLACE | {"metavar": "DIR"}, help="A data set folder, or its URL."),
    html: Path | None = typer.Option(None, help="Where the page with plots goes.  [default: DIR-check.html]"),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON in place of the table."),
) -> None:
    """Measure a data set: what was dropped, ties, targets, leakage, popularity, attributes, titles; and a verdict in words."""
    from toolrec.data import load_dataset
    from toolrec.data.check import check_dataset, write_page

    dataset = load_dataset(folder)
    found = check_dataset(dataset)
    page = html or folder.with_name(f"{folder.resolve().name}-check.html")
    write_page(found, page)
    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
        return
    _print_check(found)
    typer.echo(f"the same with plots: {page}")


@app.command()
def export(
    folder: Path = typer.Argument(..., **PLACE | {"metavar": "DIR"}, help="A data set folder, or its URL."),
    kind: str = typer.Option(..., "--format", help="recbole (atomic files), parquet, or rectools (frames in Parquet)."),
    out: Path = typer.Option(..., help="Folder to write; nothing may be there."),
) -> None:
    """Write a data set for other programs, so that others can check us."""
    from toolrec.data import load_dataset
    from toolrec.data.export import export_dataset

    for path in export_dataset(load_dataset(folder), out, kind):  # type: ignore[arg-type]
        typer.echo(str(path))


@app.command()
def show(
    folder: Path = typer.Argument(..., **PLACE | {"metavar": "DIR"}, help="A data set folder, or its URL."),
    num_items: int = typer.Option(5, "--items", min=0, help="How many items to show."),
) -> None:
    """Print what a data set holds: counts, split, filters, attributes, a few items."""
    from rich.console import Console

    from toolrec.data import load_dataset
    from toolrec.data.reading.findings import escaped

    dataset = load_dataset(folder)
    console = Console()
    console.print(_facts_table(dataset), _attributes_table(dataset))
    if num_items:
        console.print(_items_table(dataset, num_items))
    for note in dataset.manifest["notes"]:
        told = escaped(note if note.startswith("warning: ") else f"note: {note}")
        console.print(told, markup=False, highlight=False, soft_wrap=True)


def _echo(text: str) -> None:
    from toolrec.util.printable import printable

    typer.echo(printable(text))


def _print_findings(entries: list[Finding]) -> None:
    """What was found, as a table; warnings are marked, so that they are seen without colours too."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from toolrec.util.printable import printable

    table = Table(title="found in the files")
    for heading in ("", "of", "found", "why", "change it with"):
        table.add_column(heading, overflow="fold")
    marks = {"found": "", "note": "note", "warning": "[bold]WARNING[/bold]"}
    for entry in entries:
        cells = (escape(printable(text)) for text in (entry.subject, entry.what, entry.why, entry.change))
        table.add_row(marks[entry.level], *cells)
    Console(stderr=False).print(table)


def _tell(manifest: dict[str, Any], folder: Path, *, told: set[str]) -> None:
    counts = manifest["counts"]
    for note in manifest["notes"]:
        if note not in told:
            _echo(note if note.startswith("warning: ") else f"note: {note}")
    typer.echo(
        f"{manifest['name']}: {counts['num_users']:,} users, {counts['num_items']:,} items, "
        f"{counts['num_interactions']:,} interactions; attributes: {_names(manifest)}"
    )
    typer.echo(f"written to {folder}; look at it with `toolrec data show {folder}`")


def _print_check(found: Check) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from toolrec.util.printable import printable

    table = Table(title=f"data check of {escape(found.name)}")
    for heading in ("of", "figure", "value", "meaning"):
        table.add_column(heading, overflow="fold")
    section = ""
    for row in found.rows:
        mark = "[bold]WARNING[/bold] " if row.level == "warning" else ""
        table.add_row(
            "" if row.section == section else row.section,
            escape(printable(row.name)),
            escape(row.value),
            mark + escape(row.meaning),
        )
        section = row.section
    console = Console()
    console.print(table)
    console.print("Verdict:")
    for sentence in found.verdict:
        console.print(f"- {printable(sentence)}", markup=False, highlight=False, soft_wrap=True)


def _names(manifest: dict[str, Any]) -> str:
    return ", ".join(attribute["name"] for attribute in manifest["attributes"]) or "none"


def _facts_table(dataset: Dataset) -> Any:
    from rich.markup import escape
    from rich.table import Column, Table

    from toolrec.data.reading.findings import escaped

    manifest, counts = dataset.manifest, dataset.manifest["counts"]
    length = counts["history_length"]
    density = counts["num_interactions"] / (counts["num_users"] * counts["num_items"])
    table = Table("fact", Column("value", overflow="fold"), title=escape(f"{dataset.name} ({dataset.path})"), show_header=False)
    facts = {
        "users": f"{counts['num_users']:,}",
        "items": f"{counts['num_items']:,}",
        "interactions": f"{counts['num_interactions']:,}",
        "density": f"{density:.2%}",
        "interactions of a user": f"min {length['min']:,}, median {length['median']:,g}, max {length['max']:,}",
        "ratings": "yes" if dataset.has_ratings else "no",
        "timestamps": manifest["timestamp_kind"],
        **_more_facts(dataset),
        "split": dataset.split_words,
        "filters": _filters(manifest["filters"]),
        "repeats": "the first time kept" if manifest["filters"]["repeats"] == "first" else "all kept",
        "tie-break": manifest["tie_break"],
        "items are called": f"{manifest['domain']['item']}, {manifest['domain']['items']}; {manifest['domain']['consumed']}",
        "source": manifest["source"]["layout"],
        "checksum": dataset.checksum,
    }
    for fact, value in facts.items():
        table.add_row(fact, escape(escaped(value)))
    return table


def _more_facts(dataset: Dataset) -> dict[str, str]:
    """Range of days, ties, targets that training never saw, what was dropped; data sets of older versions have none of them."""
    manifest, facts = dataset.manifest, {}
    ranges = [f["what"].partition(", ")[2] for f in manifest.get("findings", []) if f["what"].startswith(("Unix ", "dates"))]
    if ranges:
        facts["from and to"] = ranges[0]
    ties = manifest.get("ties")
    if ties:
        facts["ties"] = f"{ties['neighbours']:.1%} of neighbours in a history, {ties['targets']:.1%} of test targets"
    test = (manifest.get("targets") or {}).get("test")
    if test:
        facts["test targets"] = f"{test['users']:,}; {test['cold_items']:,} are items that training never saw"
    dropped = manifest.get("dropped") or {}
    if "items_before" in dropped:
        facts["dropped"] = (
            f"{dropped['users_before'] - dropped['users_after']:,} users, "
            f"{dropped['items_before'] - dropped['items_after']:,} items, "
            f"{dropped['interactions_before'] - dropped['interactions_after']:,} interactions"
        )
    matched = next(
        (f["what"] for f in manifest.get("findings", []) if f["subject"] == "item ids" and "have an entry" in f["what"]), None
    )
    if matched:
        facts["ids matched"] = matched
    shared = next(
        (f["what"] for f in manifest.get("findings", []) if f["subject"] == "titles" and "share a title" in f["what"]), None
    )
    if shared:
        facts["shared titles"] = shared
    return facts


def _filters(filters: dict[str, Any]) -> str:
    """The filters that do something."""
    active = {name: value for name, value in filters.items() if name != "repeats" and value not in (None, 1)}
    return ", ".join(f"{name} {value}" for name, value in active.items()) or "none"


def _attributes_table(dataset: Dataset) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from toolrec.data.reading.findings import escaped

    table = Table(title="attributes")
    for heading in ("attribute", "kind", "values", "items with it", "most common"):
        table.add_column(heading, justify="right" if heading in ("values", "items with it") else "left")
    for name, spec in dataset.pool.attributes.items():
        table.add_row(
            escape(escaped(name)),
            spec.kind,
            f"{spec.num_values:,}",
            f"{dataset.pool.coverage(name):.1%}",
            escape(escaped(_examples(dataset, name))),
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

    from toolrec.data.reading.findings import escaped

    table = Table(title="items")
    for heading in ("item_id", "title", *dataset.pool.attributes):
        table.add_column(escape(heading))
    for index in range(1, min(num_items, dataset.num_items) + 1):
        values = (", ".join(dataset.pool.values(name, index)) for name in dataset.pool.attributes)
        table.add_row(*(escape(escaped(text)) for text in (dataset.pool.item_ids[index], dataset.pool.titles[index], *values)))
    return table
