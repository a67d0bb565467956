"""No reply that is not clearly a final list ends a user: prose made of titles and ids, in both protocols."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolrec.errors import ReplyError
from toolrec.surrogate.parsing import cut_observation, parse_plain_reply, parse_text_reply

NAMES = frozenset(("retrieve", "rank", "finish"))
LIST_LENGTH = 10

forms = st.sampled_from(["<m{n}>", "<m{n}> {title}", "{title}", "**{title}** (<m{n}>)", "m{n}"])
items = st.builds(lambda form, n: form.format(n=n, title=f"Film {n}, The ({1950 + n})"), forms, st.integers(1, 40))
several = st.lists(items, min_size=1, max_size=14)
sentences = st.one_of(
    several.map(lambda names: f"I liked {', '.join(names)} and their like."),
    several.map(lambda names: f"I could Finish[{', '.join(names)}] but I want to see more."),
    several.map(lambda names: f"It is too early to finish({', '.join(names)})."),
    several.map(lambda names: f"My final list may have {' and '.join(names)}."),
    several.map(lambda names: f"From that list {', '.join(names)} look promising; what of the genre?"),
    st.just("Let me think about what I would watch next."),
)
headings = st.sampled_from(
    ["The best so far:", "What I watched:", "My plan:", "Candidates:", "Returned by genre:", "Top picks to compare:"]
)
marks = st.sampled_from(["{n}. {item}", "- {item}", "* {item}", "{n}) {item}"])
blocks = st.builds(
    lambda heading, mark, names: "\n".join([heading, *(mark.format(n=n, item=item) for n, item in enumerate(names, 1))]),
    headings,
    marks,
    several,
)
prose = st.lists(sentences | blocks, min_size=1, max_size=4).filter(lambda parts: not parts[0].startswith("<")).map("\n".join)
short_lists = st.lists(items, min_size=1, max_size=LIST_LENGTH - 1).map("\n".join)


def ends_a_user(parse) -> bool:
    try:
        return parse().name == "finish"
    except ReplyError as error:
        assert error.message and error.kind
        return False


@given(text=prose)
def test_prose_ends_no_user(text):
    assert not ends_a_user(lambda: parse_plain_reply(text, allowed=NAMES, list_length=LIST_LENGTH))
    assert not ends_a_user(lambda: parse_text_reply(cut_observation(text), allowed=NAMES))


@given(text=short_lists)
def test_a_short_list_without_a_call_ends_no_user(text):
    assert not ends_a_user(lambda: parse_plain_reply(text, allowed=NAMES, list_length=LIST_LENGTH))


@given(thought=prose, names=st.lists(st.integers(1, 99), min_size=LIST_LENGTH, max_size=LIST_LENGTH, unique=True))
def test_of_prose_before_a_final_list_nothing_gets_into_it(thought, names):
    listed = [f"<m{n}>" for n in names]
    text = f"{thought}\nAction 3: Finish[{', '.join(listed)}]"
    assert parse_text_reply(text, allowed=NAMES).items == tuple(listed)
    text = f"{thought}\nFinal list:\n" + "\n".join(f"{place}. {item}" for place, item in enumerate(listed, 1))
    assert parse_plain_reply(text, allowed=NAMES, list_length=LIST_LENGTH).items == tuple(listed)
