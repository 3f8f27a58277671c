"""Where settings come from: the environment first, then a TOML file, then the defaults.

For service `auth` and field `log_level` the places are, first found wins:
`ECHOMESH_AUTH_LOG_LEVEL`, `ECHOMESH_AUTH_LOG_LEVEL_FILE` (a file that holds the value, for mounted
secrets), `ECHOMESH_LOG_LEVEL`, `ECHOMESH_LOG_LEVEL_FILE` (fields that all services share only),
then `[auth]` and `[common]` of the TOML file named by `ECHOMESH_CONFIG`, then the default.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

COMMON_PREFIX = "ECHOMESH_"
CONFIG_KEY = "ECHOMESH_CONFIG"
_FILE_SUFFIX = "_FILE"
# As similar as a typing error: one or two letters off in a name of usual length.
_TYPO_RATIO = 0.85


class SettingsError(Exception):
    """A setting that cannot be used; the text is one line made for the person who set it."""


@dataclass(frozen=True)
class Found:
    """A value and the place it came from, for example `env ECHOMESH_LOG_LEVEL`."""

    value: Any
    origin: str


class SettingsSource:
    """Looks up the fields of one service's settings in an environment and its TOML file.

    `fields` are all fields of the service; `common` the names of those that every service has.
    """

    def __init__(
        self,
        fields: Mapping[str, FieldInfo],
        common: Collection[str],
        prefix: str,
        environ: Mapping[str, str],
    ) -> None:
        self._fields = fields
        self._common = common
        self._prefix = prefix
        self._environ = environ
        self._tables = self._read_config()

    def collect(self) -> dict[str, Found]:
        """Return what is set, by field; raises `SettingsError` for an unknown key."""
        self._refuse_unknown()
        found = ((name, self._find(name)) for name in self._fields)
        return {name: hit for name, hit in found if hit is not None}

    def _find(self, name: str) -> Found | None:
        prefixes = [self._prefix]
        if name in self._common and self._prefix != COMMON_PREFIX:
            prefixes.append(COMMON_PREFIX)
        for prefix in prefixes:
            hit = self._find_env(prefix + name.upper(), name)
            if hit is not None:
                return hit
        return self._find_table(name)

    def _find_env(self, key: str, name: str) -> Found | None:
        if key in self._environ:
            return Found(self._decode(key, name, self._environ[key]), f"env {key}")
        path = self._environ.get(key + _FILE_SUFFIX)
        # `log_file` is a field of its own and no file with the value of `log`.
        if path is None or f"{name}_file" in self._fields:
            return None
        try:
            text = Path(path).read_text("utf-8").strip()
        except OSError as error:
            raise SettingsError(
                f"{key}{_FILE_SUFFIX}: cannot read {path}: {error.strerror}"
            ) from error
        return Found(self._decode(key, name, text), f"file {path}")

    def _find_table(self, name: str) -> Found | None:
        for section in (self._service(), "common"):
            if name in self._tables.get(section, {}):
                value = self._tables[section][name]
                return Found(value, f"file {self._environ[CONFIG_KEY]} [{section}]")
        return None

    def _decode(self, key: str, name: str, text: str) -> Any:
        """Return `text`, or the JSON in it where the field holds a list or a mapping."""
        if not _is_structured(self._fields[name]):
            return text
        try:
            return json.loads(text)
        except ValueError as error:
            raise SettingsError(f"{key}: must be JSON, for example a list in brackets") from error

    def _service(self) -> str:
        return self._prefix.removeprefix(COMMON_PREFIX).rstrip("_").lower() or "common"

    def _read_config(self) -> dict[str, dict[str, Any]]:
        path = self._environ.get(CONFIG_KEY)
        if not path:
            return {}
        try:
            tables = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"{CONFIG_KEY}: cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: is not valid TOML: {error}") from error
        loose = next((key for key, value in tables.items() if not isinstance(value, dict)), None)
        if loose is not None:
            raise SettingsError(f"{path}: {loose} must stand in a table such as [common]")
        return tables

    def _refuse_unknown(self) -> None:
        for key in sorted(self._environ):
            self._refuse_unknown_key(key)
        for section, known in ((self._service(), self._fields), ("common", self._common)):
            for name in self._tables.get(section, {}):
                if name not in known:
                    place = f"{self._environ[CONFIG_KEY]} [{section}] {name}"
                    raise SettingsError(f"unknown setting {place}{_hint(name, known)}")

    def _refuse_unknown_key(self, key: str) -> None:
        # `ECHOMESH_MEMORY_TARGET` is every service's `memory_target`, memory's own too.
        if _known(key.removeprefix(COMMON_PREFIX), self._common):
            return
        if self._prefix != COMMON_PREFIX and key.startswith(self._prefix):
            name = key.removeprefix(self._prefix)
            if not _known(name, self._fields):
                raise SettingsError(
                    f"unknown setting {key}{_hint(name, self._fields, self._prefix)}"
                )
        elif key.startswith(COMMON_PREFIX):
            name = key.removeprefix(COMMON_PREFIX)
            hint = _hint(name, self._common, COMMON_PREFIX)
            # Other services' keys stand here too: only what looks like a typing error is refused.
            if hint:
                raise SettingsError(f"unknown setting {key}{hint}")


def _known(name: str, fields: Collection[str]) -> bool:
    lower = name.lower()
    return lower in fields or lower.removesuffix(_FILE_SUFFIX.lower()) in fields


def _hint(name: str, fields: Collection[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name.lower(), fields, n=1, cutoff=_TYPO_RATIO)
    if not close:
        return ""
    return f" (did you mean {prefix}{close[0].upper() if prefix else close[0]}?)"


def _is_structured(field: FieldInfo) -> bool:
    text = str(field.annotation)
    return any(kind in text for kind in ("list[", "dict[", "tuple[", "frozenset[", "set["))
