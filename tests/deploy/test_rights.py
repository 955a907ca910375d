"""What each service of deploy/ may do: credentials are the driver's alone, no one speaks to whom he
need not, no root file system is written, and nothing grows without bounds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysearch.deploy.launchers import Compose, Kuberay, Slurm
from raysearch.deploy.render import render
from raysearch.deploy.settings import DeploySettings, for_compose, for_kuberay, for_slurm
from raysearch.errors import JobError
from tests.cli.conftest import QUICKSTART
from tests.deploy.test_security import COMPOSE, DEPLOY, _documents, _pods

RAYS = sorted((DEPLOY / "kuberay").glob("*/ray*.yaml"))
POLICIES = DEPLOY / "kuberay" / "base" / "network.yaml"
SECRETS = ("raysearch-s3", "raysearch-mlflow")


def _cluster(path: Path) -> dict[str, Any]:
    (document,) = _documents(path)
    cluster: dict[str, Any] = document["spec"].get("rayClusterSpec", document["spec"])
    return cluster


@pytest.mark.parametrize("path", RAYS, ids=lambda p: p.stem)
def test_in_kubernetes_the_head_that_has_the_driver_has_credentials_and_no_worker(
    path: Path,
) -> None:
    cluster = _cluster(path)
    head = str(cluster["headGroupSpec"])
    workers, rest = str(cluster["workerGroupSpecs"]), _documents(path)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # no replica runs there
    for secret in SECRETS:
        assert secret in head
        assert secret not in workers
        assert str(list(rest)).count(secret) <= head.count(secret)
    assert "secret" not in workers.lower()


def test_in_compose_the_head_alone_has_the_store_and_the_password_of_mlflow() -> None:
    (compose,) = _documents(COMPOSE)
    services = compose["services"]
    assert services["head"]["secrets"] == ["ray_token", "mlflow_password"]
    for name in ("worker", "search"):
        assert services[name]["secrets"] == ["ray_token"]
        assert "MLFLOW" not in str(services[name]["environment"])
        assert "runs" not in [v["source"] for v in services[name]["volumes"]]
    assert "runs" in [v["source"] for v in services["head"]["volumes"]]


def test_on_slurm_no_process_of_ray_has_the_drivers_credentials() -> None:
    script = (DEPLOY / "slurm" / "raysearch.sbatch").read_text()
    (hidden,) = re.findall(r"^no_credentials=\((.*?)\)$", script, re.M | re.S)
    assert {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD"} <= set(
        hidden.split()
    )
    (start,) = re.findall(r"^.*\bsrun\b.*\bray start\b.*", script, re.M)
    assert '"${no_credentials[@]}" ray start' in start


def _peers(policy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for rule in policy["spec"].get("egress", []):
        yield from rule.get("to", [{}])


def test_nobody_speaks_to_whom_no_policy_names() -> None:
    policies = {p["metadata"]["name"]: p for p in _documents(POLICIES)}
    assert policies["raysearch-nobody"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for name, policy in policies.items():
        assert ("egress" in policy["spec"]) <= ("Egress" in policy["spec"]["policyTypes"]), name
        for peer in _peers(policy):
            assert peer, f"{name} lets out to anybody"
            block = peer.get("ipBlock")
            if block is not None:
                metadata = "169.254.0.0/16" if "." in block["cidr"] else "fd00:ec2::254/128"
                assert metadata in block["except"], name
    said = {
        name: {
            label["app.kubernetes.io/component"]
            for peer in _peers(policy)
            if (label := peer.get("podSelector", {}).get("matchLabels"))
        }
        for name, policy in policies.items()
    }
    assert said["raysearch-driver"] == {"mlflow"}
    assert said["raysearch-mlflow"] == {"postgres"}
    assert said["raysearch-ray"] == said["raysearch-submitter"] == {"ray"}
    assert said["raysearch-postgres"] == set()
    selected = policies["raysearch-driver"]["spec"]["podSelector"]["matchLabels"]
    assert selected["ray.io/node-type"] == "head"


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("", None), ("https://s3.example", None), ("http://minio:9000", 9000), ("http://s3", 80)],
)
def test_the_port_of_a_store_is_open_to_those_who_keep_things_there(
    endpoint: str, port: int | None
) -> None:
    settings = for_kuberay(QUICKSTART, Kuberay(endpoint=endpoint, model_path="/model"))
    files = render(settings, "kuberay")
    policies = [p for p in yaml.safe_load_all(files["kuberay/base/network.yaml"]) if p]
    stores = {
        p["metadata"]["name"]: p["spec"] for p in policies if "-store-" in p["metadata"]["name"]
    }
    assert set(stores) == (
        set() if port is None else {"raysearch-store-ray", "raysearch-store-mlflow"}
    )
    for spec in stores.values():
        assert spec["egress"] == [{"ports": [{"protocol": "TCP", "port": port}]}]
    if port:
        labels = stores["raysearch-store-ray"]["podSelector"]["matchLabels"]
        assert labels["ray.io/node-type"] == "head"


@pytest.mark.parametrize("endpoint", ["minio", "ftp://minio", "http://", "http://a:b", "http://[x"])
def test_an_endpoint_that_is_no_url_is_one_line(endpoint: str) -> None:
    settings = for_kuberay(QUICKSTART, Kuberay(endpoint=endpoint, model_path="/model"))
    with pytest.raises(JobError, match=r"--endpoint .*is no URL") as caught:
        render(settings, "kuberay")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "target", "option"),
    [
        (
            for_slurm(QUICKSTART, Slurm(tracking_uri="http://u:sekret@m:5000")),
            "slurm",
            "tracking-uri",
        ),
        (for_slurm(QUICKSTART, Slurm(store="s3://key:sekret@bucket/x")), "slurm", "store"),
        (for_compose(QUICKSTART, Compose(store="s3://b/x?secret_key=sekret")), "compose", "store"),
        (
            for_slurm(QUICKSTART, Slurm(store="abfs://box:sekret@a.dfs.core.windows.net/x")),
            "slurm",
            "store",
        ),
        (
            for_compose(QUICKSTART, Compose(tracking_uri="http://sekret@m")),
            "compose",
            "tracking-uri",
        ),
        (
            for_kuberay(
                QUICKSTART, Kuberay(model_path="/m", endpoint="http://k:sekret@minio:9000")
            ),
            "kuberay",
            "endpoint",
        ),
        (
            for_kuberay(QUICKSTART, Kuberay(model_path="/m", store="s3://b/x?access_key=sekret")),
            "kuberay",
            "store",
        ),
    ],
)
def test_a_password_in_an_option_is_refused_and_not_said(
    settings: DeploySettings, target: str, option: str
) -> None:
    """Each would stand in a file that is shared, and in KubeRay's settings in each worker."""
    with pytest.raises(JobError, match=rf"^--{option} .*was given with a password") as caught:
        render(settings, target)
    assert "sekret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_container_of_an_azure_store_is_no_password() -> None:
    store = "abfs://box@a.dfs.core.windows.net/runs"
    files = render(for_slurm(QUICKSTART, Slurm(store=store)), "slurm")
    assert any(store in text for text in files.values())


