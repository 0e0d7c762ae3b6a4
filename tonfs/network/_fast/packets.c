/* Packet work of one ADNL channel, a batch a call: see tonfs/network/lane.py for the meaning of every function and
 * tonfs/network/lane_python.py for the same thing in Python, which must give the same bytes.
 *
 * Buffers in, buffers out: no files, sockets, threads or timers. Every length is checked before it is used. libcrypto
 * is the one that Python's _hashlib has loaded; its functions are declared here, so no OpenSSL headers are needed.
 */

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

#include "packets.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the wire is little-endian and so must be the machine; the Python twin works everywhere"
#endif

enum { VERSION = 3 }; /* raise it with every change of packets.h or of what a function means */
enum { SYMBOL = 768, DATAGRAM = 952, PLAIN = 888, PART = 840, HEAD = 64, KEY = 60, MAX_DATAGRAM = 2048, NOISE = 14 };
enum { MAX_ESI = 1 << 24, MAX_CUSTOM = 1024, SINKS = 256, CONFIRMS = 64, CONFIRM = 52, CONFIRM_EVERY = 32 };

/* kinds of tf_opened */
enum { END = 0, STRAY = 1, PLAIN_UP = 2, CUSTOM_UP = 3, DONE = 4, PAUSE = 5 };

static const uint8_t PACKET_ID[4] = {0x89, 0xcd, 0x42, 0xd1};
static const uint8_t CUSTOM_ID[4] = {0xf5, 0x18, 0x48, 0x20};
static const uint8_t PART_ID[4] = {0x6e, 0x0b, 0x48, 0x11};
static const uint8_t CONFIRM_ID[4] = {0x45, 0x99, 0xe6, 0x23};
static const uint8_t PART_LENGTH[4] = {0xfe, PART & 0xff, PART >> 8, 0};
static const uint8_t SYMBOL_LENGTH[4] = {0xfe, SYMBOL & 0xff, SYMBOL >> 8, 0};

/* packetContents flags: one message, seqno and confirm_seqno must be there; two versions and two dates may. */
enum { F_NEEDED = 0x4 | 0x40 | 0x80, F_VERSION = 0x100, F_PRIORITY = 0x200, F_REINIT = 0x400 };

/* libcrypto */

typedef struct evp_md_ctx EVP_MD_CTX;
typedef struct evp_cipher_ctx EVP_CIPHER_CTX;
static EVP_MD_CTX *(*md_new)(void);
static const void *(*md_sha256)(void);
static int (*md_init)(EVP_MD_CTX *, const void *, void *);
static int (*md_update)(EVP_MD_CTX *, const void *, size_t);
static int (*md_final)(EVP_MD_CTX *, uint8_t *, unsigned *);
static EVP_CIPHER_CTX *(*cipher_new)(void);
static const void *(*cipher_ctr)(void);
static int (*cipher_init)(EVP_CIPHER_CTX *, const void *, void *, const uint8_t *, const uint8_t *);
static int (*cipher_update)(EVP_CIPHER_CTX *, uint8_t *, int *, const uint8_t *, int);

/* One context a thread, its algorithm set once: setting it anew for each packet costs more than the packet. */
static __thread EVP_MD_CTX *md;
static __thread EVP_CIPHER_CTX *cipher;

static int find(void *lib, const char *name, void *slot)
{
    void *found = dlsym(lib, name);
    memcpy(slot, &found, sizeof found);
    return found != NULL;
}

static void octets_start(void);

/* What `tonfs/network/lane_native.py` compares with the version that it was written for. */
int tf_version(void)
{
    return VERSION;
}

