import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from toolrec.util.printable import printable


def test_control_characters_and_direction_overrides_go():
    assert printable("a\x1b[31mb\u202egnp\x00.exe\n\tc") == "a [31mb gnp .exe c"


def test_lines_are_kept_on_request_and_cut_to_the_limit():
    assert printable("a \r\n b\x07c", keep_lines=True) == "a\nb c"
    assert printable("abcdef", limit=4) == "abc…"


@given(st.text(), st.integers(1, 20))
def test_what_is_left_is_one_printable_line(text, limit):
    shown = printable(text, limit=limit)
    assert len(shown) <= limit
    assert all(not unicodedata.category(c).startswith("C") for c in shown)
    assert printable(shown) == shown.strip()
