"""What a frozen encoder is held against begins where it should, and all of it trains."""

import pytest
import torch

from toolrec.recommenders.models.attribute import AttributeEncoderModel
from toolrec.recommenders.models.joint import InputModel, JointModel, JointTrainee, joint_positions
from toolrec.recommenders.models.values import attribute_values
from toolrec.recommenders.training.batches import make_batch
from toolrec.recommenders.training.fitting import fit
from toolrec.recommenders.training.trainees import BackboneTrainee, new_backbone
from toolrec.recommenders.training.validation import validation_set


@pytest.fixture(params=["sasrec", "bert4rec"])
def backbone(request, dataset, new_config):
    torch.manual_seed(0)
    config = new_config()
    return new_backbone(request.param, config.backbone, num_items=dataset.num_items, model_history_length=6)


def joint_of(backbone, dataset, new_config, attribute):
    values = attribute_values(dataset.pool, attribute, num_buckets=4)
    encoder = AttributeEncoderModel(
        new_config().encoder, values, backbone_width=16, max_length=backbone.max_length, is_causal=backbone.is_causal
    )
    return JointModel(backbone, encoder)


def test_a_joint_model_begins_as_its_backbone(backbone, dataset, new_config):
    validation = validation_set(dataset, max_users=20)
    model = joint_of(backbone, dataset, new_config, "colour").eval()
    plain = BackboneTrainee(backbone, dataset.train_sequences(), validation, mask_share=0.3)
    joint = JointTrainee("full", model, dataset.train_sequences(), validation, mask_share=0.3)
    with torch.no_grad():
        assert joint.validate() == plain.validate()


@pytest.mark.parametrize("kind", ["joint", "input"])
def test_all_of_it_trains_and_what_is_ranked_is_what_was_validated(backbone, dataset, new_config, kind):
    config = new_config().encoder_fit.replaced(max_epochs=2)
    validation = validation_set(dataset, max_users=20)
    if kind == "joint":
        model = joint_of(backbone, dataset, new_config, "size")
    else:
        model = InputModel(backbone, attribute_values(dataset.pool, "tags", num_buckets=4))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    trainee = JointTrainee("full", model, dataset.train_sequences(), validation, mask_share=0.3)
    result = fit(trainee, config, seed=0)
    same = [name for name, tensor in model.named_parameters() if torch.equal(tensor, before[name])]
    assert not [name for name in same if "key_value" not in name], "weights that did not train"
    with torch.no_grad():
        positions = joint_positions(model.eval(), validation)
    assert len(positions) == 20 and positions.min() >= 1
    assert result.best_ndcg_at_10 > 0


def test_the_attribute_is_read_at_every_position(backbone, dataset, new_config):
    model = InputModel(backbone, attribute_values(dataset.pool, "colour", num_buckets=4)).eval()
    examples = backbone.fixed_examples(dataset.train_sequences()[:3], mask_share=0.5)
    batch = make_batch(examples, torch.arange(2).numpy())
    input_BL = torch.from_numpy(batch.input_BL)
    with torch.no_grad():
        one = model.states(input_BL, batch)
        model.values.value.embedding.weight.zero_()
        other = model.states(input_BL, batch)
    assert one.shape == other.shape and not torch.allclose(one, other)
