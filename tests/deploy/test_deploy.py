"""The deployment files agree with the program that they run. Nothing is started here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import typer.main
import yaml  # type: ignore[import-untyped, unused-ignore]

from actorbus import Node, Settings, __version__
from actorbus.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DEPLOY = Path(__file__).parents[2] / "deploy"
STOPPING = 20
"""Seconds that a node may need after its handlers have returned."""
GIVEN_TO_COMMANDS = {"ACTORBUS_AUDIT", "ACTORBUS_BUS"}


class Running(NamedTuple):
    """A node as a file has it run."""

    where: str
    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    probe: str
    stops_within: float
    mounts: Sequence[str]

    def option(self, name: str) -> str:
        return self.command[self.command.index(name) + 1]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def manifests() -> dict[tuple[str, str], Any]:
    return {
        (one["kind"], one["metadata"]["name"]): one
        for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text())
    }


def nodes() -> Iterator[Running]:
    for name, service in compose()["services"].items():
        if service["image"].startswith("actorbus"):
            yield Running(
                f"compose {name}",
                service["image"],
                service["command"],
                service["environment"],
                service["healthcheck"]["test"][-1],
                float(service["stop_grace_period"].removesuffix("s")),
                [volume.split(":")[1] for volume in service["volumes"]],
            )
    pod = manifests()["Deployment", "actorbus"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    yield Running(
        "kubernetes",
        container["image"],
        container["args"],
        {one["name"]: one.get("value", "") for one in container["env"]},
        container["livenessProbe"]["exec"]["command"][-1],
        float(pod["terminationGracePeriodSeconds"]),
        [mount["mountPath"] for mount in container["volumeMounts"]],
    )


def redis_commands() -> dict[str, Sequence[str]]:
    [server] = manifests()["StatefulSet", "redis"]["spec"]["template"]["spec"]["containers"]
    return {"compose": compose()["services"]["redis"]["command"], "kubernetes": server["args"]}


each_node = pytest.mark.parametrize("node", list(nodes()), ids=lambda node: node.where)
each_redis = pytest.mark.parametrize("where", ["compose", "kubernetes"])


def test_there_are_three_nodes_of_each() -> None:
    in_compose = [node for node in nodes() if node.where.startswith("compose")]

    assert len(in_compose) == 3
    assert len({node.option("--name") for node in in_compose}) == 3
    assert manifests()["Deployment", "actorbus"]["spec"]["replicas"] == 3


@each_node
def test_a_node_is_run_by_a_command_that_exists(node: Running) -> None:
    commands: Any = typer.main.get_command(app)
    name, *arguments = node.command

    context = commands.commands[name].make_context(
        name, ["--bus", node.environment["ACTORBUS_BUS"], *arguments]
    )

    assert context.params["grace"] == float(node.option("--grace"))


@each_node
def test_the_variables_of_a_node_are_settings(
    node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {name: value for name, value in node.environment.items() if name.startswith("ACTORBUS_")}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    assert ours.keys() > GIVEN_TO_COMMANDS
    assert settings.audit_spill_dir in node.mounts


@each_node
def test_the_image_is_this_version(node: Running) -> None:
    assert node.image == f"actorbus:{__version__}"
    assert node.image in (DEPLOY / "Dockerfile").read_text()


@each_node
def test_a_probe_asks_where_the_node_serves(node: Running) -> None:
    compile(node.probe, "probe", "exec")

    assert f"http://127.0.0.1:{node.option('--metrics-port')}/metrics" in node.probe


@each_node
def test_a_node_has_time_to_hand_over_before_it_is_killed(node: Running) -> None:
    assert node.stops_within >= float(node.option("--grace")) + STOPPING


@each_node
def test_a_node_speaks_to_what_is_deployed_with_it(node: Running) -> None:
    services = compose()["services"].keys()
    ports = {
        name: one["spec"]["ports"][0]["port"]
        for (kind, name), one in manifests().items()
        if kind == "Service"
    }

    for variable in GIVEN_TO_COMMANDS:
        found = re.fullmatch(r"\w+://(?:.*@)?(\w+):(\d+)/\w+", node.environment[variable])
        assert found is not None
        assert found[1] in services
        assert ports[found[1]] == int(found[2])


@each_redis
def test_redis_refuses_rather_than_forgets_and_keeps_what_it_took(where: str) -> None:
    command = redis_commands()[where]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert "--maxmemory" in options


def test_secrets_are_asked_for_and_never_there() -> None:
    secret = manifests()["Secret", "actorbus"]

    assert set(secret["stringData"].values()) == {"change-me"}
    assert (DEPLOY / "compose.yaml").read_text().count("PASSWORD:?set ") >= 4


def test_every_secret_that_a_pod_wants_is_in_the_secret() -> None:
    known = manifests()["Secret", "actorbus"]["stringData"].keys()

    wanted = {
        one["valueFrom"]["secretKeyRef"]["key"]
        for (kind, _), manifest in manifests().items()
        if kind in ("Deployment", "StatefulSet")
        for container in manifest["spec"]["template"]["spec"]["containers"]
        for one in container["env"]
        if "secretKeyRef" in one.get("valueFrom", {})
    }

    assert wanted == known


def test_kubernetes_adds_no_variable_that_a_node_would_refuse() -> None:
    pod = manifests()["Deployment", "actorbus"]["spec"]["template"]["spec"]

    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_selectors_find_their_pods(kind: str) -> None:
    for (one_kind, _), manifest in manifests().items():
        if one_kind == kind:
            spec = manifest["spec"]
            assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_the_volumes_of_compose_are_declared() -> None:
    file = compose()

    used = {
        volume.split(":")[0]
        for service in file["services"].values()
        for volume in service["volumes"]
    }

    assert used == file["volumes"].keys()


def test_the_image_copies_what_there_is_and_runs_the_node_without_a_shell() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [path for line in lines if line.startswith("COPY") for path in line.split()[1:-1]]

    assert all((DEPLOY.parent / path).exists() for path in copied)
    assert 'ENTRYPOINT ["actorbus"]' in lines


def test_the_agents_of_the_image_can_be_loaded() -> None:
    with Node() as node:
        loaded = node.load(DEPLOY / "agents")

        assert not loaded.broken
        assert loaded.agents
