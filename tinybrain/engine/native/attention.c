/* Rotary embedding, and attention over keys and values cached in fp16.
 *
 * No bit of a query's result depends on the queries beside it: each has its own scores, sums run
 * over the positions in their order, and what a query must not see counts exactly zero.
 */

#include <omp.h>

#include "vector.h"

enum { TILE = 4, VECTORS = 8, AHEAD = 4096 };

/* Heads [rows][heads][size], `stride` floats from row to row, in place: pairs turned by rotation
 * [positions][size / 2] (complex), normed, times `scale`. */
void tinybrain_rotate(float *x, int64_t rows, int64_t heads, int64_t size, int64_t stride,
                      const float *rotation, const int64_t *positions, float scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1)
    for (int64_t row = 0; row < rows; row++) {
        const float *turn = rotation + positions[row] * size;
        for (int64_t head = 0; head < heads; head++) {
            float *pairs = x + row * stride + head * size;
            for (int64_t i = 0; i < size; i += 16) {
                __mmask16 lanes = first_lanes(size - i);
                __m512 z = _mm512_maskz_loadu_ps(lanes, pairs + i);
                __m512 w = _mm512_maskz_loadu_ps(lanes, turn + i);
                __m512 crossed = _mm512_mul_ps(_mm512_permute_ps(z, 0xb1), _mm512_movehdup_ps(w));
                z = _mm512_fmaddsub_ps(z, _mm512_moveldup_ps(w), crossed);
                _mm512_mask_storeu_ps(pairs + i, lanes, z);
            }
            __m512 factor = _mm512_set1_ps(rms_scale(pairs, size) * scale);
            for (int64_t i = 0; i < size; i += 16) {
                __mmask16 lanes = first_lanes(size - i);
                __m512 z = _mm512_maskz_loadu_ps(lanes, pairs + i);
                _mm512_mask_storeu_ps(pairs + i, lanes, _mm512_mul_ps(z, factor));
            }
        }
    }
}

/* Everything [rows, width] tokens attend with; heads of `size` floats. */
typedef struct {
    const float *q, *k, *v; /* token t of row r at (r * width + t) * stride */
    uint16_t *keys, *values; /* [slots][kv_heads][length][size] */
    const int64_t *slots;    /* [rows] */
    const int64_t *positions; /* [rows][width], each row's ascending one by one */
    float *y;                /* [rows][width][heads][size] */
    int64_t rows, width, stride, heads, kv_heads, length, size;
    int64_t window; /* positions to look back; negative: all */
} Attention;

INLINE void store(const float *x, uint16_t *y, int64_t size) {
    for (int64_t i = 0; i < size; i += 16)
        _mm256_storeu_si256((__m256i *)(y + i), _mm512_cvtps_ph(_mm512_loadu_ps(x + i), 0));
}

static void append(const Attention *a, int64_t row, int64_t token) {
    const float *k = a->k + (row * a->width + token) * a->stride;
    const float *v = a->v + (row * a->width + token) * a->stride;
    int64_t position = a->positions[row * a->width + token];
    for (int64_t head = 0; head < a->kv_heads; head++) {
        int64_t place = ((a->slots[row] * a->kv_heads + head) * a->length + position) * a->size;
        store(k + head * a->size, a->keys + place, a->size);
        store(v + head * a->size, a->values + place, a->size);
    }
}

INLINE void prefetch(const uint16_t *x, int64_t size) {
    UNROLLED(4) for (int64_t i = 0; i < size; i += 32)
        _mm_prefetch((const char *)(x + i) + AHEAD, _MM_HINT_T0);
}

/* scores[query][position] = q . k / sqrt(size) */
INLINE void score(int queries, const float *const *q, const uint16_t *keys, int64_t begin,
                  int64_t end, int64_t size, float *scores, int64_t length) {
    float scale = 1 / sqrtf((float)size);
    for (int64_t position = begin; position < end; position++) {
        const uint16_t *key = keys + position * size;
        prefetch(key, size);
        __m512 sums[TILE];
        UNROLLED(4) for (int query = 0; query < queries; query++) sums[query] = _mm512_setzero_ps();
        UNROLLED(8) for (int64_t i = 0; i < size; i += 16) {
            __m512 some = load_half(key + i);
            UNROLLED(4) for (int query = 0; query < queries; query++)
                sums[query] = _mm512_fmadd_ps(some, _mm512_loadu_ps(q[query] + i), sums[query]);
        }
        UNROLLED(4) for (int query = 0; query < queries; query++)
            scores[query * length + position] = _mm512_reduce_add_ps(sums[query]) * scale;
    }
}

/* Scores in [begin, end) become e^(score - highest), all others in [first, last) zero; gives the
 * sum. Lanes depend on a position alone, so that the sum is rounded alike in any tile. */
