"""A whole training: reproducible, bounded in time, and with a frozen backbone."""

import csv
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from toolrec.errors import CheckpointError, ConfigError, DataError
from toolrec.recommenders import FitConfig, recommenders_manifest, train_recommenders
from toolrec.recommenders.training.batches import make_batch, next_item_examples
from toolrec.recommenders.training.build import check_attributes, member_seed, resolve_device
from toolrec.recommenders.training.fitting import fit, rate_share
from toolrec.recommenders.training.frozen import freeze, frozen_for_now, open_frozen
from toolrec.recommenders.training.trainees import at_targets, new_backbone
from toolrec.recommenders.training.validation import validation_set


def weights(folder, member):
    return load_file(folder / member / "weights.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def short(config, **fields):
    return config.replaced(
        backbone_fit=config.backbone_fit.replaced(max_epochs=2, **fields),
        encoder_fit=config.encoder_fit.replaced(max_epochs=2, **fields),
    )


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(dataset, new_config, tmp_path):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    config = short(new_config())
    train_recommenders(dataset, config, out=tmp_path / "a", attributes=["tags"])
    assert torch.equal(torch.get_rng_state(), before), "the process's random state was touched"
    torch.manual_seed(1)
    train_recommenders(dataset, config, out=tmp_path / "b", attributes=["colour", "tags"])
    train_recommenders(dataset, config.replaced(seed=1), out=tmp_path / "c", attributes=[])
    assert same(weights(tmp_path / "a", "backbone"), weights(tmp_path / "b", "backbone"))
    assert same(weights(tmp_path / "a", "attributes/01-tags"), weights(tmp_path / "b", "attributes/02-tags"))
    assert not same(weights(tmp_path / "a", "backbone"), weights(tmp_path / "c", "backbone"))


def test_sampled_softmax_trains_too(dataset, new_config, tmp_path):
    config = short(new_config(), loss="sampled_softmax", num_negatives=8)
    report = train_recommenders(dataset, config, out=tmp_path / "out", attributes=["size"])
    assert [member.name for member in report.members] == ["popularity", "backbone", "size"]


def test_only_the_encoder_trains(trained, recommenders):
    manifest = {member["name"]: member for member in recommenders_manifest(trained)["members"]}
    encoder = recommenders["colour"]
    assert manifest["colour"]["num_parameters"] == sum(p.numel() for p in encoder.model.parameters())
    assert torch.equal(encoder.item_DI, recommenders["backbone"].item_DI)
    assert manifest["colour"]["num_parameters"] < manifest["backbone"]["num_parameters"]


def test_the_manifest_says_where_the_weights_were_trained(trained):
    manifest = recommenders_manifest(trained)
    assert manifest["machine"]["torch_threads"] == torch.get_num_threads()
    assert manifest["machine"]["cpu"] and "OMP_NUM_THREADS" in manifest["machine"]["threads"]
    assert manifest["packages"]["torch"] == manifest["torch"]


def test_the_log_has_every_epoch(trained):
    rows = list(csv.DictReader((trained / "training_log.csv").open()))
    manifest = recommenders_manifest(trained)
    for member in manifest["members"][1:]:
        own = [row for row in rows if row["member"] == member["name"]]
        assert [int(row["epoch"]) for row in own] == list(range(1, member["num_epochs"] + 1))
        assert max(float(row["ndcg@10"]) for row in own) == pytest.approx(member["validation"]["ndcg@10"], abs=1e-6)
        assert float(own[member["best_epoch"] - 1]["ndcg@10"]) == pytest.approx(member["validation"]["ndcg@10"], abs=1e-6)
    assert list(rows[0]) == ["member", "epoch", "loss", "ndcg@10", "seconds"]


def test_training_stops_without_progress(dataset, new_config, tmp_path):
    config = new_config()
    config = config.replaced(backbone_fit=config.backbone_fit.replaced(learning_rate=1e-12, patience=3, max_epochs=50))
    report = train_recommenders(dataset, config, out=tmp_path / "out", attributes=[])
    assert report.members[1].stopped_by == "patience"
    assert report.members[1].num_epochs == report.members[1].best_epoch + 3


def test_the_time_budget_ends_a_training_with_all_members(dataset, new_config, tmp_path):
    config = new_config(max_time_s=1.0)
    endless = {"max_epochs": 100_000, "patience": 100_000}
    config = config.replaced(
        backbone_fit=config.backbone_fit.replaced(**endless), encoder_fit=config.encoder_fit.replaced(**endless)
    )
    start_s = time.monotonic()
    report = train_recommenders(dataset, config, out=tmp_path / "out")
    assert time.monotonic() - start_s < 10
    assert {member.stopped_by for member in report.members[1:]} == {"time"}
    assert all(member.best_epoch >= 1 for member in report.members[1:])


class DivergingTrainee:
    """Its states are no numbers from the second batch on."""

    name = "diverging"

    def __init__(self):
        self.model = torch.nn.Linear(2, 2)
        self.weight_ID = torch.ones(5, 2)
        self.num_batches = 0

    def examples(self, rng):
        return next_item_examples([np.array([1, 2, 3])] * 64)

    def target_states(self, batch):
        self.num_batches += 1
        scale = 1.0 if self.num_batches < 2 else float("nan")
        return self.model(torch.ones(np.count_nonzero(batch.target_BL), 2)) * scale

    def validate(self):
        return 0.0


def test_a_diverging_loss_stops_with_the_reason():
    with pytest.raises(ConfigError, match=r"training diverging diverged.*learning rate below 0\.01"):
        fit(DivergingTrainee(), FitConfig(learning_rate=0.01, batch_size=16), seed=0)


@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_a_kept_backbone_stays_and_gets_new_encoders(dataset, new_config, tmp_path, kind):
    config = short(new_config().replaced(backbone_kind=kind))
    train_recommenders(dataset, config, out=tmp_path / "a", attributes=["tags"])
    report = train_recommenders(dataset, config, out=tmp_path / "a", attributes=["colour"], backbone=tmp_path / "a")
    assert [member.name for member in report.members] == ["popularity", "backbone", "colour"]
    again = train_recommenders(dataset, config, out=tmp_path / "b", attributes=["colour"])
    assert same(weights(tmp_path / "a", "backbone"), weights(tmp_path / "b", "backbone"))
    assert same(weights(tmp_path / "a", "attributes/01-colour"), weights(tmp_path / "b", "attributes/01-colour"))
    assert report.members[1].num_epochs == again.members[1].num_epochs == 2
    rows = list(csv.DictReader((tmp_path / "a" / "training_log.csv").open()))
    assert [row["member"] for row in rows] == ["backbone"] * 2 + ["colour"] * 2


def test_a_backbone_of_another_data_set_is_not_kept(dataset, new_dataset, new_config, tmp_path):
    train_recommenders(dataset, short(new_config()), out=tmp_path / "a", attributes=[])
    with pytest.raises(CheckpointError, match="another data set"):
        train_recommenders(new_dataset(checksum="0" * 64), short(new_config()), out=tmp_path / "b", backbone=tmp_path / "a")
    assert not (tmp_path / "b").exists()


def test_a_failed_training_leaves_the_old_folder(dataset, new_dataset, new_config, tmp_path):
    out = tmp_path / "out"
    train_recommenders(dataset, short(new_config()), out=out, attributes=[])
    before = recommenders_manifest(out)["checksum"]
    with pytest.raises(ConfigError, match="unknown attribute"):
        train_recommenders(dataset, short(new_config()), out=out, attributes=["director"])
    assert recommenders_manifest(out)["checksum"] == before
    train_recommenders(dataset, short(new_config(seed=4)), out=out, attributes=[])
    assert recommenders_manifest(out)["checksum"] != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_place_that_is_no_recommenders_folder_is_not_replaced(dataset, new_config, tmp_path, kind):
    out = tmp_path / "thesis"
    keep = out / "chapter-1.txt" if kind == "folder" else out
    keep.parent.mkdir(exist_ok=True)
    keep.write_text("years of work")
    with pytest.raises(CheckpointError, match="not replaced"):
        train_recommenders(dataset, new_config(), out=out)
    assert keep.read_text() == "years of work"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [(["colour", "director"], r"director.*colour, tags, size"), (["tags", "tags"], "twice")],
)
def test_wrong_attributes_are_refused(dataset, attributes, message):
    with pytest.raises(ConfigError, match=message):
        check_attributes(dataset, attributes)


