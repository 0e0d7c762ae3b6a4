"""minio-py against a door: client_minio.py URL TREE"""

from __future__ import annotations

import os
import sys
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

BUCKET = "judged"


def need(holds: object, what: str) -> None:
    if not holds:
        raise SystemExit(f"minio-py: {what}")


def main(url: str, tree: Path) -> None:
    keys = {"access_key": os.environ["AWS_ACCESS_KEY_ID"], "secret_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
    client = Minio(endpoint=urlsplit(url).netloc, secure=url.startswith("https:"), region="us-east-1", **keys)
    need(not client.bucket_exists(bucket_name=BUCKET), "a bucket is there before it was made")
    client.make_bucket(bucket_name=BUCKET)
    files = [path for path in sorted(tree.rglob("*")) if path.is_file()]
    for path in files:
        name = str(path.relative_to(tree))
        client.fput_object(bucket_name=BUCKET, object_name=name, file_path=str(path), part_size=5 << 20)
    with TemporaryDirectory() as folder:
        for path in files:
            back = Path(folder) / "back"
            name = str(path.relative_to(tree))
            client.fget_object(bucket_name=BUCKET, object_name=name, file_path=str(back))
            need(back.read_bytes() == path.read_bytes(), f"{name} came back differently")
            back.unlink()
    listed = [item.object_name for item in client.list_objects(bucket_name=BUCKET, recursive=True)]
    need(sorted(listed) == sorted(str(path.relative_to(tree)) for path in files), "a listing misses keys")
    try:
        client.stat_object(bucket_name=BUCKET, object_name="absent")
        need(False, "what is absent has a stat")
    except S3Error as exc:
        need(exc.code == "NoSuchKey", f"what is absent is {exc.code}")
    source = CopySource(bucket_name=BUCKET, object_name="odd names/per%cent")
    client.copy_object(bucket_name=BUCKET, object_name="copy", source=source)
    link = client.presigned_get_object(bucket_name=BUCKET, object_name="copy")
    if url.startswith("http:"):
        with urllib.request.urlopen(link, timeout=30) as answer:
            need(answer.read() == b"per%cent", "a presigned URL gives something else")
    doomed = [DeleteObject(name) for name in [*listed, "copy"]]
    need(not list(client.remove_objects(bucket_name=BUCKET, delete_object_list=doomed)), "deleting fails")
    client.remove_bucket(bucket_name=BUCKET)
    print("bucket, put in parts, get, list, stat of nothing, copy, presign, delete")


main(sys.argv[1], Path(sys.argv[2]))
