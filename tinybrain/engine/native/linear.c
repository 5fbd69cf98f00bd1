/* Products of few or many rows with a packed matrix, and what comes right before and after them.
 *
 * A matrix [out, in] is packed into panels of 64 outputs, each [in][64], zeros behind the last; in
 * fp16, or in int8 as [in / 4][64][4], so that one instruction takes four inputs of an output. A
 * panel is one stream of memory for one row, and stays in the cache for the tiles of many.
 *
 * No bit of a row depends on the rows beside it: sums run over the inputs in their order (fp16), or
 * are exact (int8).
 */

#include <omp.h>

#include "vector.h"

enum { TILE_ROWS = 6, VECTORS = 4, PANEL = 16 * VECTORS, AHEAD = 4096 };
enum { NORM = 1, SQUARED_RELU = 2 };

typedef struct {
    const void *weights;
    const float *scales;  /* of outputs, padded to panels; NULL: weights are fp16 */
    const int32_t *sums;  /* of each output's int8 weights, padded to panels */
    int64_t in, out;
} Matrix;

/* Rows as the products want them: floats, or levels that stand for (level - zero) * scale. */
typedef struct {
    const float *floats;
    uint8_t *levels;
    float *scales;
    int32_t *zeros;
    int64_t stride;
} Rows;

/* What becomes of the products [rows, out]. */
typedef struct {
    const float *add;
    float cap;
    int flags;
    float *y;
    const int64_t *ids; /* not NULL: only likelihoods are wanted, nothing is written to y */
    float *chosen;      /* [rows] logits of the ids */
    float *powers;      /* [threads][rows][16] partial sums of e^logit */
} Outcome;

static void normed(const float *x, int64_t in, float *y) {
    __m512 scale = _mm512_set1_ps(rms_scale(x, in));
    for (int64_t i = 0; i < in; i += 16) {
        __mmask16 lanes = first_lanes(in - i);
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), scale));
    }
}

/* 127 levels on either side of zero; where nothing is negative, 255 on one. */
static void quantised(const float *x, int64_t in, int flags, const Rows *rows, int64_t row) {
    __m512 most = _mm512_setzero_ps(), least = _mm512_setzero_ps();
    __mmask16 odd = 0;
    for (int64_t i = 0; i < in; i += 16) {
        __m512 some = _mm512_maskz_loadu_ps(first_lanes(in - i), x + i);
        most = _mm512_max_ps(most, some);
        least = _mm512_min_ps(least, some);
        odd |= _mm512_cmp_ps_mask(some, some, _CMP_UNORD_Q);
    }
    float highest = _mm512_reduce_max_ps(most), lowest = _mm512_reduce_min_ps(least);
    int32_t zero = lowest < 0 ? 128 : 0;
    float largest = fmaxf(fmaxf(highest, -lowest), 1e-20f), levels = zero ? 127 : 255;
    odd |= !isfinite(largest);
    float norm = flags & NORM ? rms_scale(x, in) : 1;
    rows->zeros[row] = zero;
    rows->scales[row] = odd ? NAN : largest * norm / levels; /* levels cannot say what is odd */
    __m512 factor = _mm512_set1_ps(levels / largest);
    __m512i middle = _mm512_set1_epi32(zero);
    uint8_t *y = rows->levels + row * rows->stride;
    for (int64_t i = 0; i < rows->stride; i += 16) {
        __m512 some = _mm512_maskz_loadu_ps(i < in ? first_lanes(in - i) : 0, x + i);
        __m512i level = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(some, factor)), middle);
        _mm_storeu_si128((__m128i *)(y + i), _mm512_cvtusepi32_epi8(level));
    }
}

