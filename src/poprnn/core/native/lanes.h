// Vectors of as many floats as an instruction set has, and the few functions that compilers have no word for.
//
// Every file that includes this is compiled once for each instruction set, into a namespace of its own. It must not
// use templates of the standard library: the linker keeps one copy of such a function, and it might be one with
// instructions that this processor does not have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef INSTRUCTIONS
#define INSTRUCTIONS plain
#endif

#define INLINE static inline __attribute__((always_inline))

namespace INSTRUCTIONS {

// ROWS x COLUMNS vectors of sums fit the registers, beside one row of the matrix
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 6, COLUMNS = 4;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6, COLUMNS = 2;
#else
constexpr int LANES = 4, ROWS = 6, COLUMNS = 2;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Floats all(float x) { return x - Floats{}; }

// the first `n` lanes, n <= LANES; the others are 0
INLINE Floats load(const float* p, int n) {
#if defined(__AVX512F__)
  if (!__builtin_constant_p(n)) return (Floats)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#endif
  if (n >= LANES) return *reinterpret_cast<const Floats*>(p);
  Floats v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

INLINE void store(float* p, Floats v, int n) {
#if defined(__AVX512F__)
  if (!__builtin_constant_p(n)) return _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#endif
  if (n >= LANES) {
    *reinterpret_cast<Floats*>(p) = v;
  } else {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }
}

INLINE Floats square_root(Floats x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
  return (Floats)_mm256_sqrt_ps((__m256)x);
#else
  Floats y;
  for (int i = 0; i < LANES; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}

// a / b to float precision, for normal b
INLINE Floats quotient(Floats a, Floats b) {
#if defined(__AVX512F__)  // a division takes as long as sixteen products
  Floats r = (Floats)_mm512_rcp14_ps((__m512)b);
  r = r * (2.0f - b * r);
  Floats y = a * r;
  return y + r * (a - b * y);
#else
  return a / b;
#endif
}

INLINE bool all_below(Floats x, float bound) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(bound), _CMP_LT_OQ) == 0xffff;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(bound), _CMP_LT_OQ)) == 0xff;
#else
  bool yes = true;
  for (int i = 0; i < LANES; ++i) yes = yes && x[i] < bound;
  return yes;
#endif
}

INLINE Floats clamp(Floats x, float low, float high) {  // not-a-number passes
  x = x < all(low) ? all(low) : x;
  return x > all(high) ? all(high) : x;
}

// e^x to float precision between the smallest and the largest normal number (Cephes' expf)
INLINE Floats exponential(Floats x) {
  x = clamp(x, -87.3f, 88.3f);
  Floats shifted = x * 1.44269504f + 12582912.0f;  // 1.5 · 2^23: the sum's last bits are the nearest whole number
  Ints n = (Ints)shifted - 0x4B400000;
  Floats whole = shifted - 12582912.0f;
  Floats r = x - whole * 0.693359375f;
  r = r + whole * 2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (Floats)((n + 127) << 23);
}

// ln y for normal y > 0 (Cephes' logf)
INLINE Floats logarithm(Floats y) {
  Ints bits = (Ints)y;
  Ints exponent = (bits >> 23) - 126;
  Floats m = (Floats)((bits & 0x007fffff) | 0x3f000000);  // in [0.5, 1)
  Ints below = m < all(0.707106781186547524f);            // -1 where true
  exponent += below;
  m = m + (below ? m : Floats{}) - 1.0f;
  Floats z = m * m;
  Floats p = all(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  Floats e = __builtin_convertvector(exponent, Floats);
  return m + (p * m * z + e * -2.12194440e-4f - 0.5f * z) + e * 0.693359375f;
}

}  // namespace INSTRUCTIONS
