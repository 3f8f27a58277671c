"""What is in each SDK's package, and that it is typed."""

from __future__ import annotations

import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts.generate import tool
from tests.conformance.packages import CLIENTS, ROOT, SDKS, Package

LICENSE = (ROOT / "LICENSE").read_bytes()
# A program that would not compile if an export or a type were missing or had changed.
PROGRAM = """\
import { Client, EchomeshError, type ChatOptions, type Frame, type Memory } from "echomesh";
import { ChatRole } from "echomesh/gen/echomesh/models/v1/models_pb";

using client = new Client("127.0.0.1:7400", { apiKey: "k", timeoutMs: 1_000 });
const options: ChatOptions = {
  tier: "fast",
  instructions: "You are a pirate.",
  history: [{ role: ChatRole.USER, content: "Ahoy?" }],
  messageKey: "k",
  toolChoice: "none",
  signal: AbortSignal.timeout(1_000),
};
export async function use(): Promise<string> {
  const user = client.asUser("alice");
  const memory: Memory = await user.remember("I like tea.", { time: new Date() });
  const frames: AsyncIterable<Frame> = user.chat("Hello!", options);
  try {
    for await (const frame of frames) if (frame.kind === "final") return frame.replyId + memory.id;
  } catch (error) {
    if (error instanceof EchomeshError) return `${error.code} ${error.retryAfterMs?.toFixed()}`;
  }
  // @ts-expect-error: there is no such tier
  user.chat("Hello!", { tier: "warp" });
  return "";
}
"""


def package(packages: dict[str, Package], name: str) -> Package:
    """The package of an SDK; the test skips where its language is not."""
    if name not in packages:
        pytest.skip(f"the tools of {name} are not on this machine")
    return packages[name]


@pytest.mark.parametrize("sdk", SDKS)
def test_an_sdk_brings_the_licence_along(sdk: str) -> None:
    assert (CLIENTS / sdk / "LICENSE").read_bytes() == LICENSE


def test_the_wheel_and_the_sdist_hold_the_client_its_types_and_its_licence(
    packages: dict[str, Package],
) -> None:
    wheel, sdist = package(packages, "python").built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (licence,) = [name for name in names if name.endswith("/licenses/LICENSE")]
        assert archive.read(licence) == LICENSE
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"echomesh", "buf"}
    stubs = {name for name in names if name.endswith("_pb2.py")}
    assert {"echomesh/py.typed", *(f"{name}i" for name in stubs)} <= names
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "echomesh/__init__.py"} <= files


def test_the_npm_package_holds_what_was_compiled_with_types_and_nothing_else(
    packages: dict[str, Package],
) -> None:
    (tarball,) = package(packages, "typescript").built
    with tarfile.open(tarball) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
        licence = archive.extractfile("package/LICENSE")
        assert licence is not None
        assert licence.read() == LICENSE
    compiled = {name for name in names if name.startswith("dist/")}
    assert names - compiled == {"LICENSE", "README.md", "package.json"}
    modules = {name.removesuffix(".js") for name in compiled if name.endswith(".js")}
    assert "dist/index" in modules
    assert compiled == {f"{name}{end}" for name in modules for end in (".js", ".d.ts")}


def test_the_types_of_the_npm_package_are_what_a_program_needs(
    packages: dict[str, Package],
) -> None:
    (tarball,) = package(packages, "typescript").built
    program = tarball.parent / "program.mts"
    program.write_text(PROGRAM)
    settings = {
        "compilerOptions": {
            "target": "es2022",
            "lib": ["es2023", "esnext.disposable"],
            "module": "nodenext",
            "strict": True,
            "noEmit": True,
        },
        "files": [program.name],
    }
    (tarball.parent / "tsconfig.json").write_text(json.dumps(settings))
    assert compile_in(tarball.parent) == ""


def compile_in(folder: Path) -> str:
    """What the compiler has to say of a folder."""
    compiler = CLIENTS / "typescript/node_modules/typescript/bin/tsc"
    command = [str(tool("node")), str(compiler), "--project", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
