"""boto3 with its defaults (checksums, trailers over TLS, Expect) against a door: client_boto3.py URL TREE"""

from __future__ import annotations

import io
import sys
import urllib.request
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig

BUCKET = "judged"


def need(holds: object, what: str) -> None:
    if not holds:
        raise SystemExit(f"boto3: {what}")


def main(url: str, tree: Path) -> None:
    s3 = boto3.client("s3", endpoint_url=url)
    s3.create_bucket(Bucket=BUCKET)
    files = [path for path in sorted(tree.rglob("*")) if path.is_file()]
    small = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    for path in files:
        s3.upload_file(str(path), BUCKET, str(path.relative_to(tree)), Config=small)
    for path in files:
        found = io.BytesIO()
        s3.download_fileobj(BUCKET, str(path.relative_to(tree)), found)
        need(found.getvalue() == path.read_bytes(), f"{path.name} came back differently")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 3})
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    names = [str(path.relative_to(tree)) for path in files]
    need(keys == sorted(names, key=str.encode), "a listing is not all keys in order")
    s3.put_object(Bucket=BUCKET, Key="meta", Body=b"m", Metadata={"a": "1", "b": "ä"[:0]}, ContentType="text/x-test")
    head = s3.head_object(Bucket=BUCKET, Key="meta", ChecksumMode="ENABLED")
    need(head["Metadata"] == {"a": "1", "b": ""} and head["ContentType"] == "text/x-test", f"metadata: {head}")
    need(head.get("ChecksumCRC32"), "no checksum")
    s3.copy_object(Bucket=BUCKET, Key="copied key", CopySource={"Bucket": BUCKET, "Key": "odd names/per%cent"})
    need(s3.get_object(Bucket=BUCKET, Key="copied key")["Body"].read() == b"per%cent", "a copy differs")
    part = s3.get_object(Bucket=BUCKET, Key="copied key", Range="bytes=1-3")["Body"].read()
    need(part == b"er%", "a range differs")
    link = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "copied key"}, ExpiresIn=60)
    if url.startswith("http:"):
        with urllib.request.urlopen(link, timeout=30) as answer:
            need(answer.read() == b"per%cent", "a presigned URL gives something else")
    gone = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in [*keys, "meta", "copied key"]]})
    need(not gone.get("Errors"), f"deleting: {gone}")
    s3.delete_bucket(Bucket=BUCKET)
    print("upload and download in parts, list, metadata, checksums, copy, range, presign, delete")


main(sys.argv[1], Path(sys.argv[2]))
