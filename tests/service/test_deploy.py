"""docs/operate: what is deployed is valid, fits the service, and asks for metrics that exist.

Manifests are checked against the schemas of Kubernetes, which the package kubernetes-validate
brings; rules with promtool, where that is installed; metrics against a real server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from running_server import ROOT, crisp, free_port, running

from service.access import OPEN
from service.front import BENTOML_PATHS
from service.settings import PREFIX, Settings, resolve

FOLDER = ROOT / "docs" / "operate"
KUBERNETES = sorted((FOLDER / "kubernetes").glob("*.yaml"))
RULES = FOLDER / "prometheus" / "alerts.yml"
RULES_TEST = FOLDER / "prometheus" / "alerts_test.yml"
DASHBOARD = FOLDER / "dashboard.json"
COMPOSE = FOLDER / "compose" / "compose.yaml"
UNIT = FOLDER / "crisp.service"
BENTOML_UID = 1034  # of the user in the image

SERIES = re.compile(r"\b(crisp_[a-z_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'([a-z_]+)(=~|!=|!~|=)"([^"]*)"')
ADDED = {"instance", "job", "namespace", "pod", "le"}  # by Prometheus, and of buckets
VARIABLES = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def manifests() -> dict[str, Any]:
    found = [load(file) for file in KUBERNETES]
    return {
        manifest["kind"]: manifest
        for manifest in found
        if not manifest.get("apiVersion", "monitoring").startswith("monitoring")
    }


@pytest.fixture(scope="module")
def series(
    models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, set[str]]]:
    """By name of a time series, its labels and their values, of a server that has worked."""
    port = free_port()
    command = crisp("serve", "--models", str(models_dir), "--port", str(port), "--threads", "1")
    with running(command, port, tmp_path_factory.mktemp("deploy") / "log") as server:
        for variant in ("sparse", "dense"):
            body = {"texts": ["good film"], "variant": variant}
            assert httpx.post(f"{server.url}/predict", json=body, timeout=60).is_success
        assert httpx.get(f"{server.url}/made-up").status_code == 404
        for path in BENTOML_PATHS:
            assert httpx.get(f"{server.url}{path}").is_success
        text = httpx.get(f"{server.url}/metrics").text
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"])


def expressions() -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for group in load(RULES)["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]
    for variable in json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]
    for metric in manifests()["HorizontalPodAutoscaler"]["spec"]["metrics"]:
        if metric["type"] == "Pods":
            yield "autoscaler", metric["pods"]["metric"]["name"]
    for rule in load(FOLDER / "kubernetes" / "prometheus-adapter.yaml")["rules"]["custom"]:
        yield "adapter", rule["seriesQuery"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "query"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_query_asks_for_what_the_service_tells(
    where: str, query: str, series: dict[str, dict[str, set[str]]]
) -> None:
    used = SERIES.findall(query)
    assert used or query.startswith("up{") or "up{" in query, where
    known = set(ADDED)
    for name, matchers in used:
        assert name in series, f"{where} asks for {name}, which /metrics does not have"
        labels = series[name]
        known |= set(labels)
        for label, operator, value in MATCHER.findall(matchers):
            assert label in labels or label in ADDED, f"{where}: {name} has no label {label}"
            if label not in ADDED and "." not in value:
                for one in value.split("|") if "~" in operator else [value]:
                    assert one == "" or one in labels[label], f"{where}: no {label}={one}"
    for names in re.findall(r"by \(([^)]*)\)", query):
        assert {name.strip() for name in names.split(",")} <= known, where


def test_a_query_for_what_is_not_there_would_be_found(
    series: dict[str, dict[str, set[str]]],
) -> None:
    for query in (
        "crisp_nothing_total",
        'crisp_requests_total{colour="red"}',
        'crisp_requests_total{outcome="lost"}',
        "sum by (colour) (crisp_requests_total)",
    ):
        with pytest.raises(AssertionError):
            test_every_query_asks_for_what_the_service_tells("here", query, series)


def test_every_metric_of_ours_is_on_the_dashboard(series: dict[str, dict[str, set[str]]]) -> None:
    shown = {name for where, query in EXPRESSIONS for name, _ in SERIES.findall(query)
             if where.startswith("panel")}  # fmt: skip
    ends = r"_(bucket|sum|count|created)$"
    families = {re.sub(ends, "", name) for name in series if name.startswith("crisp_")}
    assert families == {re.sub(ends, "", name) for name in shown}


def test_the_dashboard_has_no_two_panels_in_one_place() -> None:
    identifiers = [panel["id"] for panel in panels()]
    assert len(set(identifiers)) == len(identifiers)
    places = [panel["gridPos"] for panel in panels()]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if not tool:
        pytest.skip("promtool is not installed: apt install prometheus")
    return subprocess.run(
        [tool, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60
    )


def test_the_rules_say_what_their_tests_say() -> None:
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("check", "rules", RULES.name),
        ("test", "rules", RULES_TEST.name),
    ):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_where_it_fires_and_explains_itself() -> None:
    rules = [rule for group in load(RULES)["groups"] for rule in group["rules"]]
    fires = {
        test["alertname"]
        for case in load(RULES_TEST)["tests"]
        for test in case["alert_rule_test"]
        if test.get("exp_alerts")
    }
    assert {rule["alert"] for rule in rules} == fires
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "description"} <= set(rule["annotations"])


@pytest.mark.parametrize("version", ["1.32", "latest"])
@pytest.mark.parametrize("manifest", manifests().values(), ids=list(manifests()))
def test_a_manifest_is_valid(manifest: dict[str, Any], version: str) -> None:
    wanted = kubernetes_validate.latest_version() if version == "latest" else version
    kubernetes_validate.validate(manifest, wanted, strict=True)


def test_a_manifest_that_is_not_would_be_found() -> None:
    manifest = manifests()["Deployment"] | {"spec": {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.32", strict=True)


def test_manifests_fit_each_other_and_the_service() -> None:
    found = manifests()
    assert set(found) == {"Deployment", "Service", "HorizontalPodAutoscaler",
                          "PodDisruptionBudget", "NetworkPolicy"}  # fmt: skip
    deployment = found["Deployment"]
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    least = found["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] < least

    (container,) = pod["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": Settings().port}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert path in OPEN & BENTOML_PATHS, f"{path} is no probe, or needs a key"
    wanted = {variable["name"]: variable["value"] for variable in container["env"]}
    assert set(wanted) <= VARIABLES
    settings = Settings.from_environment(wanted)
    assert str(settings.threads) == container["resources"]["limits"]["cpu"]
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace > pause + settings.timeout_seconds
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings.keys is not None
    assert mounts == {"/tmp", str(settings.keys.parent)}
    assert pod["spec"]["enableServiceLinks"] is False  # else CRISP_PORT=tcp://...


def test_the_operator_of_prometheus_finds_what_the_alerts_look_for() -> None:
    """Its kind is no part of Kubernetes, and no schema of it is at hand."""
    monitor = load(FOLDER / "kubernetes" / "pod-monitor.yaml")
    pod = manifests()["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"] == labels
    assert labels[monitor["spec"]["jobLabel"]] == "crisp"
    assert any('job="crisp"' in rule["expr"] for rule in load(RULES)["groups"][0]["rules"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {p["name"] for p in pod["spec"]["containers"][0]["ports"]}
    assert endpoint["path"] in BENTOML_PATHS - OPEN  # so it needs a key
    assert endpoint["authorization"]["credentials"]


def test_pods_have_no_more_rights_than_they_need() -> None:
    spec = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == BENTOML_UID
    assert spec["automountServiceAccountToken"] is False
    rights = spec["containers"][0]["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}


def test_the_users_number_is_bentomls() -> None:
    script = "from bentoml._internal.container import generate as g; print(g.DEFAULT_BENTO_ENVS)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"'uid_gid': {BENTOML_UID}" in done.stdout


def test_the_compose_file_fits_the_service() -> None:
    services = load(COMPOSE)["services"]
    assert set(services) == {"crisp", "prometheus", "grafana"}
    own = services["crisp"]
    assert set(own["environment"]) <= VARIABLES
    Settings.from_environment(own["environment"])
    assert own["read_only"] is True
    assert own["cap_drop"] == ["ALL"]
    assert [volume.split(":")[0] for volume in own["tmpfs"]] == ["/tmp"]
    assert int(own["stop_grace_period"].removesuffix("s")) > Settings().timeout_seconds
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), source
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{port} is open to the network"
    (job,) = load(FOLDER / "prometheus" / "prometheus.yml")["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"crisp:{Settings().port}"]


def test_the_example_of_a_settings_file_is_one() -> None:
    found = resolve({}, {}, FOLDER / "crisp.toml").settings
    assert found.keys == FOLDER / "keys.json"


def test_the_unit_is_one(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    there = UNIT.read_text().replace("/opt/crisp/.venv/bin/crisp", sys.executable)
    (tmp_path / UNIT.name).write_text(there)
    done = subprocess.run(
        [tool, "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
