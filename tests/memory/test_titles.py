"""Titles as LLMs write them."""

from __future__ import annotations

import pytest

from toolrec.memory.titles import TitleIndex, normalised, title_forms

SHAWSHANK, TOY, TOY2, HEAT, SABRINA_54, SABRINA_95, UGLY, POSTINO, AMELIE, NINETEEN, LEON, GODFATHER = range(1, 13)
LOCK, MAHAL, MOHAL, SCHINDLER = 13, 14, 15, 16


@pytest.fixture
def index(pool):
    return TitleIndex(pool.titles)


@pytest.mark.parametrize(
    ("written", "item"),
    [
        ("Shawshank Redemption, The (1994)", SHAWSHANK),
        ("The Shawshank Redemption", SHAWSHANK),
        ("the shawshank redemption (1994)", SHAWSHANK),
        ("SHAWSHANK  REDEMPTION", SHAWSHANK),
        ("Toy Story", TOY),
        ("Heat [1995]", HEAT),
        ("Heat (1996)", HEAT),
        ("Heat (1959)", HEAT),
        ("Sabrina (1954)", SABRINA_54),
        ("Sabrina (1995)", SABRINA_95),
        ("The Good, the Bad and the Ugly", UGLY),
        ("Il Postino", POSTINO),
        ("The Postman (1994)", POSTINO),
        ("Postman", POSTINO),
        ("Amelie", AMELIE),
        ("AME\u0301LIE (2001)", AMELIE),
        ("ＨＥＡＴ", HEAT),
        ("Leon - The Professional", LEON),
        ("The Godfather: Part II", GODFATHER),
        ("Lock, Stock and Two Smoking Barrels", LOCK),
        ("महल", MAHAL),
        ("Schindler’s List", SCHINDLER),
    ],
)
def test_a_title_is_found_in_other_forms(index, written, item):
    assert index.find(written) == (item, "title")


@pytest.mark.parametrize(
    ("written", "item"),
    [
        ("The Shawshank Redemtion", SHAWSHANK),
        ("Shawshnak Redemption (1994)", SHAWSHANK),
        ("Schindlers Lst", SCHINDLER),
        ("Toy Stroy 2", TOY2),
        ("Saabrina (1954)", SABRINA_54),
    ],
)
def test_a_typo_is_near_enough(index, written, item):
    assert index.find(written) == (item, "near")


@pytest.mark.parametrize(
    "written",
    [
        "Toy Story 3",  # a sequel that the pool does not have is one character away
        "Heat (1972)",  # another film of that name
        "Godfather: Part III, The",
        "Het",  # too short to be near anything
        "Casablanca",
        "",
        "!!!",
    ],
)
def test_another_title_is_unknown(index, written):
    assert index.find(written) == (None, "unknown")


def test_a_title_of_two_items_is_ambiguous_unless_one_is_preferred(index):
    assert index.find("Sabrina") == (None, "ambiguous")
    assert index.find("Sabrina", preferred={SABRINA_95, HEAT}) == (SABRINA_95, "title")
    assert index.find("Sabrina", preferred={SABRINA_95, SABRINA_54}) == (None, "ambiguous")


def test_a_typo_between_two_near_titles_is_unknown():
    index = TitleIndex(["", "Summer of Light", "Summer of Night"])
    assert index.find("Summer of Xight") == (None, "unknown")
    assert index.find("Summer of Xight", preferred={2}) == (2, "near")


def test_a_plural_is_another_title():
    index = TitleIndex(["", "Gremlin", "Mountain Roads"])
    assert index.find("Gremlins") == (None, "unknown")
    assert index.find("Mountain Road") == (None, "unknown")


def test_vowel_signs_keep_words_apart():
    assert normalised("महल") != normalised("मोहल")


def test_forms_of_a_title():
    forms = title_forms("Postino, Il (The Postman) (1994)")
    assert forms.year == 1994
    assert {"il postino", "postino", "the postman", "postman"} <= set(forms.others)


def test_marks_alone_still_make_a_title():
    index = TitleIndex(["", "!!!", "???"])
    assert index.find("???") == (2, "title")


@pytest.mark.parametrize(
    ("written", "real"),
    [
        ("The Western Photograph (1985)", "The Gentle Photograph (1985)"),
        ("The Silent Machine (2005)", "Silver Machine (2005)"),
        ("The Open of Old Quarry (2004)", "The Open Shadow of Old Quarry (2004)"),
    ],
)
def test_a_title_with_another_word_is_another_work(written: str, real: str):
    assert TitleIndex(["", real]).find(written) == (None, "unknown")


@pytest.mark.parametrize(
    ("written", "real"),
    [
        ("Hte Golden Candle (1977)", "The Golden Candle (1977)"),
        ("Golden Candle of Thornbury", "The Golden Candle of the Thornbury"),
        ("Star Wars Holyday", "Starwars Holiday"),
    ],
)
def test_slips_small_words_and_blanks_are_near(written: str, real: str):
    assert TitleIndex(["", real]).find(written) == (1, "near")
