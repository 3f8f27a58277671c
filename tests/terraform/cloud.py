"""The modules applied, looked at and destroyed in a cloud of paper."""

from __future__ import annotations

import json
import threading
from typing import Any

import boto3

from tests.terraform.program import Terraform

FOLDER = "tests/terraform/paper"
REGION = "eu-central-1"


class Cycle(threading.Thread):
    """Applies, plans again and destroys, and notes what was there in between."""

    def __init__(self, terraform: Terraform, address: str) -> None:
        super().__init__(name="cloud", daemon=True)
        self._terraform, self._address = terraform, address
        self._error: BaseException | None = None
        self.seen: dict[str, Any] = {}
        """What the cloud said of itself once all was made, by service."""
        self.state = ""
        """Terraform's state then, as text."""
        self.changed: set[str] = set()
        """What a second plan would change."""
        self.left: list[str] = []
        """What the state holds after the end."""

    def run(self) -> None:
        """Go through it once; an error is kept for `finished`."""
        try:
            self._cycle()
        except BaseException as error:
            self._error = error

    def finished(self) -> Cycle:
        """Wait for the end; raises what went wrong."""
        self.join()
        if self._error:
            raise self._error
        return self

    def _cycle(self) -> None:
        run = self._terraform.run
        self._terraform.init(FOLDER)
        # Most of the time goes by in the provider's own waits for what AWS takes minutes to make.
        run(FOLDER, "apply", "-auto-approve", "-no-color", "-parallelism=30")
        self.state = run(FOLDER, "state", "pull")
        self.seen = self._look(json.loads(run(FOLDER, "output", "-json")))
        self.changed = changes(self._terraform.plan(FOLDER))
        run(FOLDER, "destroy", "-auto-approve", "-no-color", "-parallelism=30", "-refresh=false")
        self.left = run(FOLDER, "state", "list").split()

    def _look(self, outputs: dict[str, Any]) -> dict[str, Any]:
        value = {name: output["value"] for name, output in outputs.items()}
        eks, s3 = self._client("eks"), self._client("s3")
        groups = eks.list_nodegroups(clusterName=value["cluster"])["nodegroups"]
        secret = self._client("secretsmanager").get_secret_value(SecretId=value["password_secret"])
        return {
            "cluster": eks.describe_cluster(name=value["cluster"])["cluster"],
            "groups": [
                eks.describe_nodegroup(clusterName=value["cluster"], nodegroupName=name)
                for name in groups
            ],
            "database": self._client("rds").describe_db_instances()["DBInstances"][0],
            "encryption": s3.get_bucket_encryption(Bucket=value["bucket"]),
            "versioning": s3.get_bucket_versioning(Bucket=value["bucket"]),
            "password": secret["SecretString"],
        }

    def _client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, region_name=REGION, endpoint_url=self._address, **keys)


def changes(plan: dict[str, Any]) -> set[str]:
    """Addresses of the resources that a plan would make, change or end."""
    ignored = (["no-op"], ["read"])
    found = plan.get("resource_changes", [])
    return {one["address"] for one in found if one["change"]["actions"] not in ignored}
