"""What `deploy render` writes is what the tools that will read it take: each is asked, where it is
here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = DEPLOY / "kuberay"
SCHEMAS = ROOT.parent / "shared" / "kuberay-schemas"
"""JSON Schemas of KubeRay's custom resources: that project's own data, kept beside this repository
where there are any."""

OVERLAYS = sorted(
    p.parent.relative_to(KUBERAY).as_posix()
    for p in KUBERAY.glob("overlays/*/*/kustomization.yaml")
)

needs_schemas = pytest.mark.skipif(
    not SCHEMAS.is_dir(), reason=f"no schemas of KubeRay in {SCHEMAS}"
)
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl here, so no kustomize"
)


def _tool(name: str, *arguments: str) -> None:
    """A program that a package of the extra `dev` installs; it must find nothing wrong."""
    path = Path(sys.executable).with_name(name)
    done = subprocess.run([path, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from (d for d in yaml.safe_load_all(path.read_text()) if d)


@cache
def _built(overlay: str) -> list[dict[str, Any]]:
    """What kustomize makes of an overlay; to be read."""
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERAY / overlay], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [d for d in yaml.safe_load_all(done.stdout) if d]


@cache
def _custom(kind: str) -> Any:
    """What validates a custom resource of this kind. Its schema is large, and is itself looked at
    once."""
    schema = json.loads((SCHEMAS / f"{kind.lower()}s.v1.json").read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    return validator(schema)


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted([*DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")]), ids=lambda p: p.name
)
def test_shellcheck_has_nothing_to_say_of_a_script(path: Path) -> None:
    _tool("shellcheck", "--severity=warning", str(path))
    assert os.access(path, os.X_OK)


@pytest.mark.slow
def test_the_compose_file_is_of_the_compose_specification() -> None:
    _tool(
        "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(DEPLOY / "compose" / "compose.yaml"),
    )


def test_every_file_that_compose_mounts_is_there() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    sources = {
        v["source"] for s in services.values() for v in s.get("volumes", []) if v["type"] == "bind"
    }
    assert "../prometheus" in sources
    missing = [s for s in sources if not (DEPLOY / "compose" / s).exists()]
    assert not missing


def test_every_volume_network_and_secret_of_compose_is_declared() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    for service in compose["services"].values():
        volumes = {v["source"] for v in service.get("volumes", []) if v["type"] == "volume"}
        assert volumes <= set(compose["volumes"])
        assert set(service.get("networks", [])) <= set(compose["networks"])
        assert set(service.get("secrets", [])) <= set(compose["secrets"])


@pytest.mark.slow
def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    _tool("hadolint", str(DEPLOY / "docker" / "Dockerfile"))


def test_ray_itself_takes_the_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((DEPLOY / "ray" / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    config["provider"]["kind"] = "unheard of"
    config["no_such_key"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(config))


@pytest.mark.slow
@needs_schemas
@pytest.mark.parametrize("path", sorted(KUBERAY.glob("*/ray*.yaml")), ids=lambda p: p.name)
def test_kuberay_takes_the_custom_resources(path: Path) -> None:
    for document in _documents(path):
        _custom(document["kind"]).validate(document)
        document["spec"]["unheard_of"] = 1
        with pytest.raises(jsonschema.ValidationError):
            _custom(document["kind"]).validate(document)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(KUBERAY.glob("base/*.yaml")), ids=lambda p: p.name)
def test_kubernetes_takes_the_resources_of_its_own_kinds(path: Path) -> None:
    for document in _documents(path):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, "1.31", strict=True)


@pytest.mark.slow
@needs_kubectl
@needs_schemas
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_an_overlay_of_which_each_resource_is_valid(overlay: str) -> None:
    kinds = []
    for document in _built(overlay):
        kinds.append(document["kind"])
        if document["apiVersion"].startswith("ray.io"):
            _custom(document["kind"]).validate(document)
        else:
            kubernetes_validate.validate(document, "1.31", strict=True)
    assert {"job": "RayJob", "cluster": "RayCluster"}[overlay.rpartition("/")[2]] in kinds
    assert {"StatefulSet", "Deployment", "NetworkPolicy", "ConfigMap", "Service"} <= set(kinds)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_config_map_that_a_pod_names_is_built_and_every_secret_is_in_the_readme(
    overlay: str,
) -> None:
    documents = _built(overlay)
    built = {d["metadata"]["name"] for d in documents if d["kind"] == "ConfigMap"}
    asked = {w["configMap"]["name"] for w in _walk(documents) if "configMap" in w}
    asked |= {w["configMapRef"]["name"] for w in _walk(documents) if "configMapRef" in w}
    assert asked == built
    secrets = {w["secretName"] for w in _walk(documents) if "secretName" in w}
    secrets |= {
        w[key]["name"]
        for w in _walk(documents)
        for key in ("secretRef", "secretKeyRef")
        if key in w
    }
    readme = (DEPLOY / "README.md").read_text()
    assert secrets
    assert not [s for s in secrets if f"secret generic {s} " not in readme]


@needs_kubectl
def test_overlays_give_workers_gpus_and_keep_the_head_off_spot_nodes() -> None:
    pods = {}
    for overlay in OVERLAYS:
        (ray,) = (d for d in _built(overlay) if d["apiVersion"].startswith("ray.io"))
        cluster = ray["spec"].get("rayClusterSpec", ray["spec"])
        pods[overlay] = (
            cluster["headGroupSpec"]["template"]["spec"],
            cluster["workerGroupSpecs"][0]["template"]["spec"],
        )
    for overlay, (head, worker) in pods.items():
        gpus = worker["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        assert gpus == (None if "/cpu/" in overlay else "1")
        assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
        assert ("nodeSelector" in worker) == ("affinity" in head) == ("/spot/" in overlay)


def test_kustomizations_name_files_that_are_there() -> None:
    for path in KUBERAY.rglob("kustomization.yaml"):
        (content,) = _documents(path)
        named = [*content.get("resources", []), *content.get("components", [])]
        named += [
            f.rpartition("=")[2]
            for g in content.get("configMapGenerator", [])
            for f in g.get("files", [])
        ]
        assert named or content["kind"] == "Component"
        assert not [n for n in named if not (path.parent / n).exists()]
        for patch in content.get("patches", []):
            assert all(
                set(step) == {"op", "path", "value"} for step in yaml.safe_load(patch["patch"])
            )
