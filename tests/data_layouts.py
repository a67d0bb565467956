"""Small whole files in each published layout, and ways to damage them."""

from __future__ import annotations

import json
from dataclasses import dataclass

NUM_USERS, NUM_ITEMS = 4, 6
Files = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout's files; `rows` is its file of interactions and `items` that of items."""

    files: Files
    rows: str
    items: str | None
    first_row: int = 1
    """Line of the first interaction."""
    titles: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


def pairs() -> list[tuple[int, int, int]]:
    """user, item, Unix seconds: every user with every item, in the order of the items' numbers."""
    return [
        (user, item, 1_500_000_000 + 86_400 * item + user) for user in range(1, NUM_USERS + 1) for item in range(1, NUM_ITEMS + 1)
    ]


def _lines(rows: list[str]) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def _json(rows: list[dict[str, object]]) -> bytes:
    return _lines([json.dumps(row) for row in rows])


def _python(rows: list[dict[str, object]]) -> bytes:
    return _lines([repr(row) for row in rows])


ITEMS = range(1, NUM_ITEMS + 1)
TITLES = tuple(f"Thing {item}" for item in ITEMS)
_MOVIE_TITLES = tuple(f"Thing, The {item} ({1990 + item})" for item in ITEMS)
_RATINGS_DAT = _lines([f"{user}::{item}::{1 + item % 5}::{time}" for user, item, time in pairs()])
_MOVIES_DAT = _lines(
    [
        f"{item}::{title}::Drama|War" if item % 2 else f"{item}::{title}::Love"
        for item, title in zip(ITEMS, _MOVIE_TITLES, strict=True)
    ]
)
_DAY = 86_400


def _movielens_csv() -> Files:
    ratings = ["userId,movieId,rating,timestamp", *(f"{user},{item},{1 + item % 5}.0,{time}" for user, item, time in pairs())]
    movies = ["movieId,title,genres"]
    movies += [
        f'{item},"{title}",{"Drama|War" if item % 2 else "(no genres listed)"}'
        for item, title in zip(ITEMS, _MOVIE_TITLES, strict=True)
    ]
    return {"ratings.csv": _lines(ratings), "movies.csv": _lines(movies)}


def _amazon(edition: int) -> Files:
    rows: list[dict[str, object]] = []
    for user, item, time in pairs():
        if edition == 2023:
            row: dict[str, object] = {
                "rating": 5.0,
                "title": "t",
                "text": "x",
                "parent_asin": f"B{item}",
                "user_id": f"U{user}",
                "timestamp": time * 1000,
            }
        else:
            row = {"reviewerID": f"U{user}", "asin": f"B{item}", "overall": 5.0, "unixReviewTime": time}
        rows.append(row)
    metas: list[dict[str, object]] = []
    for item, title in zip(ITEMS, TITLES, strict=True):
        if edition == 2014:
            metas.append(
                {
                    "asin": f"B{item}",
                    "title": title,
                    "price": 9.5 + item,
                    "salesRank": {"Books": 100 * item},
                    "brand": f"Brand {item % 2}",
                    "categories": [["Books", f"Kind {item % 3}"]],
                }
            )
        elif edition == 2018:
            metas.append(
                {
                    "asin": f"B{item}",
                    "title": title,
                    "price": f"${9.5 + item:.2f}",
                    "rank": f"{100 * item:,} in Books (",
                    "brand": f"Brand {item % 2}",
                    "category": ["Books", f"Kind {item % 3}"],
                }
            )
        else:
            metas.append(
                {
                    "parent_asin": f"B{item}",
                    "title": title,
                    "price": 9.5 + item,
                    "store": f"Brand {item % 2}",
                    "categories": ["Books", f"Kind {item % 3}"],
                    "details": {"Best Sellers Rank": {"Books": 100 * item}},
                }
            )
    if edition == 2023:
        return {"Books.jsonl": _json(rows), "meta_Books.jsonl": _json(metas)}
    name = "reviews_Books_5.json" if edition == 2014 else "Books_5.json"
    return {name: _json(rows), "meta_Books.json": _python(metas) if edition == 2014 else _json(metas)}


def _day(item: int) -> str:
    return f"2017-07-{14 + item:02d}"


