"""The settings of `toolrec data prepare`: each is declared here once; flags and the TOML file are views of it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import field_validator, model_validator

from toolrec.data.filters import FilterConfig, Repeats, TieBreak
from toolrec.data.pool import DomainWords
from toolrec.data.reading.attributes import DEFAULT_MAX_VALUES, KINDS_GIVEN, AttributeOptions
from toolrec.data.reading.formats import TextOptions
from toolrec.data.reading.identity import MISSING_WORDS
from toolrec.data.reading.times import TimeUnit
from toolrec.data.sources import OWN, SourceConfig
from toolrec.data.sources.demo import DemoConfig
from toolrec.data.sources.registry import REGISTRY
from toolrec.data.splits import SplitConfig, SplitKind
from toolrec.errors import ConfigError
from toolrec.util.settings import Settings, declared_in, setting
from toolrec.util.settings_sources import Layer, read_mapping, resolve

TABLES = ("kinds", "separators", "rename", "keep")
"""Settings that are tables in TOML."""

_PATHS = ("interactions", "items", "source", "extra_items")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PrepareSettings(Settings):
    """Everything that `toolrec data prepare` takes, except where to write."""

    interactions: Any = setting(
        None,
        "Your interactions: CSV, TSV, JSON lines (also .gz, .zst) or Parquet; a file, a folder of parts, or a URL.",
        flag="--interactions",
    )
    items: Any = setting(None, "Your table of items, likewise; demo: how many items.", flag="--items")
    source: str | None = setting(
        None, "Folder, archive or URL with the source's files; MovieLens is downloaded without.", flag="--source"
    )
    name: str | None = setting(None, "Name of the data set.", flag="--name", none_word="the source's")
    user_column: str | None = setting(None, "Column with user ids.", flag="--user-column", none_word="found by its name")
    item_column: str | None = setting(None, "Column with item ids.", flag="--item-column", none_word="found by its name")
    time_column: str | None = setting(
        None, "Column with times: Unix times or dates.", flag="--time-column", none_word="found by its name"
    )
    rating_column: str | None = setting(None, "Column with ratings.", flag="--rating-column", none_word="found by its name")
    title_column: str | None = setting(
        None, "Column of the items with titles.", flag="--title-column", none_word="found by its name"
    )
    items_id_column: str | None = setting(
        None, "Column of the items with their ids.", flag="--items-id-column", none_word="found by its name and values"
    )
    separator: str | None = setting(None, "Between columns: one character, tab, or ::.", flag="--separator", none_word="found")
    encoding: str | None = setting(
        None, "Of text files, as utf-8 or latin-1.", flag="--encoding", none_word="found: UTF-8, UTF-16, else cp1252"
    )
    header: bool | None = setting(None, "Whether the first line names the columns.", flag="--header", none_word="found")
    time_unit: TimeUnit = setting(
        "auto", "Of times that are numbers; with `mixed` each is taken by its size.", flag="--time-unit"
    )
    attributes: tuple[str, ...] | None = setting(
        None,
        "Attributes to keep, comma separated, in the order in which prompts show them; a:KIND sets a kind (category, categories, "
        "number, text, place).",
        flag="--attributes",
        none_word="all",
    )
    kinds: dict[str, str] = setting({}, "Attribute -> kind: category, categories, number, text, place.")
    sequence_separator: str | None = setting(
        None, "Between the values of a list.", flag="--sequence-separator", none_word="found for each column"
    )
    separators: dict[str, str] = setting({}, "Attribute -> separator between the values of its lists.")
    missing: tuple[str, ...] | None = setting(
        None, "A word that stands for a missing value, in place of the usual ones; may be repeated.", flag="--missing"
    )
    max_values: int = setting(
        DEFAULT_MAX_VALUES, "Values kept of a category attribute, the most common.", flag="--max-values", ge=2
    )
    rename: dict[str, str] = setting({}, "Column -> name of its attribute.")
    keep: dict[str, tuple[str, ...]] = setting(
        {}, "Interactions to keep, as COLUMN=VALUE; others are dropped; may be repeated.", flag="--keep"
    )
    extra_items: str | None = setting(None, "A table with more attributes, joined by item id.", flag="--extra-items")
    plain_titles: bool = setting(False, "Leave titles that several items share as they are.", flag="--plain-titles")
    min_rating: float | None = setting(None, "Drop interactions rated lower.", flag="--min-rating")
    since: str | float | None = setting(None, "Drop interactions before this day (2018-01-01) or Unix time.", flag="--since")
    until: str | float | None = setting(None, "Drop interactions from this day or Unix time on.", flag="--until")
    min_item_interactions: int | None = setting(
        None,
        "Drop items with fewer interactions, once.",
        flag="--min-item-interactions",
        none_word="5 for ml-1m, else 1",
        ge=1,
    )
    k_core_users: int = setting(
        1, "Drop users with fewer interactions, until none is left (with --k-core-items).", flag="--k-core-users", ge=1
    )
    k_core_items: int = setting(
        1, "Drop items with fewer interactions, until none is left (with --k-core-users).", flag="--k-core-items", ge=1
    )
    repeats: Repeats = setting("first", "When a user comes back to an item: keep only the first time, or all.", flag="--repeats")
    tie_break: TieBreak = setting("source_order", "Order among equal times of a user.", flag="--tie-break")
    split: SplitKind | None = setting(
        None,
        "How users' items are split; `given` is the split of the source's own files.",
        flag="--split",
        none_word="the source's own, else leave_one_out",
    )
    hold_out: int = setting(1, "leave_k_out: items held out for each of validation and test.", flag="--hold-out", ge=1)
    valid_from: str | float | None = setting(None, "temporal: validation begins at this day or Unix time.", flag="--valid-from")
    test_from: str | float | None = setting(None, "temporal: test begins at this day or Unix time.", flag="--test-from")
    valid_share: float | None = setting(None, "temporal: share of all interactions for validation.", flag="--valid-share")
    test_share: float | None = setting(None, "temporal: share of all interactions for test, the latest.", flag="--test-share")
    seed: int | None = setting(None, "demo: the seed.", flag="--seed", none_word="0")
    users: int | None = setting(None, "demo: how many users.", flag="--users", none_word="1000")
    item_word: str | None = setting(None, "What prompts call an item, as in movie.", flag="--item-word", none_word="the source's")
    items_word: str | None = setting(None, "Its plural.", flag="--items-word", none_word="--item-word with an s")
    consumed_word: str | None = setting(
        None, "What users did with items, as in watched.", flag="--consumed-word", none_word="the source's"
    )
    rating_words: str | None = setting(None, "How a rating reads in prompts, as in {rating} of 5.", flag="--rating-words")
    mirror: str | None = setting(
        None, "Download MovieLens from here.", flag="--mirror", env="TOOLREC_MOVIELENS_URL", none_word="GroupLens"
    )
    allow_large: bool = setting(False, "Read archive members however large they state to be.", flag="--allow-large")

    @field_validator("keep", mode="before")
    @classmethod
    def _pairs(cls, given: Any) -> Any:
        """`COLUMN=VALUE` entries of the command line as a table."""
        if isinstance(given, str) or not isinstance(given, list | tuple):
            return given
        kept: dict[str, list[str]] = {}
        for entry in given:
            column, equals, value = str(entry).partition("=")
            if not equals or not column:
                raise ConfigError("--keep is given as COLUMN=VALUE", value=entry)
            kept.setdefault(column, []).append(value)
        return kept

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        if self.name is not None:
            checked_name(self.name)
        for entry in self.attributes or ():
            attribute, colon, kind = (part.strip() for part in entry.partition(":"))
            if not attribute or (colon and not kind):
                raise ConfigError("attributes are given as a,b or a:KIND,b", value=entry)
            if colon and kind not in KINDS_GIVEN:
                raise ConfigError(f"unknown kind for the attribute {attribute}", value=kind, allowed=KINDS_GIVEN)
        return self

    @property
    def attribute_names(self) -> tuple[str, ...] | None:
        """The attributes to keep, without their kinds; None for all."""
        return None if self.attributes is None else tuple(entry.partition(":")[0].strip() for entry in self.attributes)

    def _given_kinds(self) -> dict[str, str]:
        pairs = (entry.partition(":") for entry in self.attributes or ())
        return {**self.kinds, **{name.strip(): kind.strip() for name, colon, kind in pairs if colon}}

    def source_config(self, name: str) -> SourceConfig:
        """What to read.

        Raises:
            ConfigError: settings that do not fit the source.
        """
        columns = {
            "user": self.user_column,
            "item": self.item_column,
            "time": self.time_column,
            "rating": self.rating_column,
            "title": self.title_column,
            "items_id": self.items_id_column,
        }
        num_items, items = (_whole(self.items), None) if name == "demo" else (None, self.items)
        demo: dict[str, Any] = {"seed": self.seed, "num_users": self.users, "num_items": num_items}
        demo = {key: value for key, value in demo.items() if value is not None}
        return SourceConfig(
            source=name,
            path=self.source if self.source is None or "://" in self.source else Path(self.source),
            interactions=self.interactions,
            items=items,
            name=self.name,
            demo=DemoConfig(**demo) if demo else None,
            columns={role: column for role, column in columns.items() if column is not None},
            text=TextOptions(separator=self.separator, encoding=self.encoding, has_header=self.header),
            time_unit=self.time_unit,
            keep=self.keep,
            rename=self.rename,
            attributes=AttributeOptions(
                kinds=self._given_kinds(),
                separators=self.separators,
                separator=self.sequence_separator,
                missing=MISSING_WORDS if self.missing is None else ("", *(word.strip().casefold() for word in self.missing)),
                max_values=self.max_values,
                chosen=self.attribute_names,
            ),
            extra_items=self.extra_items,
            domain=self._domain(name),
            mirror_url=self.mirror,
            allow_large=self.allow_large,
        )

    def filter_config(self, name: str) -> FilterConfig:
        """What stays."""
        usual = REGISTRY[name].min_item_interactions if name in REGISTRY else 1
        return FilterConfig(
            min_rating=self.min_rating,
            since=moment(self.since, "since"),
            until=moment(self.until, "until"),
            min_item_interactions=usual if self.min_item_interactions is None else self.min_item_interactions,
            k_core_users=self.k_core_users,
            k_core_items=self.k_core_items,
            repeats=self.repeats,
            tie_break=self.tie_break,
        )

    def split_config(self) -> SplitConfig | None:
        """How the data set is split; None where the source decides."""
        given = (self.valid_from, self.test_from, self.valid_share, self.test_share)
        if self.split is None and self.hold_out == 1 and given == (None,) * len(given):
            return None
        return SplitConfig(
            kind=self.split or "leave_one_out",
            k=self.hold_out,
            valid_from=moment(self.valid_from, "valid_from"),
            test_from=moment(self.test_from, "test_from"),
            valid_share=self.valid_share,
            test_share=self.test_share,
        )

    def _domain(self, name: str) -> DomainWords | None:
        given = (self.item_word, self.items_word, self.consumed_word, self.rating_words)
        if all(word is None for word in given):
            return None
        if self.item_word is None and (self.items_word or self.consumed_word):
            raise ConfigError("--items-word and --consumed-word go with --item-word")
        usual = REGISTRY[name].domain if name in REGISTRY else DomainWords()
        item = self.item_word or usual.item
        return DomainWords(
            item=item,
            items=self.items_word or (f"{item}s" if self.item_word else usual.items),
            consumed=self.consumed_word or (DomainWords().consumed if self.item_word else usual.consumed),
            is_movies=item.lower() in ("movie", "film"),
            rating=self.rating_words or usual.rating,
        )


def checked_name(name: str) -> str:
    """A data set's name: it becomes a folder's.

    Raises:
        ConfigError: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError("a name has letters, digits, dots, underscores and hyphens", value=name)
    return name


