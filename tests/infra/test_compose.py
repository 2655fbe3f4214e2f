"""The workstation's compose file: what the specification allows, pinned, locked down, and with commands that exist."""

import re
from pathlib import Path
from typing import Any

import check_jsonschema
import yaml
from click.testing import CliRunner

from infra import commands

ROOT = Path(__file__).parents[2]
FILE = ROOT / "infra" / "compose.yaml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_the_specification_allows_it() -> None:
    found = CliRunner().invoke(check_jsonschema.main, ["--builtin-schema", "vendor.compose-spec", str(FILE)])
    assert found.exit_code == 0, found.output


def test_images_are_pinned_and_the_stac_api_is_the_one_that_tests_ask() -> None:
    pins = dict(line.split("==") for line in (ROOT / "tests" / "services" / "constraints.txt").read_text().split())
    tags = dict(service["image"].rsplit(":", 1) for service in SERVICES.values())
    assert all(re.fullmatch(r"v?\d+\.\d+\.\d+", tag) for tag in tags.values()), tags
    assert tags["ghcr.io/stac-utils/stac-fastapi-pgstac"] == pins["stac-fastapi-pgstac"]
    assert tags["ghcr.io/stac-utils/pgstac"] == f"v{pins['pypgstac']}"


def test_our_images_are_built_here_and_locked_down() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {"bucket", "scheduler", "worker", "tensorboard", "ingest", "train"} == set(OURS)
    for service in OURS.values():
        assert service["build"]["target"] in stages
        assert (FILE.parent / service["build"]["context"]).resolve() == ROOT
        assert service["image"].startswith(f"sentinel-pretrain/{service['build']['target']}:")
        assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == (True, ["/tmp"], ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"user", "privileged"} & set(service)


def test_secrets_come_from_the_environment_and_ports_are_this_machines() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("KEY|PASSWORD|SECRET", name) or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_commands_are_those_of_the_command_lines_and_hosts_are_services() -> None:
    for service in OURS.values():
        words = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in service.get("command", [])]
        if words[:1] == ["dask"]:
            commands.parse(words)
    text = FILE.read_text()
    hosts = set(re.findall(r"(?:tcp|http)://([a-z-]+):", text)) | {SERVICES["stac"]["environment"]["PGHOST"]}
    assert hosts <= set(SERVICES)
    for example in re.findall(r"run --rm (.+)$", text, re.MULTILINE):
        name, *words = example.split()
        entry = SERVICES[name]["entrypoint"][3:]
        given = [word for word in words if word != "..."]
        more = ["--aoi", "0,0,1,1", "--catalog", "x"] if "..." in words else []
        commands.parse([*entry, *given, *more])


def test_what_is_kept_is_declared() -> None:
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])
