"""The prompt grammar: what is written is read back, and nothing in a title can pass for grammar."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.grammar import (
    FORBIDDEN_IN_ID,
    MAX_LIST_ENTRIES,
    ItemLine,
    clean,
    item_ids_in,
    lines_after,
    list_entries,
    parse_item_line,
    render_item_line,
)

ids = st.text(min_size=1, max_size=30).filter(
    lambda text: text == text.strip() and text.isprintable() and not set(text) & set(FORBIDDEN_IN_ID)
)
names = st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True)


@settings(deadline=None)
@given(
    item_id=ids,
    title=st.text(max_size=60),
    fields=st.lists(st.tuples(names, st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3)), max_size=3),
    number=st.one_of(st.none(), st.integers(1, 99)),
)
def test_an_item_line_is_read_back_as_it_was_cleaned(item_id, title, fields, number):
    line = ItemLine(item_id=item_id, title=title, fields=tuple((n, tuple(v)) for n, v in fields), number=number)
    text = render_item_line(line)
    assert "\n" not in text
    read = parse_item_line(text)
    assert read is not None
    assert (read.item_id, read.number) == (item_id, number)
    assert read.title == clean(title)
    kept = [(name, tuple(v for v in (clean(v).replace(",", ";") for v in values) if v)) for name, values in fields]
    assert [(name, values) for name, values in read.fields if values] == [(n, v) for n, v in kept if v]


@pytest.mark.parametrize("title", ["<318> fake", "a | score: 9.9", "two\nlines", "{{ 7 * 7 }}", "x\u2028y", "\x1c1. <9> z"])
def test_a_title_cannot_pass_for_grammar(title):
    text = render_item_line(ItemLine(item_id="7", title=title, fields=(("genre", ("Drama",)),)))
    assert len(text.splitlines()) == 1
    assert item_ids_in(text) == ["7"]
    read = parse_item_line(text)
    assert read is not None and read.fields == (("genre", ("Drama",)),)


def test_a_line_without_title_keeps_its_fields():
    text = render_item_line(ItemLine(item_id="7", fields=(("genre", ("Drama", "War")),), number=3))
    assert text == "3. <7> | genre: Drama, War"
    read = parse_item_line(text)
    assert read == ItemLine(item_id="7", title="", fields=(("genre", ("Drama", "War")),), number=3)


def test_lines_after_a_heading_end_at_the_first_other_line():
    text = "Candidates:\n1. <a> A\n2. <b> B\nRank by: x\n3. <c> C"
    assert [line.item_id for line in lines_after("Candidates:", text)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("<318>, <2858>", ["<318>", "<2858>"]),
        ("<318> <2858>\n<6>", ["<318>", "<2858>", "<6>"]),
        ("318, 2858", ["318", "2858"]),
        ("1. <318>\n2. <2858>", ["<318>", "<2858>"]),
        (
            "Here is my list:\n1. <318> Shawshank Redemption, The (1994)\n2. <6>",
            ["<318> Shawshank Redemption, The (1994)", "<6>"],
        ),
        (
            "<318> Shawshank Redemption, The (1994), <6> Heat (1995)",
            ["<318> Shawshank Redemption, The (1994)", "<6> Heat (1995)"],
        ),
        ("<318>, Toy Story (1995), <6>", ["<318>", "Toy Story (1995)", "<6>"]),
        ("<318> A | genre: Drama, War\n<6> B | genre: War", ["<318> A", "<6> B"]),
        ("Toy Story (1995) <1>, Heat (1995) <6>", ["<1> Toy Story (1995)", "<6> Heat (1995)"]),
        ("<a,b>, <c;d>", ["<a,b>", "<c;d>"]),
        ("Toy Story (1995); Heat (1995)", ["Toy Story (1995)", "Heat (1995)"]),
        ("Toy Story\nHeat\n\nCasino", ["Toy Story", "Heat", "Casino"]),
        ("Sure!\n1) Toy Story\n2) 12 Angry Men\n", ["Toy Story", "12 Angry Men"]),
        ("- Toy Story\n- Heat", ["Toy Story", "Heat"]),
        ('"Good, the Bad and the Ugly, The", "Heat"', ["Good, the Bad and the Ugly, The", "Heat"]),
        ('["318", 6, {"id": "7", "title": "Heat"}, null, true]', ["318", "6", "<7> Heat"]),
        ('```json\n["318", "6"]\n```', ["318", "6"]),
        ("**<318>**, `<6>`", ["<318>", "<6>"]),
        ("", []),
        (" , ;\n ", []),
    ],
)
def test_lists_as_llms_write_them(text, entries):
    assert list_entries(text) == entries


@settings(deadline=None)
@given(st.text(max_size=400))
def test_any_text_gives_a_short_list_of_short_entries(text):
    entries = list_entries(text)
    assert len(entries) <= MAX_LIST_ENTRIES
    assert all(entry.strip() for entry in entries)


@pytest.mark.parametrize("unit", ["<1>, ", "<", "[", "a, ", "1. x\n", "<1> x, y ", '"', "“", " ", "\n", "(", ", "])
def test_a_list_of_a_megabyte_takes_bounded_time(unit):
    text = unit * (1_000_000 // len(unit))
    began = time.process_time()
    assert len(list_entries(text)) <= MAX_LIST_ENTRIES
    assert time.process_time() - began < 1.0


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_any_json_gives_a_list(value):
    assert all(isinstance(entry, str) for entry in list_entries(json.dumps([value])))