/* 0 when libcrypto was found and works. */
int tf_start(const char *libcrypto)
{
    void *lib = dlopen(libcrypto, RTLD_NOW | RTLD_LOCAL);
    if (lib == NULL)
        return 1;
    if (!find(lib, "EVP_MD_CTX_new", &md_new) || !find(lib, "EVP_sha256", &md_sha256) ||
        !find(lib, "EVP_DigestInit_ex", &md_init) || !find(lib, "EVP_DigestUpdate", &md_update) ||
        !find(lib, "EVP_DigestFinal_ex", &md_final) || !find(lib, "EVP_CIPHER_CTX_new", &cipher_new) ||
        !find(lib, "EVP_aes_256_ctr", &cipher_ctr) || !find(lib, "EVP_EncryptInit_ex", &cipher_init) ||
        !find(lib, "EVP_EncryptUpdate", &cipher_update)) {
        md_new = NULL;
        return 2;
    }
    octets_start();
    return 0;
}

static int ready(void)
{
    static const uint8_t zeros[32];
    if (md != NULL && cipher != NULL)
        return 1;
    if (md_new == NULL)
        return 0;
    if (md == NULL) {
        EVP_MD_CTX *made = md_new();
        if (made == NULL || md_init(made, md_sha256(), NULL) != 1)
            return 0;
        md = made;
    }
    EVP_CIPHER_CTX *made = cipher_new();
    if (made == NULL || cipher_init(made, cipher_ctr(), NULL, zeros, zeros) != 1)
        return 0;
    cipher = made;
    return 1;
}

static int digest(const uint8_t *data, size_t length, uint8_t *out)
{
    return md_init(md, NULL, NULL) == 1 && md_update(md, data, length) == 1 && md_final(md, out, NULL) == 1;
}

/* AES-256-CTR by the rule of reference protocol 2.3; encrypting and decrypting are the same. */
static int ctr(const uint8_t *secret, const uint8_t *hash, const uint8_t *in, uint8_t *out, int length)
{
    uint8_t key[32], iv[16];
    int done = 0;
    memcpy(key, secret, 16);
    memcpy(key + 16, hash + 16, 16);
    memcpy(iv, hash, 4);
    memcpy(iv + 4, secret + 20, 12);
    return cipher_init(cipher, NULL, NULL, key, iv) == 1 && cipher_update(cipher, out, &done, in, length) == 1 &&
           done == length;
}

static uint32_t load32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

static int64_t load64(const uint8_t *at)
{
    int64_t value;
    memcpy(&value, at, 8);
    return value;
}

/* Sinks: where the symbols of one part go. */

/* 0: taken or not needed; 1: all source symbols are here, or it is time to solve; 2: no room for it. */
int tf_sink_put(tf_sink *sink, uint32_t esi, const uint8_t *symbol)
{
    uint32_t slot = esi, i;
    if (esi >= MAX_ESI)
        return 2;
    if (esi >= sink->max_seqno) {
        uint32_t ahead = esi + 1 - sink->max_seqno;
        sink->mask = ahead < 32 ? sink->mask << ahead | 1 : 1;
        sink->max_seqno = esi + 1;
    } else if (sink->max_seqno - 1 - esi < 32) {
        sink->mask |= (uint32_t)1 << (sink->max_seqno - 1 - esi);
    }
    sink->unconfirmed++;
    if (esi < sink->k) {
        if (sink->seen[esi])
            return 0;
        sink->seen[esi] = 1;
        sink->sources++;
    } else {
        uint32_t extras = sink->received - sink->sources;
        for (i = 0; i < extras; i++)
            if (sink->esi[i] == esi)
                return 0;
        if (extras >= sink->room)
            return 2;
        sink->esi[extras] = esi;
        slot = sink->k + extras;
    }
    memcpy(sink->data + (size_t)slot * SYMBOL, symbol, SYMBOL);
    sink->received++;
    return sink->sources == sink->k || sink->received >= sink->stop_at;
}

/* An rldp2.confirm of 52 bytes. */
void tf_sink_confirm(tf_sink *sink, uint8_t *out)
{
    memcpy(out, CONFIRM_ID, 4);
    memcpy(out + 4, sink->key, 32);
    memcpy(out + 36, sink->key + 48, 4);
    memcpy(out + 40, &sink->max_seqno, 4);
    memcpy(out + 44, &sink->mask, 4);
    memcpy(out + 48, &sink->received, 4);
    sink->unconfirmed = 0;
    sink->confirmed = sink->max_seqno;
}