def _yelp() -> Files:
    reviews: list[dict[str, object]] = [
        {
            "review_id": "r",
            "user_id": f"U{user}",
            "business_id": f"B{item}",
            "stars": 4.0,
            "text": "x",
            "date": f"{_day(item)} 10:00:{user:02d}",
        }
        for user, item, _ in pairs()
    ]
    businesses: list[dict[str, object]] = [
        {
            "business_id": f"B{item}",
            "name": title,
            "address": f"{item} Main St",
            "city": f"City {item % 2}",
            "state": "CA" if item % 2 else "NV",
            "postal_code": f"0{item % 3}210",
            "stars": 3.5 + item % 2,
            "categories": "Food, Bars" if item % 2 else "Food",
            "attributes": {"RestaurantsPriceRange2": str(1 + item % 3)},
        }
        for item, title in zip(ITEMS, TITLES, strict=True)
    ]
    return {"yelp_academic_dataset_review.json": _json(reviews), "yelp_academic_dataset_business.json": _json(businesses)}


def _goodreads() -> Files:
    rows: list[dict[str, object]] = [
        {
            "user_id": f"U{user}",
            "book_id": str(item),
            "is_read": True,
            "rating": 4,
            "date_added": f"Fri Jul {14 + item:02d} 10:00:{user:02d} -0700 2017",
        }
        for user, item, _ in pairs()
    ]
    books: list[dict[str, object]] = [
        {
            "book_id": str(item),
            "title": title,
            "authors": [{"author_id": str(item % 2), "role": ""}],
            "publication_year": str(1990 + item),
            "publisher": f"House {item % 2}",
            "language_code": "eng" if item % 3 else "ger",
            "average_rating": "4.1",
            "ratings_count": str(item),
            "num_pages": str(100 + item),
            "popular_shelves": [{"count": "9", "name": "to-read"}, {"count": "3", "name": f"shelf-{item % 2}"}],
        }
        for item, title in zip(ITEMS, TITLES, strict=True)
    ]
    return {"goodreads_interactions_x.json": _json(rows), "goodreads_books_x.json": _json(books)}


def _lastfm() -> Files:
    return {
        "user_artists.dat": _lines(["userID\tartistID\tweight", *(f"{user}\t{item}\t{100 + item}" for user, item, _ in pairs())]),
        "artists.dat": _lines(
            [
                "id\tname\turl\tpictureURL",
                *(f"{item}\t{title}\thttp://x\thttp://y" for item, title in zip(ITEMS, TITLES, strict=True)),
            ]
        ),
        "tags.dat": _lines(["tagID\ttagValue", "1\tmetal", "2\tjazz"]),
        "user_taggedartists.dat": _lines(
            ["userID\tartistID\ttagID\tday\tmonth\tyear", *(f"1\t{item}\t{1 + item % 2}\t1\t4\t2009" for item in ITEMS)]
        ),
    }


def _lastfm_1k() -> Files:
    rows = [
        f"user_{user:06d}\t{_day(item)}T10:00:{user:02d}Z\tartist-{item}\tThing {item}\ttrack\tname" for user, item, _ in pairs()
    ]
    return {"userid-timestamp-artid-artname-traid-traname.tsv": _lines(rows)}


def _steam() -> Files:
    rows: list[dict[str, object]] = [
        {"username": f"U{user}", "product_id": str(item), "date": _day(item), "hours": 1.5} for user, item, _ in pairs()
    ]
    games: list[dict[str, object]] = [
        {
            "app_name": title,
            "id": str(item),
            "genres": ["Action"] if item % 2 else ["Indie", "RPG"],
            "tags": ["Fun", f"T{item % 3}"],
            "price": "Free to Play" if item == 1 else 4.99 + item,
            "developer": f"Dev {item % 2}",
            "publisher": f"Pub {item % 3}",
            "release_date": f"{2000 + item}-01-02",
        }
        for item, title in zip(ITEMS, TITLES, strict=True)
    ]
    return {"steam_reviews.json": _python(rows), "steam_games.json": _python(games)}


