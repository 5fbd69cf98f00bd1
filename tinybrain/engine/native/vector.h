/* What the kernels share: AVX-512, and an exponential for sixteen numbers at once. */

#ifndef TINYBRAIN_VECTOR_H
#define TINYBRAIN_VECTOR_H

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLLED(times) _Pragma(UNROLL_TEXT(GCC unroll times))
#define UNROLL_TEXT(words) #words

/* The mask of the first `count` of sixteen lanes; all of them from sixteen on. */
INLINE __mmask16 first_lanes(int64_t count) {
    return count >= 16 ? 0xffff : (__mmask16)((1u << count) - 1);
}

INLINE __m512 load_half(const uint16_t *x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
}

/* e^x within 2 units in the last place for x in [-87, 88]; what lies outside is clamped. */
INLINE __m512 exp16(__m512 x) {
    /* In this order of operands a NaN stays one; so it does in all that is made with these. */
    x = _mm512_max_ps(_mm512_set1_ps(-87), _mm512_min_ps(_mm512_set1_ps(88), x));
    __m512 power = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    /* ln 2 in two parts, so that the difference stays exact. */
    x = _mm512_fnmadd_ps(power, _mm512_set1_ps(0.693359375f), x);
    x = _mm512_fnmadd_ps(power, _mm512_set1_ps(-2.12194440e-4f), x);
    __m512 y = _mm512_set1_ps(1.0f / 5040);
    const float taylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
    for (int term = 0; term < 7; term++)
        y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(taylor[term]));
    return _mm512_scalef_ps(y, power);
}

/* cap * tanh(x / cap) */
INLINE __m512 capped16(__m512 x, float cap) {
    __m512 one = _mm512_set1_ps(1);
    __m512 power = exp16(_mm512_mul_ps(x, _mm512_set1_ps(2 / cap)));
    __m512 ratio = _mm512_div_ps(_mm512_sub_ps(power, one), _mm512_add_ps(power, one));
    return _mm512_mul_ps(ratio, _mm512_set1_ps(cap));
}

/* What scales a row of `size` numbers to a root-mean-square of one; eps as in gpt.py. */
INLINE float rms_scale(const float *x, int64_t size) {
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += 16) {
        __m512 some = _mm512_maskz_loadu_ps(first_lanes(size - i), x + i);
        squares = _mm512_fmadd_ps(some, some, squares);
    }
    return 1 / sqrtf(_mm512_reduce_add_ps(squares) / size + 1.1920929e-07f);
}

#endif