int tf_watch(tf_lane *lane, tf_sink *sink)
{
    if (lane->sinks >= SINKS)
        return 0;
    sink->stamp = lane->stamp;
    lane->sink[lane->sinks++] = sink;
    return 1;
}

void tf_unwatch(tf_lane *lane, tf_sink *sink)
{
    uint32_t i;
    for (i = 0; i < lane->sinks; i++)
        if (lane->sink[i] == sink) {
            lane->sink[i] = lane->sink[--lane->sinks];
            return;
        }
}

/* Sequence numbers (reference protocol 2.4, rules 5 and 6). */

static int accepted(tf_lane *lane, int64_t confirm)
{
    lane->confirmed = confirm;
    if (confirm > lane->out_seqno)
        lane->out_seqno = confirm;
    return 1;
}

static void shift(uint64_t *window, int64_t by)
{
    int words = (int)(by >> 6), bits = (int)(by & 63), i;
    for (i = 3; i >= 0; i--) {
        uint64_t low = i - words >= 0 ? window[i - words] : 0;
        uint64_t carry = i - words - 1 >= 0 ? window[i - words - 1] : 0;
        window[i] = bits ? low << bits | carry >> (64 - bits) : low;
    }
}

int tf_accept(tf_lane *lane, int64_t seqno, int64_t confirm)
{
    int64_t ahead;
    if (seqno < 1 || confirm < 0 || (confirm > lane->out_seqno && confirm > lane->promised))
        return 0;
    ahead = seqno - lane->in_seqno; /* no overflow: both are at least 0 */
    if (ahead > 0) {
        if (ahead < 256)
            shift(lane->window, ahead);
        else
            memset(lane->window, 0, sizeof lane->window);
        lane->window[0] |= 1;
        lane->in_seqno = seqno;
        return accepted(lane, confirm);
    }
    if (ahead <= -256 || lane->window[-ahead >> 6] >> (-ahead & 63) & 1)
        return 0;
    lane->window[-ahead >> 6] |= (uint64_t)1 << (-ahead & 63);
    return accepted(lane, confirm);
}

/* Sealing. */

static int seal(tf_lane *lane, const uint8_t *plain, int length, uint8_t *out)
{
    memcpy(out, lane->out_id, 32);
    return digest(plain, length, out + 32) && ctr(lane->out_key, out + 32, plain, out + 64, length);
}

static uint8_t *put_start(uint8_t *at, const uint8_t *noise)
{
    uint32_t flags = F_NEEDED;
    memcpy(at, PACKET_ID, 4);
    at[4] = 7;
    memcpy(at + 5, noise, 7);
    memcpy(at + 12, &flags, 4);
    memcpy(at + 16, CUSTOM_ID, 4);
    return at + 20;
}

static uint8_t *put_end(tf_lane *lane, uint8_t *at, const uint8_t *noise)
{
    lane->out_seqno++;
    memcpy(at, &lane->out_seqno, 8);
    memcpy(at + 8, &lane->in_seqno, 8);
    at[16] = 7;
    memcpy(at + 17, noise + 7, 7);
    return at + 24;
}

/* Symbols first .. first+count-1, which lie at `offset` of `source` (zeros behind its end); 0 when all went well. */
int tf_seal_parts(tf_lane *lane, const uint8_t *head, const uint8_t *source, uint64_t length, uint64_t offset,
                  uint32_t first, uint32_t count, const uint8_t *noise, uint8_t *out)
{
    uint8_t plain[PLAIN];
    uint32_t i;
    if (!ready())
        return 1;
    for (i = 0; i < count; i++, noise += NOISE, out += DATAGRAM, offset += SYMBOL) {
        uint64_t left = offset < length ? length - offset : 0;
        uint32_t esi = first + i;
        uint8_t *at = put_start(plain, noise);
        memcpy(at, PART_LENGTH, 4);
        memcpy(at + 4, head, HEAD);
        memcpy(at + 4 + HEAD, &esi, 4);
        memcpy(at + 8 + HEAD, SYMBOL_LENGTH, 4);
        at += 12 + HEAD;
        if (left >= SYMBOL) {
            memcpy(at, source + offset, SYMBOL);
        } else {
            memset(at, 0, SYMBOL);
            if (left)
                memcpy(at, source + offset, left);
        }
        put_end(lane, at + SYMBOL, noise);
        if (!seal(lane, plain, PLAIN, out))
            return 1;
    }
    return 0;
}

