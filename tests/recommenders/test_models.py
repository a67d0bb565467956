"""The networks: causal, and the same at the last position however it is computed."""

import numpy as np
import pytest
import torch

from toolrec.errors import ConfigError
from toolrec.recommenders import TransformerConfig
from toolrec.recommenders.models.attribute import AttributeEncoderModel
from toolrec.recommenders.models.backbone import in_groups
from toolrec.recommenders.models.values import number_values
from toolrec.recommenders.training.trainees import new_backbone
from toolrec.recommenders.training.validation import pad_last

CONFIG = TransformerConfig(width=8, num_layers=2, num_heads=2, dropout=0.4)


def backbone(kind, config=CONFIG):
    torch.manual_seed(0)
    return new_backbone(kind, config, num_items=20, model_history_length=6).double().eval()


@pytest.fixture(params=["sasrec", "bert4rec"])
def model(request):
    return backbone(request.param)


def test_a_causal_position_does_not_see_what_comes_after_it():
    one, other = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 19, 0]])
    model = backbone("sasrec")
    torch.testing.assert_close(model(one)[:, :3], model(other)[:, :3])
    assert not torch.allclose(model(one)[:, 3], model(other)[:, 3])


def test_bert4rec_sees_to_both_sides_and_no_padding():
    model = backbone("bert4rec")
    one, other = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 19]])
    assert not torch.allclose(model(one)[:, 0], model(other)[:, 0])
    torch.testing.assert_close(model(torch.tensor([[1, 2, 3, 0, 0]]))[:, :3], model(one))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_training_without_dropout_computes_what_inference_does(kind, norm):
    model = backbone(kind, CONFIG.replaced(dropout=0.0, norm=norm))
    input_BL = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    real_BL = input_BL > 0
    torch.testing.assert_close(model.train()(input_BL)[real_BL], model.eval()(input_BL)[real_BL])


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_states_at_wanted_positions_are_those_of_all_states(kind, norm, mode):
    model = backbone(kind, CONFIG.replaced(dropout=0.0, norm=norm)).train(mode == "train")
    input_BL = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [9, 10, 0, 0, 0]])
    wanted_BL = torch.zeros(3, 5, dtype=torch.bool)
    wanted_BL[0, 2] = wanted_BL[1, [0, 3, 4]] = True  # the third row wants none
    torch.testing.assert_close(model.at(input_BL, wanted_BL), model(input_BL)[wanted_BL])


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_the_last_state_is_that_of_all_states(kind, norm):
    model = backbone(kind, CONFIG.replaced(norm=norm))
    histories = [np.array([1, 2, 3]), np.array([4]), np.array([5, 6, 7, 8, 9, 10])]
    query_BL, last_B = model.query(*pad_last(histories, model_history_length=6))
    torch.testing.assert_close(model.last(query_BL, last_B), model(query_BL)[torch.arange(3), last_B])


def test_the_encoders_last_state_is_that_of_all_states(model):
    values = number_values(np.arange(21.0), num_buckets=4)
    encoder = AttributeEncoderModel(CONFIG, values, backbone_width=8, max_length=7, is_causal=model.is_causal).double().eval()
    query_BL, last_B = model.query(*pad_last([np.array([1, 2, 3]), np.array([4])], model_history_length=6))
    rows_B = torch.arange(2)
    all_BLD = encoder.join(model(query_BL), encoder.side(query_BL))
    last_BD = encoder.last(query_BL, last_B, model.last(query_BL, last_B), encoder.item_values())
    torch.testing.assert_close(last_BD, all_BLD[rows_B, last_B])


def test_an_untrained_encoder_is_the_backbone(model):
    values = number_values(np.arange(21.0), num_buckets=4)
    encoder = AttributeEncoderModel(CONFIG, values, backbone_width=8, max_length=7, is_causal=model.is_causal).double().eval()
    state_BLD = torch.randn(2, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(encoder.join(state_BLD, torch.randn(2, 3, 8, dtype=torch.float64)), state_BLD)


def test_the_mask_is_read_after_the_last_item():
    history_BL, last_B = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([2, 0])
    query_BL, asked_B = backbone("bert4rec").query(history_BL, last_B)
    assert query_BL.tolist() == [[1, 2, 3, 21], [4, 21, 0, 0]]
    assert asked_B.tolist() == [3, 1]


def test_bert4rec_is_asked_for_many_items_of_a_sequence_as_its_last():
    sequence, rng = np.arange(1, 7), np.random.default_rng(0)
    asked = set()
    for _ in range(200):
        (example,) = backbone("bert4rec").examples([sequence], rng=rng, mask_share=1e-9)
        (place,) = np.flatnonzero(example.target_L)
        assert place == len(example.input_L) - 1
        assert example.input_L.tolist() == [*sequence[:place], 21]
        asked.add(int(example.target_L[place]))
    assert asked == {2, 3, 4, 5, 6}


def test_padding_has_no_embedding(model):
    assert not model.item.weight[0].any()


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 7},
        {"num_heads": 3},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"attention_dropout": -0.1},
        {"feed_forward": 0},
        {"num_layers": 0},
        {"width": 0},
        {"norm": "between"},
    ],
)
def test_impossible_shapes_are_refused(fields):
    with pytest.raises(ConfigError):
        TransformerConfig(**{"width": 8, "num_heads": 2, **fields})


def test_histories_of_about_the_same_length_go_together():
    lengths = [9, 1, 50, 10, 2, 12, 48, 11, 30]
    groups: list[list[int]] = []

    def states_of(group, rows):
        groups.append([len(history) for history in group])
        assert [lengths[row] for row in rows] == groups[-1]
        return torch.tensor([[float(len(history))] for history in group], dtype=torch.float64)

    state_BD = in_groups([np.ones(length, dtype=np.int64) for length in lengths], states_of)
    assert groups == [[1, 2], [9, 10, 11, 12], [30], [48, 50]]
    assert state_BD[:, 0].tolist() == lengths


def test_a_group_has_a_bound():
    sizes = []

    def states_of(group, rows):
        sizes.append(len(group))
        return torch.zeros(len(group), 1)

    in_groups([np.ones(5, dtype=np.int64)] * 20, states_of)
    assert sizes == [8, 8, 4]
