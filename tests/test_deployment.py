"""The compose file, the image and both instance files, held to what the page on deployment promises."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from assets.engine.runs import LOCATION

ROOT = Path(__file__).parents[1]
OWN = ("migrate", "code", "webserver", "viewer", "daemon")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


def test_every_part_is_there(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", *OWN}


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_nobody_holds_the_docker_socket(services: dict[str, Any]) -> None:
    assert "docker.sock" not in yaml.safe_dump(services)


def test_secrets_are_files_and_never_values(compose: dict[str, Any], services: dict[str, Any]) -> None:
    assert compose["secrets"] == {"postgres_password": {"file": "./secrets/postgres_password"}}
    for name, service in services.items():
        assert "postgres_password" in service["secrets"], name
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or key.endswith("_FILE"), value
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert "secrets" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("name", OWN)
def test_own_services_run_without_rights(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["user"] == "10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_all_that_stay_up_are_watched(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"migrate"}


def test_the_viewer_can_only_look(services: dict[str, Any]) -> None:
    assert "--read-only" in services["viewer"]["command"]
    assert services["viewer"]["profiles"] == ["viewer"]


def test_the_database_is_reached_from_inside_only(compose: dict[str, Any], services: dict[str, Any]) -> None:
    assert compose["networks"]["inside"] == {"internal": True}
    assert services["postgres"]["networks"] == ["inside"]
    assert "ports" not in services["postgres"]


def test_tables_are_migrated_before_anything_reads_them(services: dict[str, Any]) -> None:
    assert services["code"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert all(services[name]["depends_on"]["code"]["condition"] == "service_healthy" for name in OWN[2:])


def test_the_workspace_names_the_code_server_and_the_location_of_all_runs(services: dict[str, Any]) -> None:
    [entry] = yaml.safe_load((ROOT / "docker/workspace.yaml").read_text())["load_from"]
    server = entry["grpc_server"]
    assert server == {"host": services["code"]["hostname"], "port": 4000, "location_name": LOCATION}
    assert "4000" in services["code"]["command"]


def test_the_image_drops_its_rights_and_names_no_host() -> None:
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    assert "USER interlingua" in lines
    assert not [line for line in lines if "://" in line]
    for line in lines:
        if line.startswith("COPY"):
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line


def test_the_entrypoint_hands_secret_files_over_as_variables(tmp_path: Path) -> None:
    (tmp_path / "openai.api-key").write_text("sk-1 2")
    script = (ROOT / "docker/entrypoint").read_text().replace("/run/secrets", str(tmp_path))
    done = subprocess.run(
        ["sh", "-c", script, "entrypoint", "sh", "-c", 'printf %s "$OPENAI_API_KEY"'],
        env={"PATH": os.environ["PATH"], "DAGSTER_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "sk-1 2"
    assert (tmp_path / "state").is_dir()


@pytest.mark.parametrize("folder", [".", "docker"])
def test_an_instance_file_is_valid_and_sets_what_is_promised(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_STATE", "/state")
    monkeypatch.setenv("POSTGRES_PASSWORD", "secret")
    settings, _ = dagster_instance_config(str(ROOT / folder))
    assert settings["telemetry"] == {"enabled": False}
    assert settings["concurrency"]["pools"] == {"default_limit": 1, "granularity": "op"}
    assert settings["run_monitoring"]["free_slots_after_run_end_seconds"] == 30
    assert settings["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert settings["retention"]["schedule"]["purge_after_days"]["success"] == 30


def test_both_instances_differ_in_storage_only() -> None:
    here, away = (yaml.safe_load((ROOT / f).read_text()) for f in ("dagster.yaml", "docker/dagster.yaml"))
    assert here.pop("storage") == {"sqlite": {"base_dir": {"env": "DAGSTER_STATE"}}}
    assert away.pop("storage")["postgres"]["postgres_db"]["password"] == {"env": "POSTGRES_PASSWORD"}
    assert here == away


def test_constraints_pin_exactly_and_name_no_host() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert "torch==2.13.0" in lines


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    wanted += [name for extra in project["project"]["optional-dependencies"].values() for name in extra]
    pinned = {plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {plain(name) for name in wanted} <= pinned


def plain(requirement: str) -> str:
    """A package's name as pip compares it."""
    return re.split(r"[><=\[]", requirement)[0].lower().replace("_", "-")
