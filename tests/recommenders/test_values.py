"""What encoders read of an attribute: categories, numbers between learned knots, texts, missing values."""

import numpy as np
import pytest
import torch

from toolrec.data import AttributeSpec, Pool
from toolrec.data.pool import DomainWords
from toolrec.errors import ConfigError
from toolrec.recommenders.models.text import embed_texts
from toolrec.recommenders.models.values import (
    AttributeInput,
    Categories,
    Numbers,
    Texts,
    attribute_values,
    category_values,
    number_values,
    text_values,
    values_of_tensors,
)

CATEGORIES = category_values(np.array([0, 0, 2, 2, 3]), np.array([1, 3, 2]), num_values=4)  # items 1: {1, 3}, 2: none, 3: {2}


class LengthEncoder:
    """A text's vector: its length, its words, and how often it has an e."""

    def __init__(self):
        self.seen = []

    def embed(self, texts):
        self.seen.extend(texts)
        return np.array([[len(text), len(text.split()), text.count("e")] for text in texts], dtype=np.float32)


def embedded(values, width=4):
    torch.manual_seed(0)
    return AttributeInput(values, width)


class TestCategories:
    def test_several_values_share_the_weight(self):
        module = embedded(CATEGORIES)
        weight = module.value.embedding.weight
        torch.testing.assert_close(module.table()[1], (weight[1] + weight[3]) / 2)
        torch.testing.assert_close(module.table()[3], weight[2])

    def test_an_item_without_a_value_has_the_missing_one(self):
        module = embedded(CATEGORIES)
        torch.testing.assert_close(module.table()[2], module.value.embedding.weight[0])


@pytest.mark.parametrize(
    "values",
    [
        CATEGORIES,
        number_values(np.array([np.nan, 4.0, np.nan, 6.0]), num_buckets=3),
        text_values(["", "a", "", "be"], LengthEncoder()),
    ],
    ids=["categories", "numbers", "texts"],
)
class TestEveryKind:
    def test_padding_and_the_mask_have_none(self, values):
        table = embedded(values).table()
        assert table.shape == (5, 4)  # padding, 3 items, the mask
        assert not table[[0, 4]].any() and table[1:4].any(dim=1).all()

    def test_a_history_has_the_embeddings_of_its_items(self, values):
        module = embedded(values)
        input_BL = torch.tensor([[3, 1, 3, 0], [4, 2, 0, 0]])
        torch.testing.assert_close(module(input_BL), module.table()[input_BL])

    def test_stored_values_come_back(self, values):
        module = embedded(values)
        again = values_of_tensors(module.state_dict(), "value.")
        assert type(again) is type(values) and again.num_items == 3
        other = AttributeInput(again, 4)
        other.load_state_dict(module.state_dict())
        torch.testing.assert_close(other.table(), module.table())