/* One custom message of at most 1024 bytes; length of the datagram, or 0. */
int tf_seal_custom(tf_lane *lane, const uint8_t *data, uint32_t length, const uint8_t *noise, uint8_t *out)
{
    uint8_t plain[MAX_CUSTOM + 64];
    uint8_t *at;
    uint32_t prefix = length < 254 ? 1 : 4, padding;
    if (length > MAX_CUSTOM || !ready())
        return 0;
    at = put_start(plain, noise);
    at[0] = length < 254 ? length : 0xfe;
    if (prefix == 4) {
        at[1] = length & 0xff;
        at[2] = length >> 8;
        at[3] = 0;
    }
    memcpy(at + prefix, data, length);
    padding = -(prefix + length) & 3;
    memset(at + prefix + length, 0, padding);
    at = put_end(lane, at + prefix + length + padding, noise);
    return seal(lane, plain, (int)(at - plain), out) ? (int)(at - plain) + 64 : 0;
}

/* Opening. */

/* A TL length of a short field (at most 64 bytes); size of the whole field, or 0. */
static int noise_size(const uint8_t *at, int left)
{
    int size;
    if (left < 4 || at[0] > 64)
        return 0;
    size = (at[0] + 4) & ~3;
    return size <= left ? size : 0;
}

/* A packet that holds one custom message, seqno, confirm_seqno and nothing that matters besides: 1, and where things
 * are. Everything else: 0. */
static int find_custom(const uint8_t *plain, int size, int *start, int *length, int64_t *seqno, int64_t *confirm)
{
    int at, rand, flags, prefix, end;
    if (size < 16 || memcmp(plain, PACKET_ID, 4) != 0 || !(rand = noise_size(plain + 4, size - 4)))
        return 0;
    at = 4 + rand;
    if (at + 12 > size)
        return 0;
    flags = (int)load32(plain + at);
    if ((flags & ~(F_VERSION | F_PRIORITY | F_REINIT)) != F_NEEDED || memcmp(plain + at + 4, CUSTOM_ID, 4) != 0)
        return 0;
    at += 8;
    if (plain[at] == 0xff)
        return 0;
    prefix = plain[at] == 0xfe ? 4 : 1;
    *length = prefix == 4 ? (int)(load32(plain + at) >> 8) : plain[at];
    *start = at + prefix;
    if (*length > size - *start)
        return 0;
    end = at + ((prefix + *length + 3) & ~3);
    if (end + 16 > size)
        return 0;
    *seqno = load64(plain + end);
    *confirm = load64(plain + end + 8);
    end += 16 + (flags & F_VERSION ? 4 : 0) + (flags & F_PRIORITY ? 4 : 0) + (flags & F_REINIT ? 8 : 0);
    if (end > size || !(rand = noise_size(plain + end, size - end)))
        return 0;
    return end + rand == size;
}

static tf_sink *find_sink(tf_lane *lane, const uint8_t *key)
{
    uint32_t i;
    for (i = 0; i < lane->sinks; i++)
        if (memcmp(lane->sink[i]->key, key, KEY) == 0) {
            tf_sink *found = lane->sink[i];
            if (i > 0) { /* symbols come in trains: the last one found stands in front */
                lane->sink[i] = lane->sink[0];
                lane->sink[0] = found;
            }
            return found;
        }
    return NULL;
}

