"""Writes made-up files in the shape of Amazon Reviews 2023 (Books): JSON lines of reviews and of items, from a seed.

Sizes and shares follow what is published of that data set: 29.5 M reviews by 10.3 M users of 4.4 M items, lines of about
680 bytes, long-tailed users and items. Nothing in it is real.

    python benchmarks/generate_reviews.py /tmp/reviews --reviews 1000000
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

REVIEWS_A_USER, REVIEWS_AN_ITEM = 2.87, 6.7
MEAN_TEXT_CHARACTERS = 400
WORDS = [
    "the",
    "a",
    "of",
    "and",
    "book",
    "story",
    "reader",
    "character",
    "chapter",
    "plot",
    "writing",
    "loved",
    "slow",
    "twist",
    "end",
    "beautiful",
    '\\"classic\\"',
    "series",
    "author",
    "page",
    "turner",
    "recommend",
    "history",
    "love",
    "war",
    "family",
    "read",
    "again",
    "first",
    "last",
    "never",
    "always",
    "great",
    "poor",
    "\\u2019",
    "good",
]


def generate(folder: Path, *, num_reviews: int, seed: int) -> None:
    """Writes `Books.jsonl` and `meta_Books.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    num_users, num_items = max(2, int(num_reviews / REVIEWS_A_USER)), max(2, int(num_reviews / REVIEWS_AN_ITEM))
    snippets = [
        " ".join(random.choice(WORDS, max(2, int(length / 5)))) for length in random.exponential(MEAN_TEXT_CHARACTERS, 997)
    ]
    block = 100_000
    with (folder / "Books.jsonl").open("w", encoding="ascii") as handle:
        for start in range(0, num_reviews, block):
            size = min(block, num_reviews - start)
            users = (num_users * random.random(size) ** 2.2).astype(np.int64)
            items = (num_items * random.random(size) ** 2.5).astype(np.int64)
            ratings = random.choice([1, 2, 3, 4, 5], size, p=[0.05, 0.05, 0.1, 0.2, 0.6])
            times = random.integers(900_000_000_000, 1_690_000_000_000, size)
            texts = random.integers(0, len(snippets), size)
            handle.writelines(
                f'{{"rating": {rating}.0, "title": "Five stars", "text": "{snippets[text]}", "images": [], '
                f'"asin": "{item:010d}", '
                f'"parent_asin": "{item:010d}", "user_id": "AE{user:026X}", "timestamp": {time}, "helpful_vote": {text % 7}, '
                f'"verified_purchase": true}}\n'
                for rating, text, item, user, time in zip(
                    ratings.tolist(), texts.tolist(), items.tolist(), users.tolist(), times.tolist(), strict=True
                )
            )
    genres = ["Fiction", "History", "Romance", "Science", "Children's Books", "Cookbooks", "Mystery"]
    with (folder / "meta_Books.jsonl").open("w", encoding="utf-8") as handle:
        for item in range(num_items):
            record = {
                "main_category": "Books",
                "title": f"Book {item} of {genres[item % 7]}",
                "average_rating": 3 + item % 20 / 10,
                "rating_number": item % 997,
                "features": [],
                "description": [snippets[item % 997]] if item % 3 else [],
                "price": None if item % 4 == 0 else item % 5000 / 100,
                "images": [],
                "videos": [],
                "store": f"Author {item % 9973} (Author)",
                "categories": ["Books", genres[item % 7]],
                "details": {"Publisher": f"House {item % 997} (January 1, {1980 + item % 43})", "Language": "English"},
                "parent_asin": f"{item:010d}",
                "bought_together": None,
            }
            handle.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reviews", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generate(arguments.folder, num_reviews=arguments.reviews, seed=arguments.seed)