INLINE void half_tile(int rows, const float *x, int64_t stride, const uint16_t *panel, int64_t in,
                      __m512 result[TILE_ROWS][VECTORS]) {
    __m512 sums[TILE_ROWS][VECTORS]; /* registers, if every loop over them is unrolled */
    UNROLLED(6) for (int row = 0; row < rows; row++)
        UNROLLED(4) for (int j = 0; j < VECTORS; j++) sums[row][j] = _mm512_setzero_ps();
    for (int64_t i = 0; i < in; i++, panel += PANEL) {
        __m512 weights[VECTORS];
        _mm_prefetch((const char *)panel + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)panel + AHEAD + 64, _MM_HINT_T0);
        UNROLLED(4) for (int j = 0; j < VECTORS; j++)
            weights[j] = load_half(panel + 16 * j);
        UNROLLED(6) for (int row = 0; row < rows; row++) {
            __m512 input = _mm512_set1_ps(x[row * stride + i]);
            UNROLLED(4) for (int j = 0; j < VECTORS; j++)
                sums[row][j] = _mm512_fmadd_ps(input, weights[j], sums[row][j]);
        }
    }
    UNROLLED(6) for (int row = 0; row < rows; row++)
        UNROLLED(4) for (int j = 0; j < VECTORS; j++) result[row][j] = sums[row][j];
}

INLINE void int8_tile(int rows, const uint8_t *x, int64_t stride, const int8_t *panel, int64_t in,
                      __m512i result[TILE_ROWS][VECTORS]) {
    __m512i sums[TILE_ROWS][VECTORS]; /* registers, if every loop over them is unrolled */
    UNROLLED(6) for (int row = 0; row < rows; row++)
        UNROLLED(4) for (int j = 0; j < VECTORS; j++) sums[row][j] = _mm512_setzero_si512();
    for (int64_t i = 0; i < in; i += 4, panel += 4 * PANEL) {
        __m512i weights[VECTORS];
        UNROLLED(4) for (int j = 0; j < VECTORS; j++) {
            _mm_prefetch((const char *)panel + AHEAD + 64 * j, _MM_HINT_T0);
            weights[j] = _mm512_loadu_si512(panel + 64 * j);
        }
        UNROLLED(6) for (int row = 0; row < rows; row++) {
            int32_t four;
            memcpy(&four, x + row * stride + i, 4);
            __m512i inputs = _mm512_set1_epi32(four);
            UNROLLED(4) for (int j = 0; j < VECTORS; j++)
                sums[row][j] = _mm512_dpbusd_epi32(sums[row][j], inputs, weights[j]);
        }
    }
    UNROLLED(6) for (int row = 0; row < rows; row++)
        UNROLLED(4) for (int j = 0; j < VECTORS; j++) result[row][j] = sums[row][j];
}

INLINE void finish(__m512 value, int64_t row, int64_t column, const Matrix *matrix,
                   const Outcome *outcome, float *powers) {
    __mmask16 lanes = column < matrix->out ? first_lanes(matrix->out - column) : 0;
    int64_t place = row * matrix->out + column;
    if (outcome->flags & SQUARED_RELU) {
        value = _mm512_max_ps(_mm512_setzero_ps(), value);
        value = _mm512_mul_ps(value, value);
    }
    if (outcome->cap > 0) value = capped16(value, outcome->cap);
    if (outcome->add)
        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, outcome->add + place));
    if (!outcome->ids) {
        _mm512_mask_storeu_ps(outcome->y + place, lanes, value);
        return;
    }
    /* Capped logits need no maximum taken off before e^logit. */
    __m512 sum = _mm512_loadu_ps(powers + 16 * row);
    _mm512_storeu_ps(powers + 16 * row, _mm512_mask_add_ps(sum, lanes, sum, exp16(value)));
    int64_t lane = outcome->ids[row] - column;
    if (lane >= 0 && lane < 16) {
        float values[16];
        _mm512_storeu_ps(values, value);
        outcome->chosen[row] = values[lane];
    }
}