def moment(value: str | float | None, name: str) -> float | None:
    """A day (`2018-01-01`, UTC) or Unix seconds as Unix seconds.

    Raises:
        ConfigError: it is neither.
    """
    if value is None or isinstance(value, (int, float)):
        return value
    try:
        return float(value)
    except ValueError:
        pass
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{name} is no time", value=value, allowed="a day such as 2018-01-01, or Unix seconds") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _whole(value: Any) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ConfigError("the demo's --items is how many", value=value, allowed="a whole number") from None


def read_prepare_config(path: Path) -> dict[str, Any]:
    """The settings of a TOML file, or of a YAML or JSON one; paths in it are relative to it.

    Raises:
        ConfigError: it cannot be read.
    """
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        values = read_mapping(path, what="the settings")
    else:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"the settings cannot be read ({error.strerror})", value=str(path)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"the settings are not TOML ({error})", value=str(path)) from None
    values = {key: str(value) if isinstance(value, date) else value for key, value in values.items()}
    for key in _PATHS:
        if isinstance(values.get(key), str) and "://" not in values[key]:
            values[key] = str(path.parent / values[key])
    return values


def load_settings(path: Path | None, given: Mapping[str, Any]) -> PrepareSettings:
    """Settings out of a file and out of what is given by name, which wins.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or of the wrong type.
    """
    layers = [] if path is None else [Layer(f"file {path}", read_prepare_config(path))]
    known = {key: value for key, value in given.items() if value is not None}
    return resolve(PrepareSettings, [*layers, Layer("the call", known)]).settings


