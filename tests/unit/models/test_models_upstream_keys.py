"""Where an upstream's key comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.models.config import ModelsSettings, Upstream

URL = "http://127.0.0.1:1/v1"


def keys(*upstreams: Upstream, default: str | None = None) -> list[str | None]:
    """The key that each upstream of a service is to use."""
    settings = ModelsSettings(upstreams=upstreams, upstream_api_key=default)
    found = (upstream.api_key for upstream in settings.keyed_upstreams())
    return [key.get_secret_value() if key else None for key in found]


def test_each_upstream_uses_its_own_key_whether_it_stands_in_a_file_or_not(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("from-a-file\n")
    filed = Upstream(url=URL, name="a", api_key_file=path)
    plain = Upstream(url=URL, name="b", api_key="plain")
    none = Upstream(url=URL, name="c")
    assert keys(filed, plain, none, default="rest") == ["from-a-file", "plain", "rest"]
    assert keys(filed, none) == ["from-a-file", None]


def test_a_key_in_a_file_stays_out_of_what_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("from-a-file")
    settings = ModelsSettings(upstreams=(Upstream(url=URL, api_key_file=path),))
    assert "from-a-file" not in repr((settings, settings.keyed_upstreams()))


def test_a_file_that_is_not_there_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*nothing: No such file"):
        Upstream(url=URL, api_key_file=tmp_path / "nothing")


def test_an_upstream_has_one_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("x")
    with pytest.raises(ValueError, match="give one of them"):
        Upstream(url=URL, api_key="y", api_key_file=path)