INLINE void tile(int count, const Matrix *matrix, const Rows *rows, int64_t first, int64_t panel,
                 const Outcome *outcome, float *powers) {
    int64_t column = panel * PANEL;
    if (matrix->scales) {
        __m512i sums[TILE_ROWS][VECTORS];
        int64_t in = (matrix->in + 3) / 4 * 4;
        int8_tile(count, rows->levels + first * rows->stride, rows->stride,
                  (const int8_t *)matrix->weights + column * in, in, sums);
        for (int row = 0; row < count; row++) {
            __m512i zero = _mm512_set1_epi32(rows->zeros[first + row]);
            __m512 scale = _mm512_set1_ps(rows->scales[first + row]);
            for (int j = 0; j < VECTORS; j++) {
                int64_t at = column + 16 * j;
                __m512i offset = _mm512_mullo_epi32(zero, _mm512_loadu_si512(matrix->sums + at));
                __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[row][j], offset));
                __m512 scales = _mm512_mul_ps(scale, _mm512_loadu_ps(matrix->scales + at));
                finish(_mm512_mul_ps(exact, scales), first + row, at, matrix, outcome, powers);
            }
        }
    } else {
        __m512 sums[TILE_ROWS][VECTORS];
        half_tile(count, rows->floats + first * rows->stride, rows->stride,
                  (const uint16_t *)matrix->weights + column * matrix->in, matrix->in, sums);
        for (int row = 0; row < count; row++)
            for (int j = 0; j < VECTORS; j++)
                finish(sums[row][j], first + row, column + 16 * j, matrix, outcome, powers);
    }
}

static void prepare(const Matrix *matrix, const float *x, int flags, const Rows *rows, int64_t row) {
    x += row * matrix->in;
    if (matrix->scales)
        quantised(x, matrix->in, flags, rows, row);
    else if (flags & NORM)
        normed(x, matrix->in, (float *)rows->floats + row * rows->stride);
}

static void multiply(const Matrix *matrix, const float *x, int64_t count, const Outcome *outcome,
                     void *scratch, int threads) {
    Rows rows = {.floats = x, .stride = matrix->in};
    if (matrix->scales) {
        rows.stride = (matrix->in + 63) / 64 * 64;
        rows.levels = scratch;
        rows.scales = (float *)(rows.levels + count * rows.stride);
        rows.zeros = (int32_t *)(rows.scales + count);
    } else if (outcome->flags & NORM) {
        rows.floats = scratch;
    }
    int64_t panels = (matrix->out + PANEL - 1) / PANEL;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < count; row++) prepare(matrix, x, outcome->flags, &rows, row);
#pragma omp for schedule(static)
        for (int64_t panel = 0; panel < panels; panel++) {
            float *powers = outcome->powers + omp_get_thread_num() * count * 16;
            int64_t row = 0;
            for (; row + TILE_ROWS <= count; row += TILE_ROWS)
                tile(TILE_ROWS, matrix, &rows, row, panel, outcome, powers);
            switch (count - row) {
                case 5: tile(5, matrix, &rows, row, panel, outcome, powers); break;
                case 4: tile(4, matrix, &rows, row, panel, outcome, powers); break;
                case 3: tile(3, matrix, &rows, row, panel, outcome, powers); break;
                case 2: tile(2, matrix, &rows, row, panel, outcome, powers); break;
                case 1: tile(1, matrix, &rows, row, panel, outcome, powers); break;
            }
        }
    }
}

/* y [count, out] = what the flags make of the matrix times x [count, in], capped if cap > 0, plus
 * `add` [count, out] if there is one. `scratch` has room for count * (4 * in + 264) bytes. */
void tinybrain_linear(const Matrix *matrix, const float *x, int64_t count, const float *add,
                      float cap, int flags, float *y, void *scratch, int threads) {
    Outcome outcome = {.add = add, .cap = cap, .flags = flags, .y = y};
    multiply(matrix, x, count, &outcome, scratch, threads);
}

/* nll [count]: the negative log-likelihood of each id under the capped logits of its row of x.
 * `powers` [threads, count, 16] are zeros. */
void tinybrain_nll(const Matrix *matrix, const float *x, int64_t count, const int64_t *ids,
                   float cap, float *nll, float *powers, void *scratch, int threads) {
    Outcome outcome = {.cap = cap, .ids = ids, .chosen = nll, .powers = powers};
    multiply(matrix, x, count, &outcome, scratch, threads);
    for (int64_t row = 0; row < count; row++) {
        double sum = 0;
        for (int thread = 0; thread < threads; thread++)
            for (int lane = 0; lane < 16; lane++)
                sum += powers[(thread * count + row) * 16 + lane];
        nll[row] = (float)(log(sum) - nll[row]);
    }
}