def _recbole() -> Files:
    rows = [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        *(f"{user}\t{item}\t{1 + item % 5}\t{time}" for user, item, time in pairs()),
    ]
    items = [
        "item_id:token\ttitle:token_seq\tgenre:token_seq",
        *(f"{item}\t{title}\t{'Drama War' if item % 2 else 'Love'}" for item, title in zip(ITEMS, TITLES, strict=True)),
    ]
    return {"x.inter": _lines(rows), "x.item": _lines(items)}


def _kgat() -> Files:
    train = [f"{user - 1} " + " ".join(str(item - 1) for item in ITEMS if item < NUM_ITEMS) for user in range(1, NUM_USERS + 1)]
    test = [f"{user - 1} {NUM_ITEMS - 1}" for user in range(1, NUM_USERS + 1)]
    return {
        "train.txt": _lines(train),
        "test.txt": _lines(test),
        "item_list.txt": _lines(["org_id remap_id freebase_id", *(f"B{item} {item - 1} m.{item}" for item in ITEMS)]),
        "user_list.txt": _lines(["org_id remap_id", *(f"U{user} {user - 1}" for user in range(1, NUM_USERS + 1))]),
    }


def _s3rec() -> Files:
    rows = [f"{user} " + " ".join(map(str, ITEMS)) for user in range(1, NUM_USERS + 1)]
    return {
        "Beauty.txt": _lines(rows),
        "Beauty_item2attributes.json": json.dumps({str(item): [item % 2, 7 + item % 3] for item in ITEMS}).encode(),
    }


_GENRES = ("genre", "release_year")
_PRODUCT = ("price", "sales_rank", "brand", "categories")
LAYOUTS: dict[str, Layout] = {
    "ml-10m": Layout(
        files={"ratings.dat": _RATINGS_DAT, "movies.dat": _MOVIES_DAT},
        rows="ratings.dat",
        items="movies.dat",
        titles=_MOVIE_TITLES,
        attributes=_GENRES,
    ),
    "ml-latest-small": Layout(
        files=_movielens_csv(), rows="ratings.csv", items="movies.csv", first_row=2, titles=_MOVIE_TITLES, attributes=_GENRES
    ),
    "amazon-2014": Layout(
        files=_amazon(2014), rows="reviews_Books_5.json", items="meta_Books.json", titles=TITLES, attributes=_PRODUCT
    ),
    "amazon-2018": Layout(files=_amazon(2018), rows="Books_5.json", items="meta_Books.json", titles=TITLES, attributes=_PRODUCT),
    "amazon-2023": Layout(files=_amazon(2023), rows="Books.jsonl", items="meta_Books.jsonl", titles=TITLES, attributes=_PRODUCT),
    "yelp": Layout(
        files=_yelp(),
        rows="yelp_academic_dataset_review.json",
        items="yelp_academic_dataset_business.json",
        titles=TITLES,
        attributes=("city", "stars", "categories", "postal_code", "price_range"),
    ),
    "goodreads": Layout(
        files=_goodreads(),
        rows="goodreads_interactions_x.json",
        items="goodreads_books_x.json",
        titles=TITLES,
        attributes=("author", "release_year", "language", "ratings_count", "num_pages"),
    ),
    "lastfm": Layout(
        files=_lastfm(), rows="user_artists.dat", items="artists.dat", first_row=2, titles=TITLES, attributes=("tags",)
    ),
    "lastfm-1k": Layout(files=_lastfm_1k(), rows="userid-timestamp-artid-artname-traid-traname.tsv", items=None, titles=TITLES),
    "steam": Layout(
        files=_steam(),
        rows="steam_reviews.json",
        items="steam_games.json",
        titles=TITLES,
        attributes=("genres", "tags", "price", "developer", "publisher", "release_year"),
    ),
    "recbole": Layout(files=_recbole(), rows="x.inter", items="x.item", first_row=2, titles=TITLES, attributes=("genre",)),
    "kgat": Layout(files=_kgat(), rows="train.txt", items="item_list.txt", titles=tuple(f"B{item}" for item in ITEMS)),
    "s3rec": Layout(
        files=_s3rec(),
        rows="Beauty.txt",
        items="Beauty_item2attributes.json",
        titles=tuple(map(str, ITEMS)),
        attributes=("attribute",),
    ),
}
"""Releases that share a layout are represented by one."""
