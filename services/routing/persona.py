"""Who the companion is: a name, a style and boundaries from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.runtime.errors import AppError, Reason

DEFAULT_PERSONA = "default"
MAX_NAME_CHARS = 128
MAX_TEXT_CHARS = 2000
MAX_LINES = 20


@dataclass(frozen=True)
class Persona:
    """A character. `key` is the file's name; `style` and `boundaries` are short sentences."""

    key: str
    name: str
    style: tuple[str, ...]
    boundaries: tuple[str, ...]

    def prompt(self) -> str:
        """Return the system text; the same for every message, so that engines can cache it."""
        lines = [f"You are {self.name}, a companion who remembers earlier conversations."]
        lines += [f"- {line}" for line in self.style]
        lines += ["Boundaries:", *(f"- {line}" for line in self.boundaries)]
        return "\n".join(lines)


class PersonaError(ValueError):
    """A persona file that is not valid; the text names the file and the key."""


def parse_persona(key: str, text: str) -> Persona:
    """Return the persona of a TOML text with `name`, `style` and `boundaries`; strict on keys."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PersonaError(f"persona {key}: {error}") from error
    unknown = sorted(set(table) - {"name", "style", "boundaries"})
    if unknown:
        raise PersonaError(f"persona {key}: unknown key {unknown[0]!r}")
    return Persona(
        key, _name(key, table), _lines(key, table, "style"), _lines(key, table, "boundaries")
    )


def load_personas(folder: Path) -> dict[str, Persona]:
    """Return the personas of all `*.toml` files of `folder` by file name; one is the default."""
    personas = {
        path.stem: parse_persona(path.stem, path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.toml"))
    }
    if DEFAULT_PERSONA not in personas:
        raise PersonaError(f"{folder} holds no {DEFAULT_PERSONA}.toml")
    return personas


def pick_persona(personas: Mapping[str, Persona], key: str) -> Persona:
    """Return the persona asked for, the default for an empty key; NOT_FOUND for an unknown one."""
    persona = personas.get(key or DEFAULT_PERSONA)
    if persona is None:
        raise AppError(Reason.NOT_FOUND, "no such persona", metadata={"type": "persona"})
    return persona


def _name(key: str, table: Mapping[str, object]) -> str:
    name = table.get("name")
    if not isinstance(name, str) or not 0 < len(name.strip()) <= MAX_NAME_CHARS:
        raise PersonaError(
            f"persona {key}: name must be a text of 1 to {MAX_NAME_CHARS} characters"
        )
    return name.strip()


def _lines(key: str, table: Mapping[str, object], field: str) -> tuple[str, ...]:
    lines = table.get(field, [])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise PersonaError(f"persona {key}: {field} must be a list of texts")
    if len(lines) > MAX_LINES or sum(map(len, lines)) > MAX_TEXT_CHARS:
        raise PersonaError(f"persona {key}: {field} is longer than {MAX_TEXT_CHARS} characters")
    return tuple(line.strip() for line in lines)
