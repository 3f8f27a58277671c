"""`echomesh config`: each service's settings in force, and where each came from."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from services.cli.files import CommandError, read_mesh
from services.cli.plan import SERVICES, Layout, Plan
from services.runtime.settings import PORT_BASE, ServiceSettings, SettingsError


def in_force(data: Path) -> Iterator[str]:
    """Lines of "service.setting = value  (origin)"; raises CommandError for unknown keys."""
    plan = Plan(Layout(data.resolve()), _port_base(data))
    for name in SERVICES:
        environ = {**os.environ, **plan.environment(name, {})}
        try:
            settings = settings_class(name).load(environ)
        except SettingsError as error:
            raise CommandError(str(error)) from None
        for setting in settings.origins(environ):
            yield f"{name}.{setting.name} = {setting.value}  ({setting.origin})"


def settings_class(service: str) -> type[ServiceSettings]:
    """The settings of a service: the one subclass that its `config` module defines."""
    module = importlib.import_module(f"services.{service}.config")
    for value in vars(module).values():
        own = isinstance(value, type) and value.__module__ == module.__name__
        if own and issubclass(value, ServiceSettings):
            return cast("type[ServiceSettings]", value)
    raise CommandError(f"services.{service}.config defines no settings")


def _port_base(data: Path) -> int:
    """The running mesh's first port, or the default."""
    try:
        address = read_mesh(data).address
    except CommandError:
        return PORT_BASE
    return int(address.rpartition(":")[2])
