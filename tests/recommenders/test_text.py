"""Attributes of kind text: read through a real, tiny sentence-embedding model that is made here."""

import shutil

import pytest
import torch

from toolrec.cli import run_command
from toolrec.data import load_dataset
from toolrec.errors import ConfigError
from toolrec.recommenders import load_recommenders
from toolrec.recommenders.models.text import SentenceEncoder

SMALL = ["--epochs", "1", "--hidden", "8", "--layers", "1", "--heads", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules", reason="the extra text is not installed")
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "red", "blue", "round", "square"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("text") / "model"
    SentenceTransformer(modules=[modules.StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def with_texts(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    rows = [f"u{user}\ti{(user + place) % 9}\t{place}" for user in range(30) for place in range(6)]
    (source / "toy.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(rows) + "\n")
    texts = ["red round", "blue square", "", "red square", "blue", "round", "red", "square blue", "red round"]
    items = [f"i{number}\t{text}" for number, text in enumerate(texts)]
    (source / "toy.item").write_text("item_id:token\tlooks:token_seq\n" + "\n".join(items) + "\n")
    folder = source.parent / "toy"
    flags = ["--source", str(source), "--attributes", "looks:text", "--out", str(folder)]
    assert run_command(["data", "prepare", "recbole", *flags]) == 0
    return folder


def test_a_text_is_trained_on_and_served_without_the_model(model, with_texts, tmp_path):
    own = shutil.copytree(model, tmp_path / "model")
    out = tmp_path / "rec"
    assert run_command(["train", str(with_texts), "--out", str(out), "--text-encoder", str(own), *SMALL]) == 0
    shutil.rmtree(own)
    recommender = load_recommenders(out, load_dataset(with_texts))["looks"]
    assert len(recommender.recommend([1, 2, 3], k=3)) == 3
    table = recommender.value_IS
    text_of = load_dataset(with_texts).pool.texts("looks")
    red_round = [index for index, text in enumerate(text_of) if text == "red round"]
    torch.testing.assert_close(table[red_round[0]], table[red_round[1]])
    assert not torch.allclose(table[red_round[0]], table[1 + red_round[0]])


def test_a_text_without_an_encoder_ends_with_2_before_anything_trains(with_texts, tmp_path, capsys):
    assert run_command(["train", str(with_texts), "--out", str(tmp_path / "rec"), *SMALL]) == 2
    shown = capsys.readouterr().err
    assert "looks" in shown and "--text-encoder" in shown and "training" not in shown
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_model(with_texts, tmp_path, capsys):
    flags = ["--out", str(tmp_path / "rec"), "--text-encoder", str(tmp_path / "nowhere")]
    assert run_command(["train", str(with_texts), *flags, *SMALL]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_damaged_model(model, tmp_path):
    damaged = shutil.copytree(model, tmp_path / "model")
    (damaged / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        SentenceEncoder(damaged)
    (damaged / "modules.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        SentenceEncoder(damaged)
