"""The modules in a cloud of paper: made, looked at, planned again, ended."""

from __future__ import annotations

import pytest

from tests.terraform.cloud import Cycle

pytestmark = pytest.mark.timeout(900)

# What moto does not remember of what it was told, so that a second plan would say it again: how a
# cluster is accessed, and with the cluster what hangs on it; a parameter group's parameters;
# Performance Insights; the description of a rule that names a group.
FORGOTTEN_MODULES = ("module.cluster.", "module.backup_role.")
FORGOTTEN = {
    "module.database.aws_db_instance.this",
    "module.database.aws_db_parameter_group.this",
    'module.database.aws_vpc_security_group_ingress_rule.this["nodes"]',
}


def test_all_modules_can_be_made_and_ended(cycle: Cycle) -> None:
    assert not cycle.finished().left
    assert cycle.seen["cluster"]["status"] == "ACTIVE"


def test_the_password_is_in_the_secret_and_nowhere_in_the_state(cycle: Cycle) -> None:
    password = cycle.finished().seen["password"]
    assert len(password) == 40
    assert password.isalnum()
    assert cycle.seen["database"]["DBInstanceIdentifier"] in cycle.state
    assert password not in cycle.state


def test_what_is_stored_is_encrypted(cycle: Cycle) -> None:
    seen = cycle.finished().seen
    assert seen["database"]["StorageEncrypted"]
    assert not seen["database"]["PubliclyAccessible"]
    assert seen["cluster"]["encryptionConfig"][0]["resources"] == ["secrets"]
    (rule,) = seen["encryption"]["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert seen["versioning"]["Status"] == "Enabled"


def test_node_groups_have_the_images_of_their_hardware(cycle: Cycle) -> None:
    groups = [group["nodegroup"] for group in cycle.finished().seen["groups"]]
    images = {group["nodegroupName"].partition("-")[0]: group["amiType"] for group in groups}
    assert images == {"gpu": "BOTTLEROCKET_x86_64_NVIDIA", "mesh": "BOTTLEROCKET_x86_64"}


def test_a_second_run_changes_nothing_that_the_cloud_remembers(cycle: Cycle) -> None:
    changed = {one for one in cycle.finished().changed if not one.startswith(FORGOTTEN_MODULES)}
    assert changed <= FORGOTTEN
