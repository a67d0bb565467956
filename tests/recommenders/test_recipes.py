"""Recipes: every one trains, and the authors' have the sizes that they published."""

import pytest

from toolrec.errors import ConfigError
from toolrec.recommenders import RECIPES, default_config, load_recommenders, recipe_named, train_recommenders
from toolrec.recommenders.training.trainees import new_backbone

PUBLISHED_POOL = 3883


def test_the_authors_backbone_has_the_parameters_they_published():
    config = recipe_named("sasrec_authors")
    model = new_backbone("sasrec", config.backbone, num_items=PUBLISHED_POOL, model_history_length=config.model_history_length)
    assert sum(p.numel() for p in model.parameters()) == 351_872


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_its_folder_loads(dataset, tmp_path, name):
    config = recipe_named(name)
    short = {"max_epochs": 1, "max_validation_users": 20}
    fits = {"backbone_fit": config.backbone_fit.replaced(**short), "encoder_fit": config.encoder_fit.replaced(**short)}
    config = config.replaced(learn_fusions=False, **fits)
    report = train_recommenders(dataset, config, out=tmp_path / "out", attributes=["colour"])
    assert [member.name for member in report.members] == ["popularity", "backbone", "colour"]
    loaded = load_recommenders(tmp_path / "out", dataset)
    assert len(loaded["colour"].recommend([1, 2, 3], k=5)) == len(loaded["backbone"].recommend([1, 2, 3], k=5)) == 5


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(ConfigError, match="sasrec_strong"):
        recipe_named("gru4rec")


@pytest.mark.parametrize(
    ("num_items", "num_interactions", "expected"),
    [(500, 20_000, "sasrec_demo"), (1682, 100_000, "sasrec_small"), (3416, 999_611, "sasrec_strong")],
)
def test_the_default_goes_by_the_data_sets_size(num_items, num_interactions, expected):
    assert default_config(num_items=num_items, num_interactions=num_interactions) == recipe_named(expected)