/* A symbol for a sink that is watched: 0 when it was taken, DONE when the sink needs attention, -1 for all else. */
static int take_symbol(tf_lane *lane, const uint8_t *custom, int length, const uint8_t *noise, tf_opened *result)
{
    tf_counts *counts = &result->counts;
    tf_sink *sink;
    uint32_t esi;
    if (length != PART || memcmp(custom, PART_ID, 4) != 0 || memcmp(custom + 68, SYMBOL_LENGTH, 4) != 0)
        return -1;
    esi = load32(custom + 64);
    if (esi >= MAX_ESI || (sink = find_sink(lane, custom + 4)) == NULL)
        return -1;
    if (sink->stamp != lane->stamp) {
        sink->stamp = lane->stamp;
        result->touched[counts->touched++] = sink->tag;
    }
    if (tf_sink_put(sink, esi, custom + 72)) {
        result->done = sink->tag;
        return DONE;
    }
    if (sink->unconfirmed >= CONFIRM_EVERY || sink->max_seqno - sink->confirmed >= CONFIRM_EVERY) {
        uint8_t confirm[CONFIRM];
        tf_sink_confirm(sink, confirm);
        tf_seal_custom(lane, confirm, CONFIRM, noise + NOISE * counts->sealed, result->sealed[counts->sealed]);
        counts->sealed++;
    }
    return 0;
}

/* A confirmation by the peer: kept for Python, the newest of each part. 0 when it was one. */
static int take_confirm(const uint8_t *custom, int length, tf_opened *result)
{
    tf_counts *counts = &result->counts;
    int i;
    if (length != CONFIRM || memcmp(custom, CONFIRM_ID, 4) != 0)
        return -1;
    for (i = 0; i < counts->acks; i++)
        if (memcmp(result->acks[i], custom, 40) == 0)
            break;
    if (i == counts->acks)
        counts->acks++;
    memcpy(result->acks[i], custom, CONFIRM);
    return 0;
}

/* Open the datagrams of `step` bytes between `at` and `end` until one needs Python. `noise` is for so many packets. */
int tf_open(tf_lane *lane, const uint8_t *buffer, int32_t at, int32_t end, int32_t step, const uint8_t *noise,
            int32_t noises, tf_opened *result)
{
    tf_counts *counts = &result->counts;
    memset(counts, 0, sizeof *counts);
    result->done = 0;
    counts->next = at;
    if (step < 1 || at < 0 || end < at || !ready())
        return 1;
    lane->stamp++;
    while (at < end) {
        const uint8_t *datagram = buffer + at;
        int size = step < end - at ? step : end - at, length = 0, start = 0, kind;
        uint8_t hash[32];
        int64_t seqno = 0, confirm = 0;
        if (size < 32 || memcmp(datagram, lane->in_id, 32) != 0) {
            counts->kind = STRAY;
            break;
        }
        if (counts->sealed >= noises || counts->sealed >= CONFIRMS || counts->acks >= CONFIRMS) {
            counts->kind = PAUSE;
            break;
        }
        at += size;
        counts->next = at;
        if (size < 64 || size > MAX_DATAGRAM ||
            !ctr(lane->in_key, datagram + 32, datagram + 64, result->plain, size - 64) ||
            !digest(result->plain, size - 64, hash) || memcmp(hash, datagram + 32, 32) != 0) {
            counts->bad++;
            continue;
        }
        if (!find_custom(result->plain, size - 64, &start, &length, &seqno, &confirm)) {
            counts->kind = PLAIN_UP;
            counts->length = size - 64;
            break;
        }
        if (!tf_accept(lane, seqno, confirm)) {
            counts->refused++;
            continue;
        }
        counts->accepted++;
        if (take_confirm(result->plain + start, length, result) == 0)
            continue;
        kind = take_symbol(lane, result->plain + start, length, noise, result);
        if (kind) {
            counts->kind = kind == DONE ? DONE : CUSTOM_UP;
            counts->start = start;
            counts->length = kind == DONE ? 0 : length;
            break;
        }
    }
    return 0;
}
