/* Sums of symbols over GF(256), the field of RaptorQ: making repair symbols, and working out lost ones from them. See
 * tonfs/network/octets.py for the same in Python, which must give the same bytes. Follows packets.c in one unit. */

enum { LOST = 96 };

typedef uint64_t wide __attribute__((vector_size(32))); /* whatever the machine has; gcc and clang cut it to size */
enum { WIDES = SYMBOL / sizeof(wide) };

static uint8_t octet_exp[510], octet_log[256];

static void octets_start(void)
{
    int exponent, value = 1;
    for (exponent = 0; exponent < 255; exponent++) {
        octet_exp[exponent] = octet_exp[exponent + 255] = (uint8_t)value;
        octet_log[value] = (uint8_t)exponent;
        value = value << 1 ^ (value & 0x80 ? 0x11d : 0);
    }
}

static uint8_t times(uint8_t a, uint8_t b)
{
    return a && b ? octet_exp[octet_log[a] + octet_log[b]] : 0;
}

static void add_times(uint8_t *row, const uint8_t *other, uint8_t factor, uint32_t length)
{
    uint32_t i;
    for (i = 0; i < length; i++)
        row[i] ^= times(other[i], factor);
}

/* One sum: `start` (or nothing) plus row[i] times the i-th symbol of `data`. Of `count` symbols those with seen[i] == 0
 * are left out (`seen` may be NULL); the last one lies at `last` if that is not NULL. A factor is the sum of its bits: a
 * symbol is added to the plane of each of them, and the planes are put together at the end. */
static inline __attribute__((always_inline)) void sum_body(const uint8_t *row, const uint8_t *seen, uint32_t count,
                                                           const uint8_t *data, const uint8_t *last,
                                                           const uint8_t *start, uint8_t *out)
{
    wide planes[8][WIDES];
    uint32_t i, n;
    int bit;
    memset(planes, 0, sizeof planes);
    if (start != NULL)
        memcpy(planes[0], start, SYMBOL);
    for (n = 0; n < count; n++) {
        const uint8_t *symbol = last != NULL && n + 1 == count ? last : data + (size_t)n * SYMBOL;
        unsigned bits = seen == NULL || seen[n] ? row[n] : 0;
        for (; bits; bits &= bits - 1) {
            wide *plane = planes[__builtin_ctz(bits)];
            for (i = 0; i < WIDES; i++) {
                wide value;
                memcpy(&value, symbol + i * sizeof value, sizeof value);
                plane[i] ^= value;
            }
        }
    }
    for (i = 0; i < WIDES; i++) {
        wide value = planes[7][i];
        for (bit = 6; bit >= 0; bit--) {
            wide high = value >> 7 & 0x0101010101010101ULL;
            value = (value & 0x7f7f7f7f7f7f7f7fULL) << 1 ^ high ^ high << 2 ^ high << 3 ^ high << 4 ^ planes[bit][i];
        }
        memcpy(out + i * sizeof value, &value, sizeof value);
    }
}

typedef void summer(const uint8_t *, const uint8_t *, uint32_t, const uint8_t *, const uint8_t *, const uint8_t *,
                    uint8_t *);

static void sum_plain(const uint8_t *row, const uint8_t *seen, uint32_t count, const uint8_t *data,
                      const uint8_t *last, const uint8_t *start, uint8_t *out)
{
    sum_body(row, seen, count, data, last, start, out);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void sum_avx2(const uint8_t *row, const uint8_t *seen, uint32_t count,
                                                     const uint8_t *data, const uint8_t *last, const uint8_t *start,
                                                     uint8_t *out)
{
    sum_body(row, seen, count, data, last, start, out);
}

static summer *best_sum(void)
{
    return __builtin_cpu_supports("avx2") ? sum_avx2 : sum_plain;
}
#else
static summer *best_sum(void)
{
    return sum_plain;
}
#endif

/* `n` sums of the k source symbols in `length` bytes (zeros behind them) by `n` rows of k factors. 0, or 1 for sizes that
 * do not fit together. */
int tf_mix(const uint8_t *rows, uint32_t n, uint32_t k, const uint8_t *data, uint64_t length, uint8_t *out)
{
    summer *sum = best_sum();
    uint32_t count = (uint32_t)((length + SYMBOL - 1) / SYMBOL), rest = (uint32_t)(length % SYMBOL);
    uint8_t last[SYMBOL] = {0};
    if (length > (uint64_t)k * SYMBOL)
        return 1;
    if (rest)
        memcpy(last, data + (length - rest), rest);
    for (; n > 0; n--, rows += k, out += SYMBOL)
        sum(rows, NULL, count, data, rest ? last : NULL, NULL, out);
    return 0;
}

/* Work out the source symbols that did not come. `rows`: of each of the first n extra symbols the factors of the k source
 * symbols whose sum it is. 1: all are in place now, and the extra symbols are used up; 0: they do not suffice. */
int tf_sink_fill(tf_sink *sink, const uint8_t *rows, uint32_t n)
{
    uint8_t factors[LOST][LOST], terms[LOST][LOST];
    uint32_t lost[LOST], pivot[LOST], which[LOST];
    uint32_t missing = 0, found = 0, k = sink->k, i, j;
    summer *sum = best_sum();
    uint8_t *extra = sink->data + (size_t)k * SYMBOL;
    if (sink->received - sink->sources < n)
        return 0;
    for (i = 0; i < k; i++)
        if (!sink->seen[i]) {
            if (missing == LOST)
                return 0;
            lost[missing++] = i;
        }
    for (i = 0; i < n && found < missing; i++) {
        uint8_t *row = factors[found], *term = terms[found], scale;
        memset(term, 0, LOST);
        term[found] = 1;
        for (j = 0; j < missing; j++)
            row[j] = rows[(size_t)i * k + lost[j]];
        for (j = 0; j < found; j++) {
            uint8_t factor = row[pivot[j]];
            add_times(row, factors[j], factor, missing);
            add_times(term, terms[j], factor, missing);
        }
        for (j = 0; j < missing && row[j] == 0; j++)
            ;
        if (j == missing)
            continue; /* it says nothing new */
        pivot[found] = j;
        which[found] = i;
        scale = octet_exp[255 - octet_log[row[j]]];
        for (j = 0; j < missing; j++) {
            row[j] = times(row[j], scale);
            term[j] = times(term[j], scale);
        }
        for (j = 0; j < found; j++) {
            uint8_t factor = factors[j][pivot[found]];
            add_times(factors[j], row, factor, missing);
            add_times(terms[j], term, factor, missing);
        }
        found++;
    }
    if (found < missing)
        return 0;
    for (i = 0; i < missing; i++) /* what the lost symbols alone give; which[i] >= i, so nothing is overwritten early */
        sum(rows + (size_t)which[i] * k, sink->seen, k, sink->data, NULL, extra + (size_t)which[i] * SYMBOL,
            extra + (size_t)i * SYMBOL);
    for (i = 0; i < missing; i++)
        sum(terms[i], NULL, missing, extra, NULL, NULL, sink->data + (size_t)lost[pivot[i]] * SYMBOL);
    return 1;
}
