import pytest

from toolrec.util.slug import slug


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Release Year", "release-year"),
        ("  --genre--  ", "genre"),
        ("a/b\\..\x00c", "a-b-c"),
        ("Größe", "gr-e"),
        ("x" * 60, "x" * 40),
        ("x" * 39 + "-y", "x" * 39),
        ("类型", "attribute"),
        ("", "attribute"),
    ],
)
def test_a_slug_is_safe_in_paths_and_urls(name, expected):
    assert slug(name, default="attribute") == expected
