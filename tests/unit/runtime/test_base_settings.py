"""Settings: what is in force, where it came from, and one clear line when it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from services.runtime.settings import ServiceSettings, SettingsError, load_or_exit, local_address


class DemoSettings(ServiceSettings):
    """A service's settings as in any config.py."""

    model_config = SettingsConfigDict(env_prefix="ECHOMESH_DEMO_")

    workers: int = Field(2, ge=1, description="how many")
    names: list[str] = Field(default_factory=list, description="some names")


def test_defaults_work_on_one_machine() -> None:
    """Without any setting the folders follow from data_dir and targets are loopback."""
    settings = DemoSettings.load({"ECHOMESH_DATA_DIR": "/srv/mesh"})

    assert settings.trust_dir == Path("/srv/mesh/trust")
    assert settings.jwks_path == Path("/srv/mesh/jwks.json")
    assert settings.auth_target == f"ipv4:{local_address('auth')}"


def test_the_services_own_key_wins_over_the_common_one() -> None:
    """ECHOMESH_DEMO_LOG_LEVEL is stronger than ECHOMESH_LOG_LEVEL."""
    environ = {"ECHOMESH_LOG_LEVEL": "error", "ECHOMESH_DEMO_LOG_LEVEL": "debug"}

    assert DemoSettings.load(environ).log_level == "debug"
    assert DemoSettings.load({"ECHOMESH_LOG_LEVEL": "error"}).log_level == "error"


def test_a_services_own_field_has_no_common_key() -> None:
    """ECHOMESH_WORKERS says nothing about the demo's workers."""
    assert DemoSettings.load({"ECHOMESH_WORKERS": "9"}).workers == 2


def test_an_unknown_key_is_refused_with_a_hint() -> None:
    """A typing error in a service's key is one line that names the right key."""
    with pytest.raises(SettingsError) as caught:
        DemoSettings.load({"ECHOMESH_DEMO_WORKER": "3"})

    expected = "unknown setting ECHOMESH_DEMO_WORKER (did you mean ECHOMESH_DEMO_WORKERS?)"
    assert str(caught.value) == expected


def test_a_near_miss_of_a_common_key_is_refused() -> None:
    """ECHOMESH_LOG_LEVL is no other service's key: it is a typing error."""
    with pytest.raises(SettingsError, match="did you mean ECHOMESH_LOG_LEVEL"):
        DemoSettings.load({"ECHOMESH_LOG_LEVL": "info"})


def test_other_services_keys_are_none_of_ours() -> None:
    """Keys of other services and tools in the same environment are ignored."""
    DemoSettings.load({"ECHOMESH_MEMORY_POOL_SIZE": "3", "ECHOMESH_API_KEY": "x", "HOME": "/"})


def test_a_value_out_of_range_names_its_place_in_one_line() -> None:
    """The error says which key, and not pydantic's many lines."""
    with pytest.raises(SettingsError) as caught:
        DemoSettings.load({"ECHOMESH_DEMO_WORKERS": "0"})

    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("env ECHOMESH_DEMO_WORKERS: workers:")


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after the start."""
    with pytest.raises(ValidationError):
        DemoSettings.load({}).workers = 3  # type: ignore[misc]


def test_a_secret_may_come_from_a_mounted_file_and_is_masked(tmp_path: Path) -> None:
    """KEY_FILE holds the value; `echomesh config` shows stars and the path."""
    secret = tmp_path / "dsn"
    secret.write_text("postgresql://u:hunter2@db/x\n")
    environ = {"ECHOMESH_DEMO_DATABASE_URL_FILE": str(secret)}

    settings = DemoSettings.load(environ)
    line = next(o for o in settings.origins(environ) if o.name == "database_url")

    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://u:hunter2@db/x"
    assert (line.origin, "hunter2" in line.value) == (f"file {secret}", False)
    assert "hunter2" not in repr(settings)


def test_a_toml_file_comes_after_the_environment(tmp_path: Path) -> None:
    """[demo] beats [common], the environment beats both; each setting says where it came from."""
    config = tmp_path / "mesh.toml"
    config.write_text('[common]\nlog_level = "error"\n[demo]\nworkers = 5\nnames = ["a"]\n')
    environ = {"ECHOMESH_CONFIG": str(config), "ECHOMESH_DEMO_WORKERS": "7"}

    settings = DemoSettings.load(environ)
    origins = {line.name: line.origin for line in settings.origins(environ)}

    assert (settings.workers, settings.names, settings.log_level) == (7, ["a"], "error")
    assert origins["workers"] == "env ECHOMESH_DEMO_WORKERS"
    assert origins["names"] == f"file {config} [demo]"
    assert origins["otlp_endpoint"] == "default"


@pytest.mark.parametrize("text", ["[demo]\nwrokers = 1\n", "workers = 1\n", "[demo\n"])
def test_a_bad_file_is_one_line(tmp_path: Path, text: str) -> None:
    """An unknown name, a name outside a table, and broken TOML all name the file."""
    config = tmp_path / "mesh.toml"
    config.write_text(text)

    with pytest.raises(SettingsError, match=r"mesh\.toml"):
        DemoSettings.load({"ECHOMESH_CONFIG": str(config)})


def test_lists_are_json() -> None:
    """A list setting takes JSON, and says so otherwise."""
    assert DemoSettings.load({"ECHOMESH_DEMO_NAMES": '["x", "y"]'}).names == ["x", "y"]
    with pytest.raises(SettingsError, match="must be JSON"):
        DemoSettings.load({"ECHOMESH_DEMO_NAMES": "x,y"})


def test_a_process_with_bad_settings_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback: a line on standard error and the status for bad configuration."""
    monkeypatch.setenv("ECHOMESH_DEMO_NO_SUCH", "1")

    with pytest.raises(SystemExit) as caught:
        load_or_exit(DemoSettings)

    assert caught.value.code == 78
    assert capsys.readouterr().err == "echomesh: unknown setting ECHOMESH_DEMO_NO_SUCH\n"


def test_a_common_key_that_begins_like_a_services_prefix_is_no_unknown_key() -> None:
    """`ECHOMESH_ROUTING_TARGET` is the common `routing_target`, for routing itself too."""

    class RoutingSettings(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix="ECHOMESH_ROUTING_")

    loaded = RoutingSettings.load({"ECHOMESH_ROUTING_TARGET": "ipv4:127.0.0.1:1"})
    assert loaded.routing_target == "ipv4:127.0.0.1:1"