def test_unknown_device_is_refused():
    assert resolve_device("auto") in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        resolve_device("tpu")


def test_users_without_two_training_items_are_nothing_to_learn_from(new_dataset, new_config, tmp_path):
    data = new_dataset(user_items=3)  # 1 of them in training
    with pytest.raises(DataError, match="nothing to learn"):
        train_recommenders(data, new_config(), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class TestFrozenStates:
    @pytest.fixture(params=["sasrec", "bert4rec"])
    def parts(self, dataset, new_config, request):
        torch.manual_seed(0)
        config = new_config().backbone
        model = new_backbone(request.param, config, num_items=dataset.num_items, model_history_length=6).eval()
        examples = model.fixed_examples(dataset.train_sequences(), mask_share=0.5)
        return model, examples, validation_set(dataset, max_users=30)

    def test_are_those_of_the_model_at_the_targets(self, parts, tmp_path):
        model, examples, validation = parts
        frozen = freeze(model, examples, validation, folder=tmp_path / "states")
        batch = make_batch(frozen.examples, np.array([5, 0, 17]))
        with torch.no_grad():
            expected = at_targets(model(torch.from_numpy(batch.input_BL)), batch)
        # bfloat16, where it is used, has 8 bits: 1/256 of states that reach about 3, a few roundings deep.
        torch.testing.assert_close(frozen.target_states(batch.example_B).float(), expected, atol=5e-2, rtol=0)
        torch.testing.assert_close(frozen.weight_ID, model.weight_ID.detach())

    def test_a_second_process_maps_the_same_file(self, parts, tmp_path):
        model, examples, validation = parts
        one = freeze(model, examples, validation, folder=tmp_path / "states", about={"checksum": "abc"})
        other = open_frozen(tmp_path / "states", validation)
        assert isinstance(other.state_PD, np.memmap)
        np.testing.assert_array_equal(one.state_PD, other.state_PD)
        assert other.about["checksum"] == "abc"
        assert [e.target_L.tolist() for e in other.examples] == [e.target_L.tolist() for e in examples]

    def test_every_item_but_a_sequences_first_is_a_target(self, parts, dataset):
        _, examples, _ = parts
        targets = np.bincount(np.concatenate([e.target_L for e in examples]), minlength=dataset.num_items + 1)
        wanted = np.bincount(np.concatenate([s[1:] for s in dataset.train_sequences()]), minlength=dataset.num_items + 1)
        assert (targets[1:] >= wanted[1:]).all()

    def test_a_temporary_folder_is_gone_afterwards(self, parts, tmp_path):
        model, examples, validation = parts
        with frozen_for_now(model, examples, validation, folder=tmp_path) as frozen:
            assert len(frozen.state_PD) == sum(np.count_nonzero(e.target_L) for e in examples)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["states.npy", "target.npy", "about.json"])
    def test_a_damaged_folder_is_refused(self, parts, tmp_path, name):
        model, examples, validation = parts
        freeze(model, examples, validation, folder=tmp_path / "states")
        (tmp_path / "states" / name).write_bytes(b"damaged")
        with pytest.raises(CheckpointError):
            open_frozen(tmp_path / "states", validation)


def test_validation_samples_are_the_same_users_every_time(dataset):
    one, other = validation_set(dataset, max_users=30), validation_set(dataset, max_users=30)
    np.testing.assert_array_equal(one.targets, other.targets)
    assert len(one.targets) == 30 and len(validation_set(dataset, max_users=9999).targets) == dataset.num_users


def test_member_seeds_differ():
    assert len({member_seed(seed, name) for seed in range(3) for name in ("backbone", "attribute:a", "attribute:b")}) == 9


def test_the_learning_rate_is_halved_where_nothing_gets_better():
    assert rate_share([], patience=2) == 1.0
    assert rate_share([0.1, 0.2, 0.2], patience=2) == 1.0
    assert rate_share([0.1, 0.2, 0.2, 0.1], patience=2) == 1 / 2
    assert rate_share([0.1, 0.2, 0.2, 0.1, 0.2, 0.2], patience=2) == 1 / 4
    assert rate_share([0.1, 0.2, 0.2, 0.1, 0.3, 0.2], patience=2) == 1 / 2
    assert rate_share([0.2] + [0.1] * 9, patience=0) == 1.0
