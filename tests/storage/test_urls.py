"""URLs where paths are expected: kept whole, and refused by what knows nothing of them."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from toolrec.config import RunConfig
from toolrec.errors import ConfigError
from toolrec.util.files import shared_path
from toolrec.util.urls import Url, is_url, place_of


def test_a_url_stays_whole() -> None:
    url = place_of("s3://lab/runs/first/")
    assert isinstance(url, Url) and str(url) == "s3://lab/runs/first" == f"{url}"
    assert (url.name, str(url.parent), str(url / "users" / "x")) == ("first", "s3://lab/runs", "s3://lab/runs/first/users/x")
    assert url == pickle.loads(pickle.dumps(url)) and str(pickle.loads(pickle.dumps(url))) == str(url)  # noqa: S301  # ours
    assert url.is_absolute() and url.absolute() is url and url.resolve() is url and shared_path(url) is url
    assert place_of(url) is url and isinstance(place_of(str(url)), Url)


def test_what_is_a_url() -> None:
    assert is_url("gs://b/x") and is_url("abfss://box@account.dfs.core.windows.net/x") and is_url(place_of("s3://b"))
    assert not is_url("data/ml-1m") and not is_url("/s3:/b") and not is_url(Path("s3:/b"))
    assert place_of("data/x") == Path("data/x") and not isinstance(place_of("data/x"), Url)
    assert place_of("file:///shared/x") == Path("/shared/x")
    assert str(place_of("abfss://box@account.dfs.core.windows.net/x")) == "abfss://box@account.dfs.core.windows.net/x"


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///x", "s3://b/../x", "s3://b/x?versionId=1", "abfss://box@b/x?sig=secret", "s3://me:secret@b/x"]
)
def test_no_folder_at_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place_of(text)
    assert "secret" not in str(caught.value)


def test_what_opens_it_like_a_path_says_so(tmp_path: Path) -> None:
    url = place_of("s3://lab/x")
    for act in (url.exists, url.is_dir, url.mkdir, url.read_bytes, lambda: list(url.glob("*")), lambda: shutil.rmtree(url)):
        with pytest.raises(ConfigError, match="no URL can be given here; got: s3://lab/x"):
            act()


def test_settings_keep_it() -> None:
    config = RunConfig.model_validate({"dataset": "s3://lab/data/ml", "run": "gs://lab/runs/first"})
    assert isinstance(config.dataset, Url) and config.as_json()["run"] == "gs://lab/runs/first"
    complete = config.completed()
    assert str(complete.run) == "gs://lab/runs/first" and complete.folder.name == "first"
    assert complete.recommenders == Path("recommenders/ml").absolute()
    assert RunConfig.model_validate(json.loads(json.dumps(config.as_json()))) == config
