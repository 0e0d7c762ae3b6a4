/* What Python sees of packets.c and symbols.c (read by cffi, so without preprocessor lines). Meaning: tonfs/network/lane.py.
 * All memory is Python's. */

typedef struct {
    uint8_t key[60];      /* the bytes of a messagePart from transfer id to total size: they name the part */
    uint32_t tag;         /* what `touched` and `done` call this sink */
    uint32_t k;           /* source symbols */
    uint32_t room;        /* extra symbols that fit */
    uint32_t received;    /* distinct symbols */
    uint32_t sources;     /* distinct source symbols */
    uint32_t max_seqno;   /* highest symbol number plus one */
    uint32_t mask;        /* bit i: symbol max_seqno - 1 - i came */
    uint32_t unconfirmed; /* symbols since the last confirmation */
    uint32_t confirmed;   /* max_seqno at the last confirmation */
    uint32_t stop_at;     /* number of distinct symbols that makes the reader stop for a solution */
    uint32_t stamp;
    uint32_t *esi;        /* room numbers: which extra symbols came */
    uint8_t *seen;        /* k bytes: 1 where a source symbol came */
    uint8_t *data;        /* 768 bytes for each of k source symbols, then of `room` extra ones */
} tf_sink;

typedef struct {
    uint8_t in_id[32];
    uint8_t in_key[32];
    uint8_t out_id[32];
    uint8_t out_key[32];
    int64_t in_seqno;
    int64_t out_seqno;
    int64_t promised;     /* a higher number that was used besides, or 0 */
    int64_t confirmed;    /* what the packet accepted last confirms */
    uint64_t window[4];   /* bit i of the 256: number in_seqno - i came */
    uint32_t sinks;
    uint32_t stamp;
    tf_sink *sink[256];
} tf_lane;

typedef struct {
    int32_t next;         /* where to go on */
    int32_t kind;
    int32_t start;        /* of what is handed up, in `plain` */
    int32_t length;
    int32_t accepted;     /* datagrams that were good and new */
    int32_t bad;          /* wrong checksum or size */
    int32_t refused;      /* seen before, or a confirmation of what was never sent */
    int32_t touched;      /* how many of the arrays below are in use */
    int32_t sealed;
    int32_t acks;
} tf_counts;

typedef struct {
    tf_counts counts;
    uint32_t done;        /* tag of the sink that needs attention */
    uint32_t touched[256];
    uint8_t sealed[64][164];
    uint8_t acks[64][52];
    uint8_t plain[2048];
} tf_opened;

int tf_version(void);
int tf_start(const char *libcrypto);
int tf_sink_put(tf_sink *sink, uint32_t esi, const uint8_t *symbol);
void tf_sink_confirm(tf_sink *sink, uint8_t *out);
int tf_watch(tf_lane *lane, tf_sink *sink);
void tf_unwatch(tf_lane *lane, tf_sink *sink);
int tf_accept(tf_lane *lane, int64_t seqno, int64_t confirm);
int tf_seal_parts(tf_lane *lane, const uint8_t *head, const uint8_t *source, uint64_t length, uint64_t offset,
                  uint32_t first, uint32_t count, const uint8_t *noise, uint8_t *out);
int tf_seal_custom(tf_lane *lane, const uint8_t *data, uint32_t length, const uint8_t *noise, uint8_t *out);
int tf_open(tf_lane *lane, const uint8_t *buffer, int32_t at, int32_t end, int32_t step, const uint8_t *noise,
            int32_t noises, tf_opened *result);
int tf_mix(const uint8_t *rows, uint32_t n, uint32_t k, const uint8_t *data, uint64_t length, uint8_t *out);
int tf_sink_fill(tf_sink *sink, const uint8_t *rows, uint32_t n);
