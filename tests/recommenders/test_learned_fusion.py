"""Score fusion and the ranker: candidates, features, the fit, and how they are stored."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from toolrec.errors import CheckpointError, ConfigError, DataError
from toolrec.recommenders import ScoringRecommender, load_fusions, load_recommenders, recommenders_manifest, refit_fusions
from toolrec.recommenders.fusion.candidates import LIST_LENGTH, CandidateSource
from toolrec.recommenders.fusion.fitting import FusionConfig, fit_fusions
from toolrec.recommenders.fusion.item_tables import item_tables
from toolrec.recommenders.fusion.listwise import Examples, ListwiseModel, mean_ndcg_at_10
from toolrec.recommenders.fusion.listwise_fitting import ListwiseConfig, ListwiseShape, fit_listwise
from toolrec.recommenders.fusion.neighbours import Neighbours
from toolrec.recommenders.fusion.visible_features import VisibleFeatures
from toolrec.util.files import sha256_file
from toolrec.util.progress import track

ONE_SHAPE = ListwiseConfig(shapes=(ListwiseShape(num_hidden=4),), num_restarts=1, num_folds=2)
QUICK = FusionConfig(score_fusion=ONE_SHAPE, ranker=ONE_SHAPE)
HISTORIES = [[1, 3, 5], [2, 4], [7], [], [2, 6, 8, 10, 12, 14, 16, 18], [1], [11, 9, 13, 1]] * 5


@pytest.fixture(scope="module")
def fusions(trained, dataset, recommenders):
    return load_fusions(trained, dataset, recommenders).by_name


@pytest.fixture(params=["score_fusion", "ranker", "tools_ranker"])
def fusion(request, fusions):
    return fusions[request.param]


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


class Fixed(ScoringRecommender):
    """The same scores for every history; counts the histories that it scored."""

    def __init__(self, score_I):
        super().__init__("fixed", num_items=len(score_I))
        self.score_I, self.num_scored = np.concatenate([[-np.inf], score_I]), 0

    def score(self, history_BL):
        self.num_scored += len(history_BL)
        return np.tile(self.score_I, (len(history_BL), 1))


class TestCandidates:
    def test_scores_are_standardised_and_shared_over_what_may_be_recommended(self):
        member = Fixed([9.0, 1.0, 2.0, 3.0])
        (found,) = CandidateSource([member]).of([np.array([1])], mask_seen=True)
        assert found.item_C.tolist() == [2, 3, 4]
        assert found.position_CM[:, 0].tolist() == [3, 2, 1]
        np.testing.assert_allclose(found.standard_CM[:, 0], (np.array([1, 2, 3]) - 2) / np.sqrt(2 / 3))
        shares = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
        np.testing.assert_allclose(found.log_share_CM[:, 0], np.log(shares))

    def test_an_item_on_one_members_list_only_is_behind_the_other_list(self):
        num_items = LIST_LENGTH + 1
        up, down = Fixed(np.arange(num_items)), Fixed(-np.arange(num_items))
        (found,) = CandidateSource([up, down]).of([np.array([5])], mask_seen=False)
        assert found.item_C.tolist() == list(range(1, num_items + 1))
        assert found.position_CM[0].tolist() == [LIST_LENGTH + 1, 1]
        assert found.position_CM[-1].tolist() == [1, LIST_LENGTH + 1]

    def test_two_fusions_that_ask_score_a_history_once(self):
        member = Fixed([1.0, 2.0, 3.0])
        source = CandidateSource([member])
        for _ in range(2):
            source.of([np.array([1]), np.array([2])], mask_seen=True)
        assert member.num_scored == 2

    def test_nothing_is_left_where_all_was_seen(self):
        (found,) = CandidateSource([Fixed([1.0, 2.0])]).of([np.array([1, 2])], mask_seen=True)
        assert found.item_C.tolist() == []


class TestItemTables:
    sequences = (np.array([1, 2, 3]), np.array([1, 3]), np.array([], dtype=np.int64))

    def test_what_follows_what(self):
        tables = item_tables(self.sequences, num_items=4)
        assert tables.next_II.toarray()[1].tolist() == [0, 0, 1, 1, 0]
        assert tables.near_II.toarray()[1].tolist() == [0, 0, 1, 1 / 2 + 1, 0]
        assert tables.next_II.toarray()[3].tolist() == [0] * 5
        assert tables.count_I.tolist() == [0, 2, 1, 2, 0]

    def test_standing_together_is_a_cosine(self):
        around_II = item_tables(self.sequences, num_items=4).around_II.toarray()
        assert around_II[1, 3] == around_II[3, 1] == pytest.approx(2 / np.sqrt(2 * 2))
        assert around_II[2, 1] == pytest.approx(1 / np.sqrt(1 * 2))

    def test_sequences_never_meet(self):
        tables = item_tables([np.array([1]), np.array([2])], num_items=2)
        assert tables.near_II.nnz == tables.around_II.nnz == 0

    def test_places_are_drawn_towards_those_of_all_items(self):
        tables = item_tables(self.sequences, num_items=4)
        mean = np.log([1, 2, 3, 1, 2]).mean()
        assert tables.place_I[4] == pytest.approx(mean)
        assert tables.place_I[1] == pytest.approx((2 * np.log(1) + 5 * mean) / 7)

    def test_no_sequences(self):
        assert item_tables([], num_items=3).count_I.tolist() == [0, 0, 0, 0]


class TestWhatASurrogateSees:
    """Two tools and neighbours over sixty items; the second tool prefers high numbers."""

    @pytest.fixture
    def seen(self, new_dataset):
        ascending = np.linspace(1, 0, 60)
        source = CandidateSource([Fixed(ascending), Fixed(ascending), Fixed(ascending[::-1])])
        [candidates] = source.of([np.array([1, 3])], mask_seen=False)
        features = VisibleFeatures(["backbone", "genre"], new_dataset(num_items=60).pool)
        return features, features.visible(candidates), candidates

    def test_only_items_on_a_tools_list_of_fifty_are_known(self, seen):
        _, visible, candidates = seen
        assert candidates.item_C.tolist() == list(range(1, 61)), "the neighbours' list and lists of 100 have all items"
        assert visible.item_C.tolist() == list(range(1, 51))

    def test_scores_are_standardised_within_the_list(self, seen):
        features, visible, _ = seen
        feature_CF = features.of(np.array([1, 3]), visible)
        column = features.names.index("score in list:genre")
        shown = np.linspace(1, 0, 60)[:50]
        assert feature_CF[:, column] == pytest.approx((shown - shown.mean()) / shown.std())
        assert feature_CF[:, features.names.index("inverse position:genre")] == pytest.approx(1 / (10 + np.arange(1, 51)))
        assert feature_CF[:, features.names.index("lists")].tolist() == [2] * 50

    def test_the_neighbours_change_nothing(self, seen):
        features, visible, candidates = seen
        other = dataclasses.replace(
            candidates, position_CM=candidates.position_CM.copy(), standard_CM=candidates.standard_CM.copy()
        )
        other.position_CM[:, 2], other.standard_CM[:, 2] = 1, 0
        history = np.array([1, 3])
        assert (features.of(history, features.visible(other)) == features.of(history, visible)).all()


def test_neighbours_prefer_what_followed():
    tables = item_tables([np.array([1, 2])] * 3 + [np.array([3, 4, 4, 4, 4])], num_items=5)
    ranked = [item.item_index for item in Neighbours(tables).recommend([1], k=4)]
    assert ranked == [2, 4, 3, 5], "what followed, then by popularity"


class TestEveryLearnedFusion:
    def test_scores_are_of_the_whole_pool_in_float64(self, fusion):
        score_BI = fusion.score(np.array([[1, 3, 5], [2, 4, 0]]))
        assert score_BI.dtype == np.float64 and score_BI.shape == (2, 25)
        assert np.all(score_BI[:, 0] == -np.inf) and np.isfinite(score_BI[:, 1:]).all()

    def test_seen_items_are_masked_unless_asked_for(self, fusion):
        assert {i.item_index for i in fusion.recommend([2, 4], k=24)} == set(range(1, 25)) - {2, 4}
        assert len(fusion.recommend([2, 4], k=24, mask_seen=False)) == 24

    @pytest.mark.parametrize("size", [1, 7, 32])
    def test_lists_do_not_depend_on_the_batch(self, fusion, size):
        alone = [fusion.recommend(history, k=12) for history in HISTORIES]
        together = []
        for start in range(0, len(HISTORIES), size):
            together.extend(fusion.recommend_many(HISTORIES[start : start + size], k=12))
        assert together == alone

    def test_a_history_without_items_gets_the_popular_ones(self, fusion, recommenders):
        assert fusion.recommend([], k=5) == recommenders["popularity"].recommend([], k=5)

    def test_padding_in_a_history_is_no_item(self, fusion):
        assert fusion.recommend([0, 1, 3, 0], k=8) == fusion.recommend([1, 3], k=8)

    def test_all_items_seen_leave_an_empty_list(self, fusion):
        assert fusion.recommend(list(range(1, 25)), k=5) == []

    def test_an_item_that_the_pool_does_not_have_is_refused(self, fusion):
        with pytest.raises(DataError, match="25"):
            fusion.recommend([25], k=5)

    def test_the_checkerboard_is_learned(self, fusion):
        for history in ([1, 3, 5, 7], [2, 4, 6, 8]):
            items = [item.item_index for item in fusion.recommend(history, k=5)]
            assert sum(item % 2 == history[0] % 2 for item in items) >= 4


class TestFit:
    def test_the_informative_feature_is_found_and_the_noise_is_not(self):
        examples = planted(num_users=200)
        config = ListwiseConfig(shapes=(ListwiseShape(),), num_folds=2)
        with track("fitting", total=config.num_fits, unit="fits") as progress:
            fit = fit_listwise(examples, config, progress=progress)
        assert fit.cross_validated_ndcg_at_10 > 0.9
        assert fit.model.linear_F[0] > 4 * abs(fit.model.linear_F[1])

    def test_hidden_units_learn_what_no_line_can(self):
        examples = planted(num_users=400, bent=True)
        shapes = (ListwiseShape(num_epochs=20), ListwiseShape(num_hidden=8, num_epochs=20))
        config = ListwiseConfig(shapes=shapes, num_folds=2, num_restarts=2)
        with track("fitting", total=config.num_fits, unit="fits") as progress:
            fit = fit_listwise(examples, config, progress=progress)
        assert fit.shape == shapes[1]
        assert fit.model.hidden_FH.shape == (2, 16), "restarts stand side by side"

    def test_the_same_examples_give_the_same_model(self, dataset, recommenders):
        first, second = (fit_fusions(dataset, recommenders, QUICK) for _ in range(2))
        assert first.ndcg_at_10 == second.ndcg_at_10
        for name, fit in first.fits.items():
            for key, tensor in fit.model.tensors().items():
                np.testing.assert_array_equal(tensor, second.fits[name].model.tensors()[key])

    def test_only_the_validation_split_is_read(self, dataset, recommenders):
        class NoTest:
            def __getattr__(self, name):
                return getattr(dataset, name)

            def history(self, user_index, split):
                assert split != "test"
                return dataset.history(user_index, split)

            def target(self, user_index, split):
                assert split == "valid"
                return dataset.target(user_index, split)

            def targets(self, split):
                assert split == "valid"
                return dataset.targets(split)

        assert fit_fusions(NoTest(), recommenders, QUICK).num_users == dataset.num_users

    def test_reciprocal_rank_fusion_is_measured_as_it_ranks(self, dataset, recommenders):
        from toolrec.recommenders import Fusion

        fused = Fusion([r for name, r in recommenders.items() if name != "popularity"])
        gains = []
        for user in range(1, dataset.num_users + 1):
            items = [i.item_index for i in fused.recommend(dataset.history(user, "valid").tolist(), k=10)]
            target = dataset.target(user, "valid")
            gains.append(1 / np.log2(items.index(target) + 2) if target in items else 0.0)
        assert fit_fusions(dataset, recommenders, QUICK).ndcg_at_10["fusion"] == pytest.approx(np.mean(gains))

    def test_tools_are_measured_on_the_same_users(self, dataset, recommenders):
        fitted = fit_fusions(dataset, recommenders, dataclasses.replace(QUICK, max_users=20))
        users = dataset.sample_users(20, 0, split="valid")
        gains = []
        for user in users:
            listed = recommenders["backbone"].recommend(dataset.history(int(user), "valid").tolist(), k=10)
            items, target = [item.item_index for item in listed], dataset.target(int(user), "valid")
            gains.append(1 / np.log2(items.index(target) + 2) if target in items else 0.0)
        assert fitted.num_users == 20 and fitted.tool_ndcg_at_10["backbone"] == pytest.approx(np.mean(gains))
        assert set(fitted.tool_ndcg_at_10) == set(recommenders) - {"popularity"}

    def test_targets_on_no_list_leave_nothing_to_learn(self, new_dataset, recommenders):
        dataset = new_dataset()
        dataset.sample_users = lambda num, seed, *, split: np.arange(1, 4)
        assert fit_fusions(dataset, recommenders) is None, "three users are no five folds"


def planted(*, num_users, bent=False):
    """Ten candidates a user; the target is the one whose first feature is highest, or closest to 0 where it is bent."""
    rng = np.random.default_rng(5)
    feature_UCF = rng.normal(size=(num_users, 10, 2)).astype(np.float32)
    quality_UC = -np.abs(feature_UCF[:, :, 0]) if bent else feature_UCF[:, :, 0]
    return Examples(
        feature_NF=feature_UCF.reshape(-1, 2),
        offsets=np.arange(0, 10 * num_users + 1, 10),
        target=quality_UC.argmax(axis=1),
        item_N=np.tile(np.arange(1, 11), num_users),
        num_users=num_users,
    )


def test_ndcg_counts_users_without_a_target_and_breaks_ties_by_item():
    examples = Examples(
        feature_NF=np.zeros((4, 1), np.float32),
        offsets=np.array([0, 2, 4]),
        target=np.array([0, 1]),
        item_N=np.array([3, 7, 3, 7]),
        num_users=4,
    )
    assert mean_ndcg_at_10(np.zeros(4), examples) == pytest.approx((1 + 1 / np.log2(3)) / 4)
    assert mean_ndcg_at_10(np.array([0.0, 1.0, 0.0, 1.0]), examples) == pytest.approx((1 / np.log2(3) + 1) / 4)


def test_a_model_is_its_formula():
    model = ListwiseModel(
        mean_F=np.array([1.0, 0.0]),
        scale_F=np.array([2.0, 1.0]),
        linear_F=np.array([1.0, -1.0]),
        hidden_FH=np.array([[1.0], [0.0]]),
        bias_H=np.array([0.5]),
        out_H=np.array([3.0]),
    )
    inner = 1.0 + 0.5
    assert model.score(np.array([[3.0, 4.0]]))[0] == pytest.approx(1.0 - 4.0 + 3.0 * inner / (1 + np.exp(-inner)))


class TestFolder:
    def test_the_manifest_lists_them_apart_from_the_members(self, trained, fusions):
        manifest = recommenders_manifest(trained)
        assert list(fusions) == ["score_fusion", "ranker", "tools_ranker"]
        assert not {"score_fusion", "ranker", "tools_ranker"} & {member["name"] for member in manifest["members"]}
        ndcg = manifest["fusions"]["validation"]["ndcg@10"]
        assert list(ndcg) == ["fusion", "score_fusion", "ranker", "tools_ranker"] and all(
            0 < value <= 1 for value in ndcg.values()
        )

    def test_the_strongest_is_the_best_on_validation(self, copy, dataset, recommenders):
        edit(
            copy,
            lambda m: m["fusions"]["validation"]["ndcg@10"].update(
                {"fusion": 0.1, "score_fusion": 0.3, "ranker": 0.2, "tools_ranker": 0.2}
            ),
        )
        assert load_fusions(copy, dataset, recommenders).strongest == "score_fusion"

    def test_a_folder_without_them_is_whole(self, copy, dataset, recommenders):
        shutil.rmtree(copy / "fusions")
        edit(copy, lambda manifest: manifest.pop("fusions"))
        assert load_fusions(copy, dataset, recommenders) is None
        assert len(load_recommenders(copy, dataset)) == 5

    def test_they_can_be_fitted_anew_and_the_tools_stay(self, copy, dataset, recommenders, fusions):
        before = recommenders_manifest(copy)
        shutil.rmtree(copy / "fusions")
        edit(copy, lambda manifest: manifest.pop("fusions"))
        refit_fusions(copy, dataset)
        after = recommenders_manifest(copy)
        assert after == before
        again = load_fusions(copy, dataset, recommenders).by_name
        for name, fusion in fusions.items():
            assert again[name].recommend_many(HISTORIES, k=12) == fusion.recommend_many(HISTORIES, k=12)

    def test_without_one_of_their_tools_there_is_none(self, trained, dataset, recommenders):
        some = {name: recommender for name, recommender in recommenders.items() if name != "size"}
        assert load_fusions(trained, dataset, some) is None

    @pytest.mark.parametrize("file", ["weights.safetensors", "config.json"])
    def test_a_changed_file_is_refused(self, copy, dataset, recommenders, file):
        place = copy / "fusions" / "ranker" / file
        place.write_bytes(place.read_bytes()[:-8])
        with pytest.raises(CheckpointError, match=f"learned fusion.*{file}"):
            load_fusions(copy, dataset, recommenders)

    def test_weights_of_another_shape_are_refused(self, copy, dataset, recommenders):
        place = copy / "fusions" / "ranker" / "weights.safetensors"
        tensors = load_file(place)
        save_file({**tensors, "linear_F": tensors["linear_F"][:-1].copy()}, place)
        edit(copy, lambda m: m["fusions"]["learned"][1]["files"].update({"weights.safetensors": sha256_file(place)}))
        with pytest.raises(CheckpointError, match="does not fit together"):
            load_fusions(copy, dataset, recommenders)

    def test_other_features_are_refused(self, copy, dataset, recommenders):
        place = copy / "fusions" / "ranker" / "config.json"
        config = json.loads(place.read_text())
        config["features"][0] = "another"
        place.write_text(json.dumps(config))
        edit(copy, lambda m: m["fusions"]["learned"][1]["files"].update({"config.json": sha256_file(place)}))
        with pytest.raises(CheckpointError, match="fit-fusions"):
            load_fusions(copy, dataset, recommenders)


def edit(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_wrong_configuration_is_refused():
    with pytest.raises(ConfigError, match="two folds"):
        ListwiseConfig(shapes=(ListwiseShape(),), num_folds=1)