def template(name: str = "mine") -> str:
    """A TOML file with every setting, commented out, and what each means."""
    lines = [
        f"# Settings of `toolrec data prepare --config {name}.toml`. What is left out is found out from the files.",
        "# Paths are relative to this file. A flag of the same name (with hyphens) wins over the file.",
        "",
        f'name = "{name}"',
        'interactions = "clicks.csv"',
        'items = "books.csv"',
        "",
    ]
    examples = {
        "user_column": '"user"',
        "item_column": '"book"',
        "time_column": '"clicked_at"',
        "rating_column": '"stars"',
        "title_column": '"book_name"',
        "items_id_column": '"id"',
        "separator": '";"',
        "encoding": '"latin-1"',
        "header": "true",
        "attributes": '["genre", "author"]',
        "sequence_separator": '"|"',
        "missing": '["n/a", "unknown"]',
        "item_word": '"book"',
        "items_word": '"books"',
        "consumed_word": '"read"',
        "rating_words": '"{rating} of 5"',
        "min_rating": "4",
        "since": '"2018-01-01"',
        "until": '"2019-01-01"',
        "min_item_interactions": "5",
        "split": '"temporal"',
        "valid_from": '"2018-10-01"',
        "test_from": '"2018-11-01"',
        "valid_share": "0.1",
        "test_share": "0.1",
        "extra_items": '"more.csv"',
    }
    skipped = {"name", "interactions", "items", "source", "seed", "users", "mirror", *TABLES}
    for one in declared_in(PrepareSettings):
        if one.key not in skipped:
            default = one.default
            shown = examples.get(one.key) or (f'"{default}"' if isinstance(default, str) else str(default).lower())
            lines += [f"# {one.description}", f"# {one.key} = {shown}", ""]
    lines += [
        "# [kinds]  # category, categories, number, text, place",
        '# year = "number"',
        "",
        "# [separators]",
        '# genre = "|"',
        "",
        "# [rename]",
        '# book_genre = "genre"',
        "",
        "# [keep]",
        '# behavior = ["purchase"]',
        "",
    ]
    return "\n".join(lines)


def default_name(name: str, settings: PrepareSettings) -> str:
    """The folder's name under `data/` where no `--out` is given."""
    from toolrec.data.reading.files import data_name

    if settings.name:
        return settings.name
    if name == OWN:
        return data_name(str(settings.interactions))
    return name if name != "recbole" or settings.source is None else data_name(settings.source)
