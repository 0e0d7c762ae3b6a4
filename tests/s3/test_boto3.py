"""boto3 with its default settings does its daily work."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from tests.s3.conftest import S3, in_thread


def boto(s3: S3) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=s3.url,
        region_name="us-east-1",
        aws_access_key_id=s3.client.access_key,
        aws_secret_access_key=s3.client.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def test_put_get_head_list_delete(s3: S3) -> None:
    body = bytes(range(256)) * 5000

    def work() -> None:
        client = boto(s3)
        client.create_bucket(Bucket="my-files")
        put = client.put_object(
            Bucket="my-files", Key="a/image.jpg", Body=body, ContentType="image/jpeg", Metadata={"Colour": "blau"}
        )
        assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        assert put["ChecksumCRC32"]
        got = client.get_object(Bucket="my-files", Key="a/image.jpg")
        assert got["Body"].read() == body
        assert got["ContentType"] == "image/jpeg"
        assert got["Metadata"] == {"colour": "blau"}
        part = client.get_object(Bucket="my-files", Key="a/image.jpg", Range="bytes=10-19")
        assert part["Body"].read() == body[10:20]
        assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
        head = client.head_object(Bucket="my-files", Key="a/image.jpg", ChecksumMode="ENABLED")
        assert head["ContentLength"] == len(body)
        assert head["ChecksumCRC32"] == put["ChecksumCRC32"]
        assert [b["Name"] for b in client.list_buckets()["Buckets"]] == ["my-files"]
        listed = client.list_objects_v2(Bucket="my-files")["Contents"]
        assert [(o["Key"], o["Size"], o["ETag"]) for o in listed] == [("a/image.jpg", len(body), put["ETag"])]
        assert client.get_bucket_location(Bucket="my-files")["LocationConstraint"] is None
        client.delete_object(Bucket="my-files", Key="a/image.jpg")
        with pytest.raises(botocore.exceptions.ClientError) as error:
            client.head_object(Bucket="my-files", Key="a/image.jpg")
        assert error.value.response["Error"]["Code"] == "404"
        client.delete_bucket(Bucket="my-files")
        with pytest.raises(client.exceptions.NoSuchBucket):
            client.list_objects_v2(Bucket="my-files")

    await in_thread(work)


async def test_files_up_and_down_below_the_multipart_limit(s3: S3) -> None:
    body = bytes(7 << 20)

    def work() -> None:
        client = boto(s3)
        client.create_bucket(Bucket="bkt")
        client.upload_fileobj(io.BytesIO(body), "bkt", "big file +ü.bin")
        out = io.BytesIO()
        client.download_fileobj("bkt", "big file +ü.bin", out)
        assert out.getvalue() == body

    await in_thread(work)


async def test_delete_objects_and_pages(s3: S3) -> None:
    def work() -> None:
        client = boto(s3)
        client.create_bucket(Bucket="bkt")
        keys = [f"d{i % 3}/k {i:03}é" for i in range(60)]
        for key in keys:
            client.put_object(Bucket="bkt", Key=key, Body=key.encode())
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="bkt", PaginationConfig={"PageSize": 7})
        assert [o["Key"] for page in pages for o in page["Contents"]] == sorted(keys)
        top = client.list_objects_v2(Bucket="bkt", Delimiter="/")
        assert [p["Prefix"] for p in top["CommonPrefixes"]] == ["d0/", "d1/", "d2/"]
        v1 = client.get_paginator("list_objects").paginate(Bucket="bkt", Prefix="d1/", PaginationConfig={"PageSize": 6})
        assert [o["Key"] for page in v1 for o in page["Contents"]] == [k for k in sorted(keys) if k.startswith("d1/")]
        gone = client.delete_objects(Bucket="bkt", Delete={"Objects": [{"Key": key} for key in keys]})
        assert sorted(o["Key"] for o in gone["Deleted"]) == sorted(keys)
        assert client.list_objects_v2(Bucket="bkt")["KeyCount"] == 0

    await in_thread(work)


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
async def test_checksums_asked_for_are_kept_and_given_back(s3: S3, algorithm: str) -> None:
    def work() -> None:
        client = boto(s3)
        client.create_bucket(Bucket="bkt")
        put = client.put_object(Bucket="bkt", Key="k", Body=b"hello", ChecksumAlgorithm=algorithm)
        got = client.get_object(Bucket="bkt", Key="k", ChecksumMode="ENABLED")
        assert got["Body"].read() == b"hello"
        assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]

    await in_thread(work)


async def test_presigned_urls_of_version_four_work(s3: S3) -> None:
    def work() -> None:
        client = boto3.client(
            "s3",
            endpoint_url=s3.url,
            region_name="us-east-1",
            aws_access_key_id=s3.client.access_key,
            aws_secret_access_key=s3.client.secret_key,
            config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}),
        )
        client.create_bucket(Bucket="bkt")
        put = client.generate_presigned_url("put_object", {"Bucket": "bkt", "Key": "ä b"}, ExpiresIn=60)
        assert s3.client.send("PUT", put.removeprefix(s3.url), {"host": s3.address}, b"xyz").status == 200
        get = client.generate_presigned_url("get_object", {"Bucket": "bkt", "Key": "ä b"}, ExpiresIn=60)
        assert s3.client.send("GET", get.removeprefix(s3.url), {"host": s3.address}).body == b"xyz"

    await in_thread(work)


REFUSALS = ("NotImplemented", "AccessControlListNotSupported", "InvalidArgument")


async def test_what_is_not_done_here_is_refused(s3: S3) -> None:
    def work() -> None:
        client = boto(s3)
        client.create_bucket(Bucket="bkt")
        client.put_object(Bucket="bkt", Key="k", Body=b"x")
        for call in (
            lambda: client.put_bucket_versioning(Bucket="bkt", VersioningConfiguration={"Status": "Enabled"}),
            lambda: client.put_object(Bucket="bkt", Key="k", Body=b"y", ACL="public-read"),
            lambda: client.put_object(Bucket="bkt", Key="k", Body=b"y", ServerSideEncryption="AES256"),
            lambda: client.put_object_legal_hold(Bucket="bkt", Key="k", LegalHold={"Status": "ON"}),
            lambda: client.put_bucket_lifecycle_configuration(Bucket="bkt", LifecycleConfiguration={"Rules": []}),
            lambda: client.delete_object(Bucket="bkt", Key="k", VersionId="v1"),
        ):
            with pytest.raises(botocore.exceptions.ClientError) as error:
                call()
            assert error.value.response["Error"]["Code"] in REFUSALS
        assert client.get_object(Bucket="bkt", Key="k")["Body"].read() == b"x"

    await in_thread(work)
