"""Which column of a table of interactions plays which role: said, found by its name, or by what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolrec.data.reading.findings import Findings, visible
from toolrec.data.reading.formats import (
    Table,
    normal_name,
)
from toolrec.data.sources.own.config import OwnConfig
from toolrec.errors import ConfigError, DataError

USER_COLUMNS = (
    "user_id",
    "user",
    "userid",
    "uid",
    "reviewerid",
    "reviewer_id",
    "customer_id",
    "customer",
    "visitorid",
    "visitor_id",
    "member_id",
    "client_id",
    "account_id",
    "person_id",
    "reader_id",
    "listener_id",
    "player_id",
    "session_id",
)
ITEM_COLUMNS = (
    "item_id",
    "item",
    "itemid",
    "iid",
    "product_id",
    "productid",
    "product",
    "parent_asin",
    "asin",
    "movie_id",
    "movieid",
    "book_id",
    "bookid",
    "business_id",
    "article_id",
    "track_id",
    "song_id",
    "artist_id",
    "artistid",
    "game_id",
    "app_id",
    "isbn",
    "sku",
    "recipe_id",
    "video_id",
    "content_id",
    "news_id",
    "id",
)
RATING_COLUMNS = ("rating", "ratings", "score", "stars", "overall", "star_rating", "user_rating", "preference", "review_score")
TIME_COLUMNS = (
    "timestamp",
    "time",
    "datetime",
    "date",
    "ts",
    "unixreviewtime",
    "unix_time",
    "event_time",
    "created_at",
    "rated_at",
    "review_date",
    "review_time",
    "reviewtime",
    "date_added",
    "visited_at",
    "purchase_date",
    "order_date",
)
"""Normal forms of column names, the first one that is there."""
ROLES: Mapping[str, tuple[str, ...]] = {
    "user": USER_COLUMNS,
    "item": ITEM_COLUMNS,
    "rating": RATING_COLUMNS,
    "time": TIME_COLUMNS,
}


@dataclass(slots=True, kw_only=True)
class Roles:
    """The columns of a table of interactions; None where there is none."""

    user: str
    item: str
    rating: str | None
    time: str | None

    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for name in (self.user, self.item, self.rating, self.time) if name))


def find_roles(table: Table, config: OwnConfig, findings: Findings) -> Roles:
    """Finds each role's column and tells what was found, and what is not read.

    Raises:
        DataError: no column is the user's or the item's.
        ConfigError: a named column that is not there.
    """
    sample = table.sample()
    found: dict[str, str | None] = {}
    is_numbered = all(name == f"column_{place}" for place, name in enumerate(table.columns, start=1))
    by_content = _roles_by_content(table.columns, sample) if is_numbered else {}
    for role, known in ROLES.items():
        given = config.columns.get(role)
        taken = {name for name in found.values() if name} | {
            config.columns[r] for r in config.columns if r in ROLES and r != role
        }
        if given is not None:
            found[role] = exact_column(given, table, role)
            findings.found(f"{role} column", visible(found[role] or ""), "given")
            continue
        by_form = {normal_name(name): name for name in reversed(table.columns) if name not in taken}
        form = next((form for form in known if form in by_form), None)
        found[role] = by_form[form] if form else by_content.get(role)
        if found[role] is not None:
            tell = findings.found if form else findings.warn
            tell(
                f"{role} column",
                visible(found[role] or ""),
                "by its name" if form else "by its values: the file has no header",
                change=f"--{role}-column",
            )
    for role in ("user", "item"):
        if found[role] is None:
            raise DataError(
                f"{table.name}, line 1: no column is recognised as the {role}",
                value=", ".join(map(visible, table.columns[:20])),
                allowed=", ".join(ROLES[role][:8]) + ", …",
                hint=f"name it with --{role}-column",
            )
    user, item = found["user"], found["item"]
    assert user is not None and item is not None
    if found["time"] is None:
        findings.warn("time column", "none: the order of the rows is taken for the order in time", "", change="--time-column")
    if found["rating"] is None:
        findings.note("rating column", "none: prompts show no ratings, --min-rating cannot be used", "", change="--rating-column")
    roles = Roles(user=user, item=item, rating=found["rating"], time=found["time"])
    _tell_unread(table, sample, roles, config, findings)
    return roles


def _roles_by_content(columns: list[str], sample: dict[str, list[Any]]) -> dict[str, str]:
    """Without a header: user, item, rating, time, as in nearly every published file; checked by what the columns hold."""
    roles = dict(zip(("user", "item"), columns, strict=False))
    for name in columns[2:]:
        numbers = [number_or_none(cell) for cell in sample[name]]
        if any(number is None for number in numbers):
            continue
        values = [number for number in numbers if number is not None]
        if "rating" not in roles and max(values, default=0) <= 100 and len(set(values)) <= 101:
            roles["rating"] = name
        elif "time" not in roles and min(values, default=0) >= 1e8:
            roles["time"] = name
    return roles


def number_or_none(cell: Any) -> float | None:
    """A cell as a number, where it is one."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def exact_column(given: str, table: Table, role: str) -> str:
    """The table's column of a given name, which may be written a little otherwise.

    Raises:
        ConfigError: there is none.
    """
    if given in table.columns:
        return given
    alike = next((name for name in table.columns if normal_name(name) == normal_name(given)), None)
    if alike is None:
        raise ConfigError(
            f"{table.name} has no such {role} column", value=given, allowed=", ".join(map(visible, table.columns[:30]))
        )
    return alike


def _tell_unread(table: Table, sample: dict[str, list[Any]], roles: Roles, config: OwnConfig, findings: Findings) -> None:
    read = {*roles.columns(), *config.keep}
    unread = [name for name in table.columns if name not in read]
    if unread:
        findings.note(f"interactions ({table.name})", f"columns not read: {', '.join(map(visible, unread[:20]))}")
    for name in unread:
        values = Counter(str(cell) for cell in sample[name] if isinstance(cell, str) and len(cell) < 40)
        if 2 <= len(values) <= 12 and sum(values.values()) >= 20:
            shown = ", ".join(f"{visible(value)} {count}×" for value, count in values.most_common(4))
            findings.warn(
                f"column {name}",
                "interactions of several kinds are mixed",
                f"the first rows have {shown}",
                change=f"--keep {name}={next(iter(values))}",
            )
