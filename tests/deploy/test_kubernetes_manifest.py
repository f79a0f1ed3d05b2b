"""deploy/kubernetes.yaml: that its parts fit each other, the image and the program."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
import yaml

from machina.api.security import PUBLIC_PATHS
from machina.cli.serve import WORKER_GRACE_SECONDS, parse_queues
from machina.cli.server import LINGER_SECONDS, MARGIN_SECONDS
from machina.queue.names import Queue
from machina.settings import Settings
from tests.deploy.production import ROOT
from tests.deploy.test_containerfile import WORK_DIRECTORY, read_stages, values
from tests.deploy.variables import GUIDE, SETTINGS, unknown_variables

FILE: Final = ROOT / "deploy" / "kubernetes.yaml"
VERSIONS: Final = {
    "ConfigMap": "v1",
    "Service": "v1",
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
}
SECRET: Final = ("REDIS_URL", "REDIS_PUBSUB_URL", "MONGODB_URL", "MACHINA_VAULT_KEY")
Document = dict[str, Any]


def documents(kind: str) -> dict[str, Document]:
    """The documents of a kind by name."""
    loaded = list(yaml.safe_load_all(FILE.read_text()))
    return {item["metadata"]["name"]: item for item in loaded if item["kind"] == kind}


def pod(name: str) -> Document:
    found: Document = documents("Deployment")[name]["spec"]["template"]["spec"]
    return found


def container(name: str) -> Document:
    (found,) = pod(name)["containers"]
    return dict(found)


DEPLOYMENTS: Final = ("machina-api", "machina-worker-streaming", "machina-worker")


def test_every_document_is_of_a_kind_and_version_that_belong_together() -> None:
    for item in yaml.safe_load_all(FILE.read_text()):
        assert item["apiVersion"] == VERSIONS[item["kind"]]
        assert item["metadata"]["namespace"] == "machina"
    assert set(documents("Deployment")) == set(DEPLOYMENTS)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_selects_its_own_pods_and_no_others(name: str) -> None:
    spec = documents("Deployment")[name]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    others = [documents("Deployment")[other]["spec"] for other in DEPLOYMENTS if other != name]
    assert all(other["selector"]["matchLabels"] != labels for other in others)


def test_service_and_disruption_budget_mean_the_api() -> None:
    labels = documents("Deployment")["machina-api"]["spec"]["template"]["metadata"]["labels"]
    service = documents("Service")["machina-api"]["spec"]
    assert service["selector"] == labels
    budget = documents("PodDisruptionBudget")["machina-api"]["spec"]
    assert budget["selector"]["matchLabels"] == labels
    (port,) = service["ports"]
    assert port["targetPort"] in {offered["name"] for offered in container("machina-api")["ports"]}


def test_the_settings_are_the_guides_and_every_one_exists_and_is_valid() -> None:
    data = documents("ConfigMap")["machina-settings"]["data"]
    assert data.keys() | set(SECRET) >= set(GUIDE)
    assert unknown_variables(FILE.read_text()) == set()
    assert all(isinstance(value, str) for value in data.values())
    fields: Any = {SETTINGS[name]: value for name, value in data.items()}
    settings = Settings(_env_file=None, **fields)
    assert settings.gunicorn_workers == 1, "a probe is then about exactly one process"


def test_what_holds_passwords_comes_from_a_secret_that_the_head_explains() -> None:
    head = FILE.read_text().partition("apiVersion")[0]
    assert re.findall(r"--from-literal=(\w+)=", head) == list(SECRET)
    assert not documents("ConfigMap")["machina-settings"]["data"].keys() & set(SECRET)
    for name in DEPLOYMENTS:
        sources = container(name)["envFrom"]
        assert sources == [
            {"configMapRef": {"name": "machina-settings"}},
            {"secretRef": {"name": "machina-secrets"}},
        ]
    assert "create secret generic machina-secrets" in head


@pytest.mark.parametrize(
    ("probe", "path"),
    [
        ("startupProbe", "/system/liveness"),
        ("livenessProbe", "/system/liveness"),
        ("readinessProbe", "/system/readiness"),
    ],
)
def test_a_probe_asks_a_public_route_on_the_port_of_the_api(probe: str, path: str) -> None:
    api = container("machina-api")
    asked = api[probe]["httpGet"]
    assert asked == {"path": path, "port": "http"}
    assert path in PUBLIC_PATHS
    assert api["ports"] == [
        {"name": "http", "containerPort": Settings.model_fields["port"].default}
    ]


def test_the_metrics_port_of_a_worker_is_the_one_it_serves() -> None:
    settings = documents("ConfigMap")["machina-settings"]["data"]
    for name in DEPLOYMENTS[1:]:
        assert container(name)["ports"] == [
            {"name": "metrics", "containerPort": int(settings["MACHINA_METRICS_PORT"])}
        ]


def test_the_workers_serve_every_queue_once_and_streams_alone() -> None:
    assert container("machina-api")["args"] == ["api"]
    streaming, others = (container(name)["args"] for name in DEPLOYMENTS[1:])
    assert streaming[:2] == others[:2] == ["worker", "--queues"]
    assert parse_queues(streaming[2]) == [Queue.STREAMING]
    assert parse_queues(others[2]) == [queue for queue in Queue if queue is not Queue.STREAMING]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_no_pod_can_do_more_than_it_must(name: str) -> None:
    spec = pod(name)
    (user,) = values("USER", read_stages()[-1])
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    work = [] if name == "machina-api" else [WORK_DIRECTORY]
    assert [mount["mountPath"] for mount in container(name)["volumeMounts"]] == ["/tmp", *work]
    assert {"memory"} <= container(name)["resources"]["limits"].keys()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_volume_of_a_pod_is_mounted_and_bounded(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == set(volumes)
    assert all("sizeLimit" in volume["emptyDir"] for volume in volumes.values())


def test_some_api_schedules() -> None:
    assert documents("ConfigMap")["machina-settings"]["data"]["SCHEDULERS"] == "1"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_service_links_are_off_since_one_would_set_the_port_to_a_url(name: str) -> None:
    assert pod(name)["enableServiceLinks"] is False


def test_pods_have_the_time_to_stop_that_they_take() -> None:
    settings = documents("ConfigMap")["machina-settings"]["data"]
    drain = float(settings["MACHINA_DRAIN_SECONDS"]) + MARGIN_SECONDS + LINGER_SECONDS + 1
    (sleep, waited) = container("machina-api")["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert pod("machina-api")["terminationGracePeriodSeconds"] > float(waited) + drain
    for name in DEPLOYMENTS[1:]:
        assert pod(name)["terminationGracePeriodSeconds"] > WORKER_GRACE_SECONDS


def test_every_deployment_runs_the_same_image() -> None:
    assert len({container(name)["image"] for name in DEPLOYMENTS}) == 1
