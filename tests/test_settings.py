"""Settings are declared once: flag, file, environment, manifest, schema and reference page follow; what is wrong is said."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import typer

from toolrec.cli import build_app, run_command
from toolrec.cli.reference import settings_markdown, settings_table
from toolrec.cli.settings import TREES, Tree, command_of, resolved, settings_class
from toolrec.config import CompleteConfig, RunConfig, read_run_config
from toolrec.errors import ConfigError
from toolrec.recommenders import recipe_named
from toolrec.recommenders.train import TrainConfig, read_train_config, recipe_layers
from toolrec.runs.folder import SCHEMA_VERSION
from toolrec.surrogate.config import SurrogateConfig
from toolrec.tuning.config import SweepConfig
from toolrec.util.settings import Settings, branch, branches_in, declared_in, setting
from toolrec.util.settings_sources import Layer, assignments_layer, environment_layers, resolve

SECRET = "sk-marker-0123456789abcdef"


class ImaginarySurrogate(SurrogateConfig):
    """The surrogate with one setting more."""

    patience: int = setting(3, "Rounds without a new candidate.", flag="--patience", changes_results=True, ge=1, le=9)


class ImaginaryRun(RunConfig):
    """A run with that surrogate."""

    surrogate: ImaginarySurrogate = branch(ImaginarySurrogate, "How the surrogate decides.")


def written(tmp_path: Path, text: str, name: str = "run.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run_command(["config", "show", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(["config", "show", *arguments]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


class TestOneDeclaration:
    """An imaginary setting: nothing but its declaration above."""

    def test_gives_the_flag_and_the_key_of_the_file(self, tmp_path: Path):
        app, found = typer.Typer(add_completion=False), []

        @app.command(cls=command_of(Tree(settings=f"{__name__}:ImaginaryRun")))
        def evaluate(ctx: typer.Context) -> None:
            found.append(resolved(ctx))

        file = written(tmp_path, "surrogate: {patience: 5}")
        for arguments, value, origin in (
            (["DIR"], 3, "default"),
            (["DIR", "--config", str(file)], 5, f"file {file}"),
            (["DIR", "--patience", "7", "--config", str(file)], 7, f"flag --patience, over file {file}"),
            (["DIR", "--set", "surrogate.patience=8"], 8, "flag --set"),
        ):
            app(args=arguments, standalone_mode=False)
            assert found[-1].settings.surrogate.patience == value
            assert found[-1].origin_of("surrogate.patience") == origin
        with pytest.raises(ConfigError, match=r"surrogate.patience \(--patience\) is out of range; got: 10; .*1 to 9"):
            app(args=["DIR", "--patience", "10"], standalone_mode=False)

    def test_gives_the_row_of_the_reference_page(self):
        [one] = [one for one in declared_in(ImaginaryRun) if one.key == "surrogate.patience"]
        row = settings_table([one]).splitlines()[-1]
        assert row == (
            "| `surrogate.patience`<br>`--patience` | `3` | whole number, 1 to 9 "
            "| Rounds without a new candidate. Changes results. |"
        )

    def test_gives_the_schema(self):
        schema = ImaginaryRun.model_json_schema()["$defs"]["ImaginarySurrogate"]["properties"]["patience"]
        assert (schema["minimum"], schema["maximum"], schema["default"]) == (1, 9, 3)
        assert schema["description"] == "Rounds without a new candidate."

    def test_gives_the_manifests_entries(self):
        config = ImaginaryRun(dataset="d", surrogate={"patience": 4})
        assert config.as_json()["surrogate"]["patience"] == 4
        results = {one.stored_as: one.value_in(config) for one in declared_in(ImaginaryRun) if one.changes_results}
        assert results["surrogate.patience"] == 4


class TestPrecedence:
    def test_default_file_environment_flag(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        file = written(tmp_path, "llm: {base_url: http://file/v1, model: from_file, temperature: 0.5}")
        monkeypatch.setenv("TOOLREC_LLM_URL", "http://environment/v1")
        monkeypatch.setenv("TOOLREC_LLM_MODEL", "from_environment")
        shown = show(capsys, "--config", str(file), "--llm-model", "from_flag")
        llm = shown["settings"]["llm"]
        assert (llm["base_url"], llm["model"], llm["temperature"]) == ("http://environment/v1", "from_flag", 0.5)
        assert shown["origins"]["llm.base_url"] == f"environment TOOLREC_LLM_URL, over file {file}"
        assert shown["origins"]["llm.model"] == f"flag --llm-model, over environment TOOLREC_LLM_MODEL and file {file}"
        assert shown["origins"]["llm.temperature"] == f"file {file}"
        assert shown["origins"]["llm.seed"] == "default"

    def test_an_empty_variable_counts_as_unset(self):
        assert environment_layers(RunConfig, {"TOOLREC_LLM_URL": ""}) == []

    def test_the_table_names_both_file_and_flag(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        file = written(tmp_path, "surrogate: {rounds: 4}")
        assert run_command(["config", "show", "--config", str(file), "--rounds", "2"]) == 0
        [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("surrogate.rounds ")]
        assert line.split(maxsplit=2) == ["surrogate.rounds", "2", f"flag --rounds, over file {file}"]

    def test_the_tools_file_goes_into_its_branch(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        tools = written(tmp_path, "tools: {num_replicas: 2}\noverrides: {genre: {num_replicas: 3}}", "tools.yaml")
        shown = show(capsys, "--tools-config", str(tools), "--set", "tools.deployment.overrides.genre.num_cpus=0.5")
        deployment = shown["settings"]["tools"]["deployment"]
        assert deployment["tools"]["num_replicas"] == 2
        assert deployment["rank"]["num_replicas"] == 1
        genre = deployment["overrides"]["genre"]
        assert (genre["num_replicas"], genre["num_cpus"]) == (3, 0.5)
        assert shown["origins"]["tools.deployment.tools.num_replicas"] == f"file {tools}"

    def test_a_branch_in_part_keeps_the_defaults_of_its_place(self):
        config = TrainConfig(dataset="d", recommenders={"encoder": {"dropout": 0.1}})
        assert config.recommenders is not None
        assert (config.recommenders.encoder.width, config.recommenders.encoder.dropout) == (32, 0.1)


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("- surrogate\n", "the configuration is not a mapping from names to values"),
            ("surrogate\n", "the configuration is not a mapping"),
            ("surrogate: [", "cannot read the configuration"),
            ("surrogate: 5\n", "surrogate is not a mapping from names to values"),
            ("llm: {temperature: 0}\nllm: {temperature: 1}\n", "a key is there twice; got: llm; line 2 of"),
            ("surrogate:\n  rounds: 1\n  rounds: 2\n", "a key is there twice; got: rounds; line 3 of"),
            ("7: x\n", "a key of the file is not a text; got: 7"),
            ("surrogate: {rounds: many}\n", "surrogate.rounds (--rounds) is not a whole number; got: many"),
            ("surrogate: {rounds: 2.5}\n", "surrogate.rounds (--rounds) is not a whole number; got: 2.5"),
            ("surrogate: {rounds: true}\n", "surrogate.rounds (--rounds) is not a whole number; got: true"),
            ("surrogate: {rounds: [3]}\n", "surrogate.rounds (--rounds) is not a whole number; got: [3]"),
            ("surrogate: {rounds: null}\n", "surrogate.rounds (--rounds) is not a whole number"),
            ("surrogate: {mask_seen: perhaps}\n", "surrogate.mask_seen (--mask-seen) is neither true nor false; got: perhaps"),
            ("llm: {temperature: .nan}\n", "llm.temperature (--temperature) is not a finite number"),
            ("surrogate: {rounds: 0}\n", "is out of range; got: 0; allowed: a whole number, 1 to 1,000; it comes from file"),
            (
                "surrogate: {protocol: native}\n",
                "surrogate.protocol (--protocol) has no such value; got: native; allowed: tools, text",
            ),
            ("surrogate: {round: 5}\n", "unknown setting surrogate.round; did you mean surrogate.rounds?; it comes"),
            ("rounds: 5\n", "unknown setting rounds; did you mean surrogate.rounds?"),
            ("surogate: {rounds: 5}\n", "unknown setting surogate; did you mean surrogate?"),
            ("tools: {deployment: {tools: {replicas: 2}}}\n", "did you mean tools.deployment.tools.num_replicas?"),
        ],
    )
    def test_in_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str):
        assert reason in refused(capsys, "--config", str(written(tmp_path, text)))

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--set", "surrogate.rounds=0"], "surrogate.rounds (--rounds) is out of range; got: 0"),
            (["--set", "surrogate.rounds"], "--set wants KEY=VALUE"),
            (["--set", "surrogate.rounds=1", "--set", "surrogate.rounds=2"], "--set gives one setting twice"),
            (["--rounds", "1", "--set", "surrogate.rounds=2"], "given twice on the command line; got: flag --rounds and --set"),
            (["--set", "llm.temprature=0"], "unknown setting llm.temprature; did you mean llm.temperature?"),
            (["--set", "surrogate.rounds=[1"], "the value of surrogate.rounds is not YAML"),
            (["--config", "nowhere.yaml"], "cannot read the configuration"),
        ],
    )
    def test_on_the_command_line(self, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str):
        assert reason in refused(capsys, *arguments)

    def test_a_manifest_of_another_version(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        content = {"schema_version": SCHEMA_VERSION + 1, "resume_key": "k", "settings": {}, "config": {}}
        said = refused(capsys, "--config", str(written(tmp_path, json.dumps(content), "manifest.json")))
        assert f"another layout; got: schema_version {SCHEMA_VERSION + 1}" in said and f"allowed: {SCHEMA_VERSION}" in said

    def test_a_manifest_from_before_there_was_a_configuration(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        content = {"schema_version": SCHEMA_VERSION, "resume_key": "k", "settings": {}}
        assert "holds no configuration" in refused(
            capsys, "--config", str(written(tmp_path, json.dumps(content), "manifest.json"))
        )

    def test_a_key_twice_in_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        path = written(tmp_path, '{"resume": false, "resume": true}', "run.json")
        assert "a key is there twice; got: resume" in refused(capsys, "--config", str(path))

    def test_no_data_set(self, capsys: pytest.CaptureFixture[str]):
        assert run_command(["evaluate"]) == 2
        assert "the setting dataset is missing" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--llm-key-env", SECRET],
            ["--set", f"llm.api_key_env={SECRET}"],
            ["--set", f"llm.api_key={SECRET}"],
            ["--set", f"api_key={SECRET}"],
            ["--set", SECRET],
            ["--set", f"tools.deployment.token_env={SECRET}"],
            ["--set", f"llm.base_url=http://user:{SECRET}@127.0.0.1/v1"],
        ],
    )
    def test_a_key_in_a_wrong_place_is_not_echoed(self, capsys: pytest.CaptureFixture[str], arguments: list[str]):
        assert SECRET not in refused(capsys, *arguments)

    def test_a_key_in_a_file_is_not_echoed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        path = written(tmp_path, f"llm: {{api_key: {SECRET}}}\n")
        said = refused(capsys, "--config", str(path))
        assert "unknown setting llm.api_key; did you mean llm.api_key_env?" in said and SECRET not in said


class TestManifest:
    def test_what_a_run_wrote_to_is_not_taken_over(self, tmp_path: Path):
        config = RunConfig(dataset=tmp_path / "d", run=tmp_path / "x", stores={"record": tmp_path / "r"}).completed()
        content = {"schema_version": SCHEMA_VERSION, "resume_key": "k", "config": config.as_json()}
        values = read_run_config(written(tmp_path, json.dumps(content), "manifest.json"))
        again = resolve(RunConfig, [Layer("file", values)]).settings
        assert (again.run, again.resume, again.stores.record) == (None, False, None)
        assert again.replaced(run=config.run, stores=config.stores).completed() == config

    def test_result_settings_keep_the_names_of_earlier_runs(self):
        names = set(RunConfig(dataset="d").result_settings())
        assert {name for name in names if not name.startswith(("surrogate.", "llm.", "stress."))} == {
            "split", "users", "seed", "attributes", "strategy", "rank_tool",
        }  # fmt: skip
        assert {"surrogate.rounds", "surrogate.mask_seen", "llm.base_url", "llm.model", "llm.max_output_tokens"} <= names
        assert RunConfig(dataset="d").result_settings()["users"] == "all"
        given = RunConfig(dataset="d", tools={"attributes": "genre, mood"}, evaluation={"users": 5}).result_settings()
        assert (given["attributes"], given["users"]) == (["genre", "mood"], 5)

    def test_paths_are_absolute_once_completed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        config = RunConfig(dataset="data/demo", run="runs/x", stores={"cache": "cache"}).completed()
        assert isinstance(config, CompleteConfig)
        assert config.dataset == tmp_path / "data" / "demo" and config.recommenders == tmp_path / "recommenders" / "demo"
        assert (config.run, config.stores.cache) == (tmp_path / "runs" / "x", tmp_path / "cache")


class TestTraining:
    def test_a_recipe_stands_below_what_is_given(self):
        config = TrainConfig.of(
            {"dataset": "d", "recipe": "sasrec_strong", "recommenders": {"backbone": {"width": 32}, "seed": 5}}
        )
        recipe = recipe_named("sasrec_strong")
        assert config.recommenders == recipe.replaced(**{"backbone.width": 32, "seed": 5})

    def test_a_flag_of_both_members_and_one_of_the_backbone_alone(self):
        found, app = [], typer.Typer(add_completion=False)

        @app.command(cls=command_of(TREES["train"]))
        def train(ctx: typer.Context) -> None:
            found.append(resolved(ctx).settings.recommenders)

        flags = ["--recipe", "sasrec_demo", "--loss", "bpr", "--hidden", "8", "--set", "recommenders.encoder.width=4"]
        app(args=["DIR", *flags], standalone_mode=False)
        [config] = found
        assert (config.backbone_fit.loss, config.encoder_fit.loss) == ("bpr", "bpr")
        assert (config.backbone.width, config.encoder.width) == (8, 4)

    def test_the_manifest_of_trained_recommenders_is_a_configuration(self, tmp_path: Path):
        trained = recipe_named("sasrec_demo").replaced(seed=9)
        manifest = {"members": [], "checksum": "c", "config": trained.as_json()}
        values = read_train_config(written(tmp_path, json.dumps(manifest), "manifest.json"))
        layers = [*recipe_layers({"recipe": "sasrec_strong"}), Layer("file", values), Layer("x", {"dataset": "d"})]
        assert resolve(TrainConfig, layers).settings.recommenders == trained

    def test_a_kept_backbone_has_its_own_shape(self):
        with pytest.raises(ConfigError, match=r"a kept backbone has its own shape; got: recommenders.backbone.width"):
            TrainConfig.of({"dataset": "d", "backbone": "r", "recommenders": {"backbone": {"width": 8}}})


class TestSettings:
    class Branch(Settings):
        """A branch."""

        rate: float | None = setting(None, "Requests.", gt=0)
        names: tuple[str, ...] = setting((), "Names.")
        way: Literal["a", "b"] = setting("a", "Which.")

    def test_values_are_read_as_people_write_them(self):
        assert self.Branch(rate="1e-3").rate == 0.001
        assert self.Branch(rate="null").rate is None
        assert self.Branch(names="a, b,,").names == ("a", "b")
        assert self.Branch(names=["a"]).names == ("a",)

    def test_they_are_frozen_and_travel(self):
        one = RunConfig(dataset="d", surrogate={"rounds": 3})
        assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
        with pytest.raises(Exception, match="frozen"):
            one.resume = True  # type: ignore[misc]

    def test_a_copy_with_other_values_is_checked(self):
        config = RunConfig(dataset="d")
        assert config.replaced(**{"surrogate.rounds": 3, "resume": False}).surrogate.rounds == 3
        with pytest.raises(ConfigError, match=r"rounds \(--rounds\) is out of range"):
            config.replaced(**{"surrogate.rounds": 0})

    def test_every_setting_says_what_it_is_and_takes_its_own_default(self):
        for tree in (*map(settings_class, TREES.values()), SweepConfig):
            for one in declared_in(tree):
                assert one.description.endswith("."), one.key
            for key, field in branches_in(tree).items():
                assert (field.description or "").endswith("."), key

    def test_flags_are_one_settings_own(self):
        flags = [one.flag for one in declared_in(RunConfig) if one.flag]
        assert len(flags) == len(set(flags))

    def test_yaml_of_an_assignment(self):
        given = assignments_layer(RunConfig, ["llm.model=7", "llm.temperature=1e-3", "tools.attributes=[a, b]", "llm.seed=null"])
        config = resolve(RunConfig, [Layer("x", {"dataset": "d", "llm.base_url": "http://h/v1"}), given]).settings
        assert (config.llm.model, config.llm.temperature, config.llm.seed) == ("7", 0.001, None)
        assert config.tools.attributes == ("a", "b")


def test_the_schema_and_the_pages_name_every_setting(capsys: pytest.CaptureFixture[str]):
    page = settings_markdown()
    for words, of in TREES.items():
        tree = settings_class(of)
        assert run_command(["config", "schema", *words.split()]) == 0
        schema = capsys.readouterr().out
        for one in declared_in(tree):
            assert f"`{one.key}`" in page
            assert f'"{one.key.rpartition(".")[2]}"' in schema


def test_every_command_of_settings_has_config_and_set():
    root: Any = typer.main.get_command(build_app())
    shown = root.commands["config"].commands["show"]
    commands = [node_of(shown, words) for words in TREES]
    commands += [node_of(root, words) for words in TREES if words != "serve"] + [root.commands["control"]]
    for command in commands:
        assert {"--config", "--set"} <= {name for parameter in command.params for name in parameter.opts}


def node_of(root: Any, words: str) -> Any:
    for word in words.split():
        root = root.commands[word]
    return root


class TestShownCommands:
    def test_a_training_on_its_recipe(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        file = written(tmp_path, "recommenders: {seed: 4}")
        shown = show(capsys, "train", "d", "--recipe", "sasrec_demo", "--epochs", "3", "--config", str(file))
        assert shown["settings"]["recommenders"]["backbone_fit"]["max_epochs"] == 3
        origins = shown["origins"]
        assert origins["recommenders.backbone_fit.max_epochs"] == "flag --epochs, over recipe sasrec_demo"
        assert origins["recommenders.seed"] == f"file {file}, over recipe sasrec_demo"
        assert (origins["dataset"], origins["device"]) == ("argument DIR", "default")

    def test_options_beside_the_settings_are_taken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        file = written(tmp_path, 'interactions = "clicks.csv"', "mine.toml")
        flags = ["--out", str(tmp_path / "x"), "--overwrite", "--users", "5", "--config", str(file)]
        shown = show(capsys, "data", "prepare", "demo", *flags)
        assert (shown["settings"]["users"], shown["settings"]["interactions"]) == (5, str(tmp_path / "clicks.csv"))
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize("words", [words for words in TREES if words != "plan"])
    def test_what_is_not_given_is_a_default_or_said(self, words: str, capsys: pytest.CaptureFixture[str]):
        origins = show(capsys, *words.split())["origins"]
        required = {one.key for one in declared_in(settings_class(TREES[words])) if one.is_required}
        assert {key for key, origin in origins.items() if origin == "not given"} == required

    def test_a_command_that_is_none(self, capsys: pytest.CaptureFixture[str]):
        assert run_command(["config", "schema", "tune", "fork"]) == 2
        assert "no command with settings; got: tune fork; allowed: evaluate, data prepare, train" in capsys.readouterr().err


def test_help_reads_no_settings():
    code = "import sys; from toolrec.cli import run_command; run_command(['--help']); print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_word_that_is_neither_a_command_nor_a_folder_is_refused(capsys: pytest.CaptureFixture[str]):
    said = refused(capsys, "trian")
    assert "neither a command with settings nor a data set's folder; got: trian" in said and "train" in said
