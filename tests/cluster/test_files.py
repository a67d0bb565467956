"""Every file under cluster/ against the schema or program that reads it; nothing is started."""

from __future__ import annotations

import functools
import gzip
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.specifiers import SpecifierSet

from toolrec.cli.submit import check_command
from toolrec.jobs import ENVIRONMENT, EXCLUDES

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
OVERLAYS = sorted(path.name for path in (CLUSTER / "kubernetes" / "overlays").iterdir())
CRD_FILES = {"RayJob": "ray.io_rayjobs.yaml.gz", "RayService": "ray.io_rayservices.yaml.gz"}


@pytest.fixture(scope="module")
def crd_folder() -> Path:
    """KubeRay's custom resource definitions, gzipped."""
    folder = Path(os.environ.get("TOOLREC_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve().parent / "schemas" / "kuberay"
    if not folder.is_dir():
        pytest.skip(f"no KubeRay schemas at {folder}; set TOOLREC_TEST_DATA to the folder beside schemas/")
    return folder


@functools.cache
def schema_of(folder: Path, kind: str) -> dict[str, Any]:
    """The stored version's schema, closed: a field that the API server would drop is an error here."""
    definition = yaml.load(gzip.decompress((folder / CRD_FILES[kind]).read_bytes()), Loader=yaml.CSafeLoader)
    [version] = [version for version in definition["spec"]["versions"] if version["storage"]]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return closed(schema)


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    is_open = inner.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in inner
    if isinstance(inner.get("properties"), dict) and inner.get("type") == "object" and not is_open:
        inner["additionalProperties"] = False
    return inner


@functools.cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """An overlay as kustomize renders it."""
    program = next((name for name in ("kustomize", "kubectl") if shutil.which(name)), None)
    if program is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    verb = ["build"] if program == "kustomize" else ["kustomize"]
    folder = CLUSTER / "kubernetes" / "overlays" / overlay
    done = subprocess.run([program, *verb, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def by_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [document for document in rendered(overlay) if document["kind"] == kind]


def ray_cluster(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    return spec["rayClusterSpec"] if document["kind"] == "RayJob" else spec["rayClusterConfig"]


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberay_takes_every_resource(overlay: str, crd_folder: Path):
    kinds = [document["kind"] for document in rendered(overlay)]
    assert sorted(kinds) == ["PersistentVolumeClaim", "RayJob", "RayJob", "RayService"]
    for document in rendered(overlay):
        if document["kind"] in CRD_FILES:
            jsonschema.validate(document, schema_of(crd_folder, document["kind"]))


def test_an_unknown_field_is_no_valid_resource(crd_folder: Path):
    document = yaml.safe_load((CLUSTER / "kubernetes" / "base" / "evaluate.yaml").read_text())
    document["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(jsonschema.ValidationError, match="livenesProbe"):
        jsonschema.validate(document, schema_of(crd_folder, "RayJob"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_volume_is_a_valid_claim_and_every_pod_mounts_it(overlay: str, crd_folder: Path):
    [claim] = by_kind(overlay, "PersistentVolumeClaim")
    pod = schema_of(crd_folder, "RayJob")["properties"]["spec"]["properties"]["rayClusterSpec"]["properties"]["headGroupSpec"]
    volume = pod["properties"]["template"]["properties"]["spec"]["properties"]["volumes"]["items"]
    template = volume["properties"]["ephemeral"]["properties"]["volumeClaimTemplate"]
    jsonschema.validate(claim["spec"], template["properties"]["spec"])
    for document in (*by_kind(overlay, "RayJob"), *by_kind(overlay, "RayService")):
        for group in groups(ray_cluster(document)):
            spec = group["template"]["spec"]
            claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v}
            mounts = {mount["mountPath"]: claims.get(mount["name"]) for mount in spec["containers"][0]["volumeMounts"]}
            assert mounts["/shared"] == claim["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_has_resources_probes_and_no_root(overlay: str):
    for document in (*by_kind(overlay, "RayJob"), *by_kind(overlay, "RayService")):
        for group in groups(ray_cluster(document)):
            spec = group["template"]["spec"]
            [container] = spec["containers"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["path"], probe


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_keys_and_tokens_are_secrets_by_name(overlay: str):
    for document in (*by_kind(overlay, "RayJob"), *by_kind(overlay, "RayService")):
        cluster = ray_cluster(document)
        assert cluster["authOptions"] == {"mode": "token", "secretName": "toolrec-ray-token"}
        for group in groups(cluster):
            [container] = group["template"]["spec"]["containers"]
            assert "toolrec-llm-key" in {source["secretRef"]["name"] for source in container["envFrom"]}
            assert "env" not in container
    assert not by_kind(overlay, "Secret")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_run_the_ray_that_is_pinned(overlay: str):
    [pinned] = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    for document in (*by_kind(overlay, "RayJob"), *by_kind(overlay, "RayService")):
        assert ray_cluster(document)["rayVersion"] == pinned


def test_only_one_overlay_scales_by_itself():
    def scales(overlay: str) -> set[bool]:
        documents = (*by_kind(overlay, "RayJob"), *by_kind(overlay, "RayService"))
        return {
            cluster.get("enableInTreeAutoscaling", False)
            and all(group["minReplicas"] < group["maxReplicas"] for group in cluster["workerGroupSpecs"])
            for cluster in map(ray_cluster, documents)
        }

    assert {overlay: scales(overlay) for overlay in OVERLAYS} == {"autoscaling": {True}, "single-node": {False}}


def test_the_entry_points_of_jobs_are_commands_of_ours():
    for overlay in OVERLAYS:
        for job in by_kind(overlay, "RayJob"):
            words = shlex.split(job["spec"]["entrypoint"])
            assert words[0] == "toolrec"
            assert all(str(path).startswith("/shared/") for path in check_command(words[1:]).values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_serve_takes_the_configuration_of_the_tools(overlay: str):
    from ray.serve.schema import ServeDeploySchema

    from toolrec.serving.config import AppConfig

    [service] = by_kind(overlay, "RayService")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    [application] = config.applications
    assert application.import_path == "toolrec.serving.app:build_app"
    arguments = AppConfig.model_validate(application.args)
    # It answers other hosts: the application refuses to start there without a token.
    assert config.http_options.host == "0.0.0.0" and arguments.token_env
    cluster = ray_cluster(service)
    for group in groups(cluster):
        names = {source["secretRef"]["name"] for source in group["template"]["spec"]["containers"][0]["envFrom"]}
        assert "toolrec-tools-token" in names


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_rays_cluster_launcher_takes_the_file(provider: str):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((CLUSTER / "launcher" / f"{provider}.yaml").read_text()))
    validate_config(config)
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in config[commands]:
            subprocess.run(["bash", "-n", "-c", command], check=True)
    assert "RAY_AUTH_MODE=token" in " ".join(config["docker"]["run_options"])


def test_the_launcher_refuses_a_file_with_an_unknown_field():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / "launcher" / "aws.yaml").read_text())
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config({**config, "max_worker": 3}))


@pytest.mark.parametrize("script", sorted(str(path.relative_to(CLUSTER)) for path in (CLUSTER / "slurm").iterdir()))
def test_bash_reads_the_slurm_script(script: str):
    subprocess.run(["bash", "-n", str(CLUSTER / script)], check=True)
    text = (CLUSTER / script).read_text()
    assert text.splitlines()[0] == "#!/usr/bin/env bash"
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH ")]
    first_command = text.index("set -euo pipefail")
    assert directives and all(text.index(line) < first_command for line in directives), "Slurm reads none after a command"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (CLUSTER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_is_not_roots_and_holds_no_secret():
    steps = instructions()
    last_stage = max(number for number, (name, _) in enumerate(steps) if name == "FROM")
    assert dict(steps[last_stage:])["USER"] == "1000"
    assert not [value for name, value in steps if name in ("ARG", "ENV") and re.search(r"KEY|TOKEN|SECRET|PASSWORD", value)]


def test_the_image_has_the_python_that_the_package_needs():
    steps = instructions()
    defaults = dict(value.split("=", 1) for name, value in steps if name == "ARG" and "=" in value)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"{defaults['PYTHON_VERSION']}.0" in SpecifierSet(needed)
    assert defaults["DEVICE"] in ("cpu", "cuda")


def test_the_build_context_holds_what_the_image_copies_and_nothing_else():
    copied = [
        source
        for name, value in instructions()
        if name == "COPY" and "--from=" not in value
        for source in shlex.split(value)[:-1]
    ]
    kept = [line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / source).exists() for source in copied)


def test_bash_reads_every_step_of_the_image():
    steps = [value for name, value in instructions() if name == "RUN"]
    assert len(steps) >= 4
    for step in steps:
        subprocess.run(["bash", "-n", "-c", step], check=True)
    installs = [step for step in steps if "pip install" in step and "--no-deps ." not in step]
    assert installs and all("-c constraints.txt" in step for step in installs), "versions are pinned"


def test_rays_own_runtime_env_takes_the_file():
    from ray.runtime_env import RuntimeEnv

    settings = yaml.safe_load((CLUSTER / "runtime-env.yaml").read_text())
    RuntimeEnv(**settings)
    assert not re.search(r"KEY|TOKEN", " ".join(settings["env_vars"])), "Ray stores it in plain text"
    assert settings == {"env_vars": ENVIRONMENT, "excludes": list(EXCLUDES)}, "what `toolrec submit` sends without a file"
