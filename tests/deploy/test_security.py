"""Nothing in deploy/ lets anybody in who has no token or password, and nothing in it is one."""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
FILES = sorted(
    p for p in DEPLOY.rglob("*") if p.is_file() and p.suffix != ".json" and p.name != ".env"
)

ASKS = ("RAY_AUTH_MODE", "--app-name=basic-auth", "authOptions", "POSTGRES_PASSWORD_FILE")
"""What makes a service ask for a token or password."""


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from (d for d in yaml.safe_load_all(path.read_text()) if d)


def _containers(value: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod's spec and each of its containers."""
    if isinstance(value, dict):
        for container in value.get("containers", []):
            yield value, container
        for inner in value.values():
            yield from _containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _containers(inner)


def _pods() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    found = [
        (f"{path.name}:{container['name']}", pod, container)
        for path in sorted((DEPLOY / "kuberay").rglob("*.yaml"))
        for document in _documents(path)
        for pod, container in _containers(document)
    ]
    assert len(found) >= 7
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(DEPLOY).as_posix())
def test_no_file_holds_a_secret(path: Path) -> None:
    secret = re.compile(
        r"""(?ix) (password|passwd|secret|token|secret[_-]?key|access[_-]?key[_-]?id)   # a name like that,
            ["']? \s* [:=] \s* ["']?                                                   # given
            (?! \$ | /run/secrets | token\b | \{ | <)                                  # neither by reference nor the name of a mode
            [A-Za-z0-9+/]{6,}"""
    )
    keys = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|://[^/\s:@]+:[^@/\s$]+@")
    assert not [
        line for line in path.read_text().splitlines() if secret.search(line) or keys.search(line)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "POSTGRES_PASSWORD: hunter22",
        'password = "password1234"',
        "--from-literal=token=0123456789",
        "postgresql://me:you@host/db",
    ],
)
def test_a_secret_would_be_seen(line: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(line)
    with pytest.raises(AssertionError):
        test_no_file_holds_a_secret(tmp_path / "x")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(DEPLOY).as_posix())
def test_what_listens_on_all_interfaces_asks_who_comes(path: Path) -> None:
    if any(
        "0.0.0.0" in line.replace("0.0.0.0/0", "").partition("#")[0]
        for line in path.read_text().splitlines()
    ):
        assert any(sign in path.read_text() for sign in ASKS)


def test_compose_publishes_on_loopback_alone_and_asks_at_each_service() -> None:
    (compose,) = _documents(COMPOSE)
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service.get("network_mode") in (None, "service:grafana")
        environment, command = service.get("environment", {}), str(service.get("command", ""))
        asks = {
            "head": environment.get("RAY_AUTH_MODE") == "token",
            "worker": environment.get("RAY_AUTH_MODE") == "token",
            "search": environment.get("RAY_AUTH_MODE") == "token",
            "mlflow": "--app-name=basic-auth" in command
            and "MLFLOW_AUTH_ADMIN_PASSWORD" in command,
            "postgres": environment.get("POSTGRES_HOST_AUTH_METHOD") == "scram-sha-256",
            "grafana": environment.get("GF_AUTH_ANONYMOUS_ENABLED") == "false",
            "prometheus": "--web.listen-address=127.0.0.1:9090" in command
            and service["network_mode"] == "service:grafana",
        }
        assert asks[name], f"{name} asks nobody"
        assert "no-new-privileges:true" in service["security_opt"]
        assert not service.get("privileged")
    for secret in compose["secrets"].values():
        assert list(secret) == ["environment"], "a secret stands in no file"


def test_every_ray_of_kuberay_asks_for_a_token() -> None:
    for path in sorted((DEPLOY / "kuberay").glob("*/ray*.yaml")):
        (document,) = _documents(path)
        cluster = document["spec"].get("rayClusterSpec", document["spec"])
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_every_ray_start_elsewhere_is_told_to_ask_for_a_token() -> None:
    for path in FILES:
        if path.suffix not in (".md", ".j2") and re.search(r"\bray start\b", path.read_text()):
            assert re.search(r"RAY_AUTH_MODE[=:] ?token", path.read_text()), path


def test_no_pod_is_root_or_may_become_it_or_goes_without_bounds_and_probes() -> None:
    for name, pod, container in _pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert set(container["resources"]) == {"requests", "limits"}, name
        if container["name"] != "ray-job-submitter":  # which ends by itself
            assert {"readinessProbe", "livenessProbe"} <= set(container), name
        for variable in container.get("env", []):
            if re.search("PASSWORD$|SECRET|TOKEN", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], name


def test_every_pod_is_behind_a_network_policy_that_lets_in_named_pods_only() -> None:
    policies = list(_documents(DEPLOY / "kuberay" / "base" / "network.yaml"))
    (nobody,) = (p["spec"] for p in policies if p["metadata"]["name"] == "raysearch-nobody")
    assert nobody == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "raysearch"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    for policy in policies:
        for rule in policy["spec"].get("ingress", []):
            assert all(peer["podSelector"]["matchLabels"] for peer in rule["from"])
    for path in sorted((DEPLOY / "kuberay").rglob("*.yaml")):
        for template in re.findall(r"labels: (\{.*component.*\})", path.read_text()):
            assert yaml.safe_load(template)["app.kubernetes.io/part-of"] == "raysearch"


@pytest.mark.parametrize(
    "path", sorted(DEPLOY.rglob("basic_auth.ini")), ids=lambda p: p.parent.name
)
def test_mlflow_lets_nobody_see_what_he_was_not_given(path: Path) -> None:
    config = configparser.ConfigParser()
    config.read(path)
    assert config["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert "admin_password" not in config["mlflow"]


def test_the_image_runs_as_nobody_of_importance_with_every_version_pinned() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.M) == ["1000:1000"]
    images = re.findall(r"^FROM (\S+)", text, re.M) + re.findall(
        r"image: (\S+/\S+|postgres\S+)", COMPOSE.read_text()
    )
    assert images
    assert all(re.search(r":v?\d+\.\d+(\.\d+)?", image) for image in images)
    installs = [
        line for line in text.splitlines() if "pip install" in line and not line.startswith("#")
    ]
    pinned = ("-c pins.txt", "--require-hashes --no-deps", "--no-deps --no-build-isolation .")
    assert all(any(p in line for p in pinned) for line in installs)
