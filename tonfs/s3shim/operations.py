"""Which handler answers which operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from . import (
    handlers_bucket,
    handlers_copy,
    handlers_delete,
    handlers_get,
    handlers_list,
    handlers_put,
    handlers_tagging,
    handlers_upload,
    handlers_uploads,
)
from .door import Answer, Call
from .router import Operation

HANDLERS: Final[Mapping[Operation, Callable[[Call], Awaitable[Answer]]]] = {
    Operation.LIST_BUCKETS: handlers_bucket.list_buckets,
    Operation.CREATE_BUCKET: handlers_bucket.create_bucket,
    Operation.DELETE_BUCKET: handlers_bucket.delete_bucket,
    Operation.HEAD_BUCKET: handlers_bucket.head_bucket,
    Operation.GET_LOCATION: handlers_bucket.get_location,
    Operation.GET_VERSIONING: handlers_bucket.get_versioning,
    Operation.GET_BUCKET_ACL: handlers_bucket.get_bucket_acl,
    Operation.PUT_BUCKET_ACL: handlers_bucket.put_bucket_acl,
    Operation.GET_UNSET: handlers_bucket.get_unset,
    Operation.GET_BUCKET_TAGGING: handlers_tagging.get_bucket_tagging,
    Operation.PUT_BUCKET_TAGGING: handlers_tagging.put_bucket_tagging,
    Operation.DELETE_BUCKET_TAGGING: handlers_tagging.delete_bucket_tagging,
    Operation.LIST_V1: handlers_list.list_v1,
    Operation.LIST_V2: handlers_list.list_v2,
    Operation.LIST_VERSIONS: handlers_list.list_versions,
    Operation.LIST_UPLOADS: handlers_uploads.list_uploads,
    Operation.DELETE_OBJECTS: handlers_delete.delete_objects,
    Operation.PUT_OBJECT: handlers_put.put_object,
    Operation.COPY_OBJECT: handlers_copy.copy_object,
    Operation.GET_OBJECT: handlers_get.get_object,
    Operation.HEAD_OBJECT: handlers_get.head_object,
    Operation.DELETE_OBJECT: handlers_delete.delete_object,
    Operation.GET_ATTRIBUTES: handlers_get.get_attributes,
    Operation.GET_OBJECT_ACL: handlers_bucket.get_object_acl,
    Operation.PUT_OBJECT_ACL: handlers_bucket.put_object_acl,
    Operation.GET_TAGGING: handlers_tagging.get_tagging,
    Operation.PUT_TAGGING: handlers_tagging.put_tagging,
    Operation.DELETE_TAGGING: handlers_tagging.delete_tagging,
    Operation.CREATE_UPLOAD: handlers_upload.create_upload,
    Operation.UPLOAD_PART: handlers_upload.upload_part,
    Operation.UPLOAD_PART_COPY: handlers_copy.upload_part_copy,
    Operation.COMPLETE_UPLOAD: handlers_upload.complete_upload,
    Operation.ABORT_UPLOAD: handlers_uploads.abort_upload,
    Operation.LIST_PARTS: handlers_uploads.list_parts,
}


async def answer(call: Call, operation: Operation) -> Answer:
    """What changed shows in a mount before the client hears of it."""
    done = await HANDLERS[operation](call)
    kernel = call.door.namespace.kernel
    if kernel.mounted and call.request.method not in ("GET", "HEAD"):
        await call.door.slow(kernel.settle)
    return done
