// aws-sdk-js v3 against a door: streams go as aws-chunked with a trailer inside Transfer-Encoding: chunked.
import { createReadStream, readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import * as s3 from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

const [url, large] = process.argv.slice(2);
const Bucket = "judged";
const client = new s3.S3Client({ endpoint: url, region: "us-east-1", forcePathStyle: true });
const send = (command) => client.send(command);
const sha = (data) => createHash("sha256").update(data).digest("hex");
const need = (holds, what) => { if (!holds) { console.error(`aws-sdk-js: ${what}`); process.exit(1); } };

await send(new s3.CreateBucketCommand({ Bucket }));
const bytes = readFileSync(large);
await send(new s3.PutObjectCommand({ Bucket, Key: "buffer", Body: bytes, Metadata: { a: "1" } }));
const stream = () => Readable.from((function* () { for (let i = 0; i < bytes.length; i += 77777) yield bytes.subarray(i, i + 77777); })());
await send(new s3.PutObjectCommand({ Bucket, Key: "stream é+ %", Body: stream(), ContentLength: bytes.length }));
await new Upload({ client, params: { Bucket, Key: "parts", Body: createReadStream(large) }, partSize: 5 << 20 }).done();
for (const Key of ["buffer", "stream é+ %", "parts"]) {
  const got = await send(new s3.GetObjectCommand({ Bucket, Key, ChecksumMode: "ENABLED" }));
  need(sha(await got.Body.transformToByteArray()) === sha(bytes), `${Key} came back differently`);
}
const part = await send(new s3.GetObjectCommand({ Bucket, Key: "parts", Range: "bytes=5242870-5242889" }));
need(Buffer.compare(await part.Body.transformToByteArray(), bytes.subarray(5242870, 5242890)) === 0, "a range differs");
const listed = await send(new s3.ListObjectsV2Command({ Bucket }));
need(listed.Contents.map((c) => c.Key).join() === "buffer,parts,stream é+ %", "a listing differs");
const Objects = listed.Contents.map(({ Key }) => ({ Key }));
const gone = await send(new s3.DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
need(!gone.Errors, "deleting fails");
await send(new s3.DeleteBucketCommand({ Bucket }));
console.log("buffer, stream with trailer, parts, get with checksums, range, list, delete");