static float soften(float *scores, int64_t begin, int64_t end, int64_t first, int64_t last) {
    __m512 highest = _mm512_set1_ps(-INFINITY), sums = _mm512_setzero_ps();
    for (int64_t at = begin / 16 * 16; at < end; at += 16) {
        __mmask16 lanes = first_lanes(end - at);
        if (at < begin) lanes &= ~first_lanes(begin - at);
        __m512 some = _mm512_maskz_loadu_ps(lanes, scores + at);
        highest = _mm512_mask_max_ps(highest, lanes, highest, some);
    }
    highest = _mm512_set1_ps(_mm512_reduce_max_ps(highest));
    for (int64_t at = begin / 16 * 16; at < end; at += 16) {
        __mmask16 lanes = first_lanes(end - at);
        if (at < begin) lanes &= ~first_lanes(begin - at);
        __m512 some = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, scores + at), highest);
        some = _mm512_maskz_mov_ps(lanes, exp16(some));
        _mm512_mask_storeu_ps(scores + at, lanes, some);
        sums = _mm512_add_ps(sums, some);
    }
    for (int64_t at = first; at < begin; at++) scores[at] = 0;
    for (int64_t at = end; at < last; at++) scores[at] = 0;
    return _mm512_reduce_add_ps(sums);
}

/* y[query][first..] = sum over positions of weight times value, over the query's total; so many
 * `vectors` of it as stay in registers. */
INLINE void mix(int queries, int vectors, const float *scores, int64_t length,
                const uint16_t *values, int64_t begin, int64_t end, int64_t size,
                const float *totals, float *const *y, int64_t first) {
    __m512 sums[TILE][VECTORS];
    UNROLLED(4) for (int query = 0; query < queries; query++)
        UNROLLED(8) for (int j = 0; j < vectors; j++) sums[query][j] = _mm512_setzero_ps();
    for (int64_t position = begin; position < end; position++) {
        const uint16_t *value = values + position * size + first;
        prefetch(value, 16 * vectors);
        __m512 some[VECTORS];
        UNROLLED(8) for (int j = 0; j < vectors; j++) some[j] = load_half(value + 16 * j);
        UNROLLED(4) for (int query = 0; query < queries; query++) {
            __m512 weight = _mm512_set1_ps(scores[query * length + position]);
            UNROLLED(8) for (int j = 0; j < vectors; j++)
                sums[query][j] = _mm512_fmadd_ps(weight, some[j], sums[query][j]);
        }
    }
    UNROLLED(4) for (int query = 0; query < queries; query++) {
        __m512 total = _mm512_set1_ps(totals[query]);
        UNROLLED(8) for (int j = 0; j < vectors; j++)
            _mm512_storeu_ps(y[query] + first + 16 * j, _mm512_div_ps(sums[query][j], total));
    }
}

INLINE void tile(int queries, const Attention *a, int64_t row, int64_t head, int64_t token,
                 float *scores, int64_t size) {
    const int64_t *positions = a->positions + row * a->width + token;
    int64_t kv_head = head / (a->heads / a->kv_heads);
    int64_t place = (a->slots[row] * a->kv_heads + kv_head) * a->length * size;
    const float *q[TILE];
    float *y[TILE], totals[TILE];
    int64_t first = a->window < 0 ? 0 : positions[0] - a->window, last = positions[queries - 1] + 1;
    if (first < 0) first = 0;
    for (int query = 0; query < queries; query++) {
        q[query] = a->q + (row * a->width + token + query) * a->stride + head * size;
        y[query] = a->y + ((row * a->width + token + query) * a->heads + head) * size;
    }
    score(queries, q, a->keys + place, first, last, size, scores, a->length);
    for (int query = 0; query < queries; query++) {
        int64_t begin = a->window < 0 ? 0 : positions[query] - a->window;
        if (begin < 0) begin = 0;
        totals[query] = soften(scores + query * a->length, begin, positions[query] + 1, first, last);
    }
    int most = queries <= 2 ? VECTORS : VECTORS / 2;
    int64_t i = 0;
    for (; i + 16 * most <= size; i += 16 * most)
        mix(queries, most, scores, a->length, a->values + place, first, last, size, totals, y, i);
    for (; i < size; i += 16)
        mix(queries, 1, scores, a->length, a->values + place, first, last, size, totals, y, i);
}

INLINE void some_queries(int queries, const Attention *a, int64_t row, int64_t head, int64_t token,
                         float *scores, int64_t size) {
    switch (queries) {
        case 4: tile(4, a, row, head, token, scores, size); break;
        case 3: tile(3, a, row, head, token, scores, size); break;
        case 2: tile(2, a, row, head, token, scores, size); break;
        case 1: tile(1, a, row, head, token, scores, size); break;
    }
}

/* Put keys and values into the cache, then attend to it. `size` is a multiple of 16, `scores` has
 * room for [threads][4][length]. */
void tinybrain_attend(const Attention *a, float *scores, int threads) {
    int64_t tiles = (a->width + TILE - 1) / TILE;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t token = 0; token < a->rows * a->width; token++)
            append(a, token / a->width, token % a->width);
        float *mine = scores + (int64_t)omp_get_thread_num() * TILE * a->length;
        /* Later tiles of a prompt see more: small portions, handed out as threads get free. */
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < a->rows * a->heads * tiles; item++) {
            int64_t row = item / (a->heads * tiles), head = item / tiles % a->heads;
            int64_t token = item % tiles * TILE;
            int queries = a->width - token < TILE ? (int)(a->width - token) : TILE;
            switch (a->size) {
                case 128: some_queries(queries, a, row, head, token, mine, 128); break;
                case 64: some_queries(queries, a, row, head, token, mine, 64); break;
                default: some_queries(queries, a, row, head, token, mine, a->size);
            }
        }
    }
}
