from __future__ import annotations

import pytest

from toolrec.data import AttributeSpec, Pool
from toolrec.data.pool import MOVIES

TITLES = (
    "Shawshank Redemption, The (1994)",
    "Toy Story (1995)",
    "Toy Story 2 (1999)",
    "Heat (1995)",
    "Sabrina (1954)",
    "Sabrina (1995)",
    "Good, the Bad and the Ugly, The (1966)",
    "Postino, Il (The Postman) (1994)",
    "Amélie (2001)",
    "1984 (1984)",
    "Léon: The Professional (1994)",
    "Godfather: Part II, The (1974)",
    "Lock, Stock & Two Smoking Barrels (1998)",
    "महल (1949)",
    "मोहल (1950)",
    "Schindler's List (1993)",
)


@pytest.fixture
def pool() -> Pool:
    """Item i has id `m{i}`, item 10 has the id `1984`, which is also its title."""
    ids = [f"m{i}" for i in range(1, len(TITLES) + 1)]
    ids[9] = "1984"
    return Pool(
        item_ids=["", *ids],
        titles=["", *TITLES],
        attributes=[AttributeSpec(name="genre", kind="categories")],
        values={"genre": [["Drama"]] * len(TITLES)},
        domain=MOVIES,
    )
