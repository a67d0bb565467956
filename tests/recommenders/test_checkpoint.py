"""Folders are whole, and belong to one data set."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from toolrec.errors import CheckpointError
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.recommenders.checkpoint import member_folder, training_log
from toolrec.util.files import sha256_file


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rewrite_weights(folder, member, change):
    """Changes tensors and the manifest's checksum with them: damage that only the shapes tell."""
    place = folder / member / "weights.safetensors"
    tensors = load_file(place)
    change(tensors)
    save_file(tensors, place)

    def record(manifest):
        for entry in manifest["members"]:
            if entry["folder"] == member:
                entry["files"]["weights.safetensors"] = sha256_file(place)

    edit_manifest(folder, record)


def test_the_manifest_tells_what_is_here(trained, dataset):
    manifest = recommenders_manifest(trained)
    assert manifest["dataset"] == {"name": dataset.name, "checksum": dataset.checksum, "num_items": dataset.num_items}
    assert [m["name"] for m in manifest["members"]] == ["popularity", "backbone", "colour", "tags", "size"]
    assert manifest["model_history_length"] == 6 and manifest["seed"] == 0 and len(manifest["checksum"]) == 64
    assert all(0 <= member["validation"]["ndcg@10"] <= 1 for member in manifest["members"])
    assert "80 users" in manifest["validation"] and "seen items masked" in manifest["validation"]


def test_there_is_no_pickle(trained):
    assert {path.suffix for path in trained.rglob("*") if path.is_file()} == {".json", ".safetensors", ".csv"}


@pytest.mark.parametrize("names", [["colour"], ["popularity"], ["size", "backbone"], []])
def test_only_the_named_ones_are_loaded(trained, dataset, names):
    assert set(load_recommenders(trained, dataset, names=names)) == set(names)


def test_another_data_set_is_refused_and_both_are_named(trained, new_dataset):
    other = new_dataset(name="other", checksum="d" * 64)
    with pytest.raises(CheckpointError, match=r"checkerboard \(cccccccccccc\), not other \(dddddddddddd\)"):
        load_recommenders(trained, other)


def test_another_pool_is_refused(trained, new_dataset):
    with pytest.raises(CheckpointError, match="another pool"):
        load_recommenders(trained, new_dataset(num_items=30))


def test_an_unknown_recommender_is_refused_with_the_known(trained, dataset):
    with pytest.raises(CheckpointError, match=r"director.*popularity, backbone, colour, tags, size"):
        load_recommenders(trained, dataset, names=["backbone", "director"])


def test_a_folder_that_is_not_there(tmp_path, dataset):
    with pytest.raises(CheckpointError, match="toolrec train"):
        load_recommenders(tmp_path / "nowhere", dataset)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "recommenders"}', '{"kind": "run", "schema_version": 1}'])
def test_a_damaged_manifest(copy, dataset, text):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest|schema|JSON"):
        load_recommenders(copy, dataset)


def test_a_manifest_without_the_backbone(copy, dataset):
    edit_manifest(copy, lambda manifest: manifest["members"].pop(1))
    with pytest.raises(CheckpointError, match="backbone"):
        load_recommenders(copy, dataset)


@pytest.mark.parametrize("member", ["backbone", "attributes/02-tags", "popularity"])
def test_truncated_weights(copy, dataset, member):
    place = copy / member / "weights.safetensors"
    place.write_bytes(place.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"damaged.*weights\.safetensors"):
        load_recommenders(copy, dataset)


@pytest.mark.parametrize("file", ["weights.safetensors", "config.json"])
def test_a_missing_file(copy, dataset, file):
    (copy / "backbone" / file).unlink()
    with pytest.raises(CheckpointError, match=f"missing.*{file}"):
        load_recommenders(copy, dataset)


def test_a_changed_configuration(copy, dataset):
    place = copy / "backbone" / "config.json"
    place.write_text(place.read_text().replace('"num_layers": 2', '"num_layers": 3'))
    with pytest.raises(CheckpointError, match="changed"):
        load_recommenders(copy, dataset)


@pytest.mark.parametrize(
    ("kind", "message"), [("gru4rec", "unknown architecture.*gru4rec"), ("bert4rec", "does not fit together")]
)
def test_weights_of_another_architecture(copy, dataset, kind, message):
    place = copy / "backbone" / "config.json"
    place.write_text(place.read_text().replace('"sasrec"', f'"{kind}"'))
    edit_manifest(copy, lambda m: m["members"][1]["files"].update({"config.json": sha256_file(place)}))
    with pytest.raises(CheckpointError, match=message):
        load_recommenders(copy, dataset)


@pytest.mark.parametrize("member", ["backbone", "attributes/01-colour"])
def test_weights_of_another_shape(copy, dataset, member):
    def shorten(tensors):
        tensors["transformer.position"] = tensors["transformer.position"][:3].clone()

    rewrite_weights(copy, member, shorten)
    with pytest.raises(CheckpointError, match="does not fit together"):
        load_recommenders(copy, dataset)


def test_weights_that_are_not_there(copy, dataset):
    rewrite_weights(copy, "attributes/03-size", lambda tensors: tensors.pop("dense.weight"))
    with pytest.raises(CheckpointError, match="does not fit together"):
        load_recommenders(copy, dataset)


def test_weights_that_are_no_safetensors(copy, dataset):
    place = copy / "backbone" / "weights.safetensors"
    place.write_bytes(b"\xff" * 64)
    edit_manifest(copy, lambda m: m["members"][1]["files"].update({"weights.safetensors": sha256_file(place)}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_recommenders(copy, dataset)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("backbone", "backbone"), ("release_year", "attributes/03-release-year"), ("長さ/..", "attributes/03-attribute")],
)
def test_member_folders_are_safe_names(name, expected):
    assert member_folder(name, 3) == expected


@pytest.mark.parametrize("place", ["../elsewhere", "/tmp/elsewhere", ""])
def test_a_manifest_that_leads_out_of_its_folder(copy, dataset, place):
    edit_manifest(copy, lambda m: m["members"][1].update({"folder": place}))
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_recommenders(copy, dataset)


def test_a_kept_backbone_without_its_log(copy, dataset):
    (copy / "training_log.csv").unlink()
    with pytest.raises(CheckpointError, match="training log"):
        training_log(copy, "backbone")
