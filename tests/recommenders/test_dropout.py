"""Dropout keeps the mean, drops the share it says, and repeats with torch's seed."""

import pytest
import torch

from toolrec.recommenders.models.dropout import dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drops_the_share_and_scales_the_rest(dtype):
    torch.manual_seed(0)
    out = dropout(torch.ones(200_001, dtype=dtype), 0.25, training=True).float()
    assert (out == 0).float().mean().item() == pytest.approx(64 / 256, abs=0.01)
    assert out[out > 0].unique().tolist() == pytest.approx([256 / 192], rel=0.01)


def test_the_gradient_goes_where_the_value_went():
    x = torch.ones(1000, requires_grad=True)
    out = dropout(x, 0.5, training=True)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_nothing_is_dropped_outside_training():
    x = torch.randn(10)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_torchs_seed_repeats_it():
    def drawn(seed):
        torch.manual_seed(seed)
        return dropout(torch.ones(100), 0.5, training=True)

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
