"""A scanner's findings, all of them mended or excepted for a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart.rendering import files, profile

# Check, and why it does not apply.
EXCEPTIONS = {
    "CKV_K8S_11": "a limit of CPU throttles replies; requests and HPA do the sharing",
    "CKV_K8S_15": "images are named by version or digest, which never change what they name",
    "CKV_K8S_21": "the namespace is Helm's to choose and stands in no template",
    "CKV_K8S_43": "every image may be given by digest; a chart cannot know the user's",
    "CKV2_K8S_5": "the two jobs' roles name one Secret each, with get and patch",
}
# Of single objects: the test pod serves nobody, two Jobs speak to the API server, and the official
# Postgres image has its own user.
OF_OBJECTS = {
    ("CKV_K8S_8", "Pod.default.echomesh-test"),
    ("CKV_K8S_9", "Pod.default.echomesh-test"),
    ("CKV_K8S_38", "Job.default.echomesh-bootstrap"),
    ("CKV_K8S_38", "Job.default.echomesh-keys"),
}
OF_THE_DEMO = {("CKV_K8S_40", "StatefulSet.default.echomesh-postgres")}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["demo", "production"])
def test_the_scanner_finds_nothing_that_is_not_excepted(name: str, tmp_path: Path) -> None:
    for template, text in files(profile(name)).items():
        if template.endswith(".yaml") and text.strip():
            (tmp_path / template.replace("/", "_")).write_text(text)
    command = [sys.executable, "-m", "checkov.main", "--directory", str(tmp_path)]
    command += ["--framework", "kubernetes", "--output", "json", "--quiet", "--compact"]
    command += ["--skip-check", ",".join(EXCEPTIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    failed = {
        (
            f["check_id"],
            f["resource"].partition("-keys-")[0] + "-keys" * ("-keys-" in f["resource"]),
        )
        for f in report["results"]["failed_checks"]
    }
    assert report["summary"]["passed"] > 300
    assert failed == (OF_OBJECTS | OF_THE_DEMO if name == "demo" else OF_OBJECTS)
