"""A copy of the modules, Terraform to run in it, and `moto`, which answers as AWS would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

# moto reads it once: roles may then have AWS' own policies.
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"

from moto.server import ThreadedMotoServer

from tests.terraform import helm_interface, program, provider
from tests.terraform.cloud import Cycle
from tests.terraform.program import MissingError, Terraform

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = "terraform/modules/key"
"""Where the provider of AWS is installed first."""
COPIED = ("terraform", "charts", "tests/terraform/paper")
COMMON = {"region": "eu-central-1", "api_cidrs": ["203.0.113.7/32"], "image_tag": "1.0.0"}
GPU = {"model": "/models/qwen3-4b"}
VARIANTS: dict[str, dict[str, Any]] = {"small": {}, "production": {"gpu": GPU}}
"""The examples that are planned, and what they are told beside COMMON."""


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """The address of a cloud of paper."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def terraform(aws: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    """Terraform in a copy of the repository's modules, so that nothing is left in them."""
    root = tmp_path_factory.mktemp("terraform")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, root / folder)
    env = {
        "TF_CLI_CONFIG_FILE": str(program.configuration(root)),
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "AWS_ENDPOINT_URL": aws,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with ExitStack() as stack:
        if not program.has_helm():
            env["TF_REATTACH_PROVIDERS"] = stack.enter_context(helm_interface.serving())
        try:
            runner = Terraform(root, env=env)
            runner.init(INSTALLED)
        except MissingError as error:
            pytest.skip(str(error))
        yield runner


@contextmanager
def with_one_provider(terraform: Terraform) -> Iterator[Terraform]:
    """The same with one provider of AWS for all its runs."""
    others = json.loads(terraform.env.get("TF_REATTACH_PROVIDERS", "{}"))
    # The cloud of paper speaks HTTP; and given a bundle, the provider cannot be configured twice.
    env = {**os.environ, **terraform.env, "AWS_CA_BUNDLE": ""}
    with provider.serving(terraform.root / INSTALLED, env) as served:
        yield terraform.having(TF_REATTACH_PROVIDERS=json.dumps(others | served))


@pytest.fixture(scope="session")
def attached(terraform: Terraform) -> Iterator[Terraform]:
    """Terraform for what needs the provider's schema alone: it may run side by side."""
    with with_one_provider(terraform) as runner:
        yield runner


@pytest.fixture(scope="session")
def workers() -> Iterator[ThreadPoolExecutor]:
    """What works beside the cycle, which mostly waits."""
    pool = ThreadPoolExecutor(2)
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def scan(workers: ThreadPoolExecutor) -> Future[dict[str, Any]]:
    """A scanner's report on the modules."""
    return workers.submit(scanned)


def scanned() -> dict[str, Any]:
    """Scan the examples: they use every module, and say with what."""
    command = [sys.executable, "-m", "checkov.main", "--directory", "terraform/examples"]
    command += ["--framework", "terraform", "--output", "json", "--quiet", "--compact"]
    command += ["--skip-download"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="session")
def plans(
    terraform: Terraform, attached: Terraform, workers: ThreadPoolExecutor
) -> dict[str, Future[dict[str, Any]]]:
    """The examples' plans, each by a provider of its own."""

    def planned(name: str) -> dict[str, Any]:
        folder = f"terraform/examples/{name}"
        terraform.init(folder)
        return terraform.plan(folder, shown_by=attached, **COMMON, **VARIANTS[name])

    return {name: workers.submit(planned, name) for name in VARIANTS}


@pytest.fixture(scope="session")
def module_tests(
    request: pytest.FixtureRequest, attached: Terraform, workers: ThreadPoolExecutor
) -> dict[str, Future[str]]:
    """What `terraform test` says in each folder that is asked about."""

    def tested(folder: str) -> str:
        attached.init(folder)
        return attached.run(folder, "test", "-no-color")

    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    calls = (item.callspec.params for item in items if hasattr(item, "callspec"))
    folders = [params["folder"] for params in calls if "folder" in params]
    return {folder: workers.submit(tested, folder) for folder in folders}


@pytest.fixture(scope="session")
def cycle(terraform: Terraform, aws: str) -> Iterator[Cycle]:
    """Everything made and unmade in the cloud of paper."""
    with with_one_provider(terraform) as runner:
        running = Cycle(runner, aws)
        running.start()
        yield running
        running.join()


# The longest first.
EARLY = {
    "test_stack.py": "cycle",
    "test_scan.py": "scan",
    "test_examples.py": "plans",
    "test_modules.py": "module_tests",
}


@pytest.fixture(scope="session", autouse=True)
def _early(request: pytest.FixtureRequest) -> None:
    """Begin what takes long before its tests come, if they do."""
    files = {item.path.name for item in request.session.items}
    for file, fixture in EARLY.items():
        with suppress(pytest.skip.Exception):  # whose tests say so themselves
            if file in files:
                request.getfixturevalue(fixture)