class TestNumbers:
    def shares(self, numbers, num_buckets=3):
        """Every item's weights on the knots, read off embeddings that are the knots' own axes."""
        values = number_values(np.array([np.nan, *numbers]), num_buckets=num_buckets)
        module = embedded(values, values.num_knots + 1)
        with torch.no_grad():
            module.value.embedding.weight.copy_(torch.eye(values.num_knots + 1))
        return module, module.table()[1:-1]

    def test_between_two_knots_the_weight_goes_by_distance(self):
        _, shares = self.shares([0.0, 5.0, 10.0, 20.0, 20.0])  # knots at the quantiles 0, 1/2 and 1: 0, 10 and 20
        torch.testing.assert_close(shares[0], torch.tensor([0.0, 1.0, 0.0, 0.0]))
        torch.testing.assert_close(shares[1], torch.tensor([0.0, 1 - 5 / 10, 5 / 10, 0.0]))
        torch.testing.assert_close(shares[3], torch.tensor([0.0, 0.0, 0.0, 1.0]))

    def test_a_missing_number_has_its_own_value(self):
        torch.testing.assert_close(self.shares([1.0, np.nan, 3.0])[1][1], torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def test_moved_knots_change_the_shares(self):
        module, _ = self.shares([0.0, 5.0, 10.0, 20.0, 20.0])
        with torch.no_grad():
            module.value.first.fill_(-0.25)  # on the scale of quantiles, where 5 lies at 1/2: knots at -1/4, 3/4, 7/4
        shares = module.table()[1:-1]
        torch.testing.assert_close(shares[1], torch.tensor([0.0, 1 - (1 / 2 + 1 / 4), 1 / 2 + 1 / 4, 0.0]))
        torch.testing.assert_close(shares[3], torch.tensor([0.0, 0.0, 0.0, 1.0]))  # beyond the last knot

    def test_knots_learn_and_stay_in_order(self):
        rng = np.random.default_rng(0)
        numbers = rng.lognormal(sigma=2.0, size=300)
        values = number_values(np.array([np.nan, *numbers]), num_buckets=6)
        module = embedded(values, 4)
        # A step at a place between two quantiles: only knots beside it can follow it.
        place = torch.from_numpy(values.place_I)[None, 1:]
        wanted = (place > 2.4).float()
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        before = module.value.knots().detach().clone()
        for _ in range(150):
            loss = (module(torch.arange(1, 301)[None]).sum(dim=-1) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after = module.value.knots().detach()
        assert (after.diff() > 0).all()
        assert (after - 2.4).abs().sort().values[:2].sum() < (before - 2.4).abs().sort().values[:2].sum() - 0.2

    @pytest.mark.parametrize("numbers", [[4.0, 4.0], [np.nan, np.nan]])
    def test_one_number_for_all_or_none(self, numbers):
        module, shares = self.shares(numbers)
        axis = 1 if numbers[0] == 4.0 else 0
        assert module.value.knots().tolist() == [0.0]
        assert shares[:, axis].tolist() == [1.0, 1.0]

    def test_shares_add_up_to_one(self):
        _, shares = self.shares(np.random.default_rng(0).normal(size=200), num_buckets=16)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(200))


class TestTexts:
    def test_vectors_are_centred_and_of_length_one(self):
        values = text_values(["", "one", "", "one two three", "e"], LengthEncoder())
        assert np.linalg.norm(values.text_IE, axis=1) == pytest.approx([0, 1, 0, 1, 1], abs=1e-6)
        mean = np.mean([[3, 1, 1], [13, 3, 3], [1, 1, 1]], axis=0)
        expected = (np.array([3, 1, 1]) - mean) / np.linalg.norm(np.array([3, 1, 1]) - mean)
        assert values.text_IE[1] == pytest.approx(expected, abs=1e-5)

    def test_a_missing_text_has_its_own_embedding(self):
        module = embedded(text_values(["", "one", "", "three"], LengthEncoder()))
        with torch.no_grad():
            module.value.missing.copy_(torch.arange(4.0))
        torch.testing.assert_close(module.table()[2], torch.arange(4.0))

    def test_equal_texts_are_embedded_once(self):
        encoder = LengthEncoder()
        embedding = embed_texts(["b", "a", "b"], encoder)
        assert encoder.seen == ["a", "b"] and embedding.shape == (3, 3)

    @pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.zeros(2), np.full((2, 3), np.nan)])
    def test_an_encoder_that_gives_something_else_is_refused(self, bad):
        class Wrong:
            def embed(self, texts):
                return bad

        with pytest.raises(ConfigError, match="one finite vector a text"):
            embed_texts(["a", "b"], Wrong())

    def test_no_text_at_all(self):
        with pytest.raises(ConfigError, match="no item has a text"):
            embed_texts([], LengthEncoder())


class TestAttributeValues:
    POOL = Pool(
        item_ids=["", "i1", "i2"],
        titles=["", "One", "Two"],
        attributes=[
            AttributeSpec(name="colour", kind="category"),
            AttributeSpec(name="year", kind="number"),
            AttributeSpec(name="plot", kind="text"),
        ],
        values={"colour": ["red", None], "year": [1990.0, 2000.0], "plot": ["a  story", None]},
        domain=DomainWords(),
    )

    def test_by_kind(self):
        kinds = [
            type(attribute_values(self.POOL, name, num_buckets=2, text_encoder=LengthEncoder())) for name in self.POOL.attributes
        ]
        assert kinds == [Categories, Numbers, Texts]

    def test_a_text_needs_an_encoder(self):
        with pytest.raises(ConfigError, match=r"plot.*--text-encoder"):
            attribute_values(self.POOL, "plot", num_buckets=2)

    def test_an_unknown_attribute(self):
        with pytest.raises(ConfigError, match=r"director.*colour, year, plot"):
            attribute_values(self.POOL, "director", num_buckets=2)
