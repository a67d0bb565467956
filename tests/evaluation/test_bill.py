from dataclasses import asdict

import pandas as pd
import pytest

from toolrec.evaluation.bill import DOLLARS, estimate_bill
from toolrec.evaluation.statistics import Resampling
from toolrec.llm.prices import Price
from toolrec.records import Usage

PRICE = Price(model="m", input_usd=2.0, cached_input_usd=1.0, output_usd=4.0, checked="2026-01-31", source="the list")


def users(*usages: dict[str, Usage]) -> pd.DataFrame:
    rows = [[{"purpose": purpose, **asdict(used)} for purpose, used in usage.items()] for usage in usages]
    return pd.DataFrame({"usage": rows})


FEW = users(
    {"decide": Usage(num_calls=3, prompt_tokens=1_000, cached_tokens=400, completion_tokens=50), "rank": Usage(num_calls=1)},
    {"decide": Usage(num_calls=2, prompt_tokens=3_000, completion_tokens=150)},
    {},  # failed before its first reply
)


def test_means_a_user_and_their_intervals():
    bill = estimate_bill(FEW, num_users=600, price=PRICE, resampling=Resampling(num_resamples=500))
    estimates = {estimate.name: estimate for estimate in bill.estimates}
    assert estimates["LLM calls"].mean == pytest.approx((4 + 2 + 0) / 3)
    assert estimates["prompt tokens"].mean == pytest.approx((1_000 + 3_000 + 0) / 3)
    assert estimates["of them cached"].mean == pytest.approx(400 / 3)
    assert estimates[DOLLARS].mean == pytest.approx((600 * 2 + 400 * 1 + 50 * 4 + 3_000 * 2 + 150 * 4) / 1e6 / 3)
    for estimate in bill.estimates:
        assert estimate.low <= estimate.mean <= estimate.high
    # The widest that three users can say: all drawn alike.
    assert (estimates["prompt tokens"].low, estimates["prompt tokens"].high) == (0, 3_000)
    assert (bill.num_tried, bill.num_users) == (3, 600)


def test_stored_replies_count_at_what_they_had_cost():
    saved = {"saved_prompt_tokens": 800, "saved_cached_tokens": 300, "saved_completion_tokens": 10}
    stored = users({"decide": Usage(num_calls=2, num_stored_replies=2, **saved)})
    bill = estimate_bill(stored, num_users=10, price=PRICE)
    means = {estimate.name: estimate.mean for estimate in bill.estimates}
    assert (means["prompt tokens"], means["of them cached"]) == (800, 300)
    assert means[DOLLARS] == pytest.approx((500 * 2 + 300 * 1 + 10 * 4) / 1e6)
    assert bill.num_stored_replies == 2


def test_one_user_has_no_interval_and_no_price_no_dollars():
    bill = estimate_bill(FEW.iloc[:1], num_users=10)
    assert [estimate.name for estimate in bill.estimates] == ["LLM calls", "prompt tokens", "of them cached", "reply tokens"]
    assert all(estimate.low is estimate.high is None for estimate in bill.estimates)