def test_no_root_file_system_is_written_and_what_is_written_has_a_size() -> None:
    for name, pod, container in _pods():
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        mounted = {m["name"] for m in container["volumeMounts"]}
        assert "/tmp" in {m["mountPath"] for m in container["volumeMounts"]}, name
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], (name, volume)
                assert volume["name"] in mounted
    (compose,) = _documents(COMPOSE)
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert all("size=" in entry for entry in service.get("tmpfs", [])), name


def test_an_image_has_its_digest_or_a_word_on_why_not() -> None:
    lines = [
        line.strip()
        for path in [*DEPLOY.rglob("*.yaml"), DEPLOY / "docker" / "Dockerfile"]
        for line in path.read_text().splitlines()
        if re.match(r"\s*(image:|FROM) ", line)
    ]
    assert len(lines) >= 12
    for line in lines:
        assert re.search(r"@sha256:[0-9a-f]{64}\b", line) or "digest" in line.partition("#")[2], (
            line
        )


def test_an_image_that_is_given_by_digest_needs_no_word() -> None:
    image = f"registry.example/raysearch@sha256:{64 * '0'}"
    files = render(for_kuberay(QUICKSTART, Kuberay(image=image, model_path="/model")), "kuberay")
    assert f'image: "{image}"\n' in files["kuberay/job/rayjob.yaml"]
