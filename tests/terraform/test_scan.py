"""A scanner's findings, all of them mended or excepted for a reason."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

OWN_POLICY = (
    "a key's own policy: `*` is the key itself, which could else be locked out of all reach"
)
# Check and what it is about, and why it does not apply.
EXCEPTIONS = {
    ("CKV_AWS_39", "aws_eks_cluster.this"): "closed unless networks are named; all is refused",
    ("CKV_AWS_339", "aws_eks_cluster.this"): "the scanner knows the versions of its own day",
    ("CKV_AWS_161", "aws_db_instance.this"): "each service has a role and a password of its own",
    ("CKV_AWS_109", "aws_iam_policy_document.this"): OWN_POLICY,
    ("CKV_AWS_111", "aws_iam_policy_document.this"): OWN_POLICY,
    ("CKV_AWS_356", "aws_iam_policy_document.this"): OWN_POLICY,
    ("CKV_AWS_18", "aws_s3_bucket.this"): "CloudTrail's data events tell more, for the account",
    ("CKV2_AWS_62", "aws_s3_bucket.this"): "nobody waits to be told of a backup",
    ("CKV_AWS_144", "aws_s3_bucket.this"): "where people's data may be is theirs to say",
    ("CKV2_AWS_57", "aws_secretsmanager_secret.this"): "a higher password_version makes a new one "
    "in every place at once, which a rotation behind Terraform's back would not",
    ("CKV_AWS_338", "aws_cloudwatch_log_group.this"): "the small example keeps logs for 90 days",
    ("CKV_AWS_338", "aws_cloudwatch_log_group.flow"): "the small example keeps logs for 90 days",
}


@pytest.mark.timeout(600)
def test_the_scanner_finds_nothing_that_is_not_excepted(scan: Future[dict[str, Any]]) -> None:
    report = scan.result()
    found = {
        (one["check_id"], ".".join(one["resource"].split(".")[-2:]))
        for one in report["results"]["failed_checks"]
    }
    assert report["summary"]["passed"] > 300
    assert not report["summary"]["parsing_errors"]
    assert found == set(EXCEPTIONS)
