// Standard normal numbers from counters: Threefry-2x32 with 20 rounds, and the inverse error function.
#pragma once

#include <cstdlib>

#include "lanes.h"

namespace INSTRUCTIONS {

constexpr int TOGETHER = 4;  // vectors whose rounds overlap

INLINE Words rotated(Words x, int by) { return (x << by) | (x >> (32 - by)); }

INLINE void threefry(Words (&a)[TOGETHER], Words (&b)[TOGETHER], const Words (&k0)[TOGETHER], const Words (&k1)[TOGETHER]) {
  constexpr int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  Words key[3][TOGETHER];
#pragma GCC unroll 8
  for (int m = 0; m < TOGETHER; ++m) {
    key[0][m] = k0[m];
    key[1][m] = k1[m];
    key[2][m] = k0[m] ^ k1[m] ^ 0x1BD11BDAu;
    a[m] += key[0][m];
    b[m] += key[1][m];
  }
#pragma GCC unroll 8
  for (int i = 0; i < 5; ++i) {
#pragma GCC unroll 8
    for (int q = 0; q < 4; ++q)
#pragma GCC unroll 8
      for (int m = 0; m < TOGETHER; ++m) {
        a[m] += b[m];
        b[m] = a[m] ^ rotated(b[m], rotations[i % 2][q]);
      }
#pragma GCC unroll 8
    for (int m = 0; m < TOGETHER; ++m) {
      a[m] += key[(i + 1) % 3][m];
      b[m] += key[(i + 2) % 3][m] + (uint32_t)(i + 1);
    }
  }
}

constexpr float NEAR[9] = {2.81022636e-08f, 3.43273939e-07f,  -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f,
                           -0.00125372503f, -0.00417768164f, 0.246640727f,    1.50140941f};
constexpr float FAR[9] = {-0.000200214257f, 0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f,
                          -0.0076224613f,   0.00943887047f,  1.00167406f,    2.83297682f};

INLINE Floats polynomial(const float (&coefficients)[9], Floats x) {
  Floats p = all(coefficients[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 9; ++i) p = coefficients[i] + p * x;
  return p;
}

// Giles, Approximating the erfinv function, GPU Computing Gems 2, 2010: the coefficients for single precision.
INLINE Floats normal_of(Words bits) {
  constexpr float least = -0.99999994f;
  Floats fraction = (Floats)((bits >> 9) | 0x3F800000u) - 1.0f;
  Floats u = fraction * (1.0f - least) + least;
  u = u < all(least) ? all(least) : u;
  Floats square = u * u;
  // rounded before it is subtracted from 1, as in XLA's function: in the tails it shows
#if defined(__AVX512F__)
  asm("" : "+v"(square));
#elif defined(__x86_64__)
  asm("" : "+x"(square));
#endif
  Floats w = -logarithm(1.0f - square);
  Floats p = polynomial(NEAR, w - 2.5f);
  if (!all_below(w, 5.0f)) {  // one number in three hundred is in the tails
    Ints near = w < all(5.0f);
    p = near ? p : polynomial(FAR, square_root(w) - 3.0f);
  }
  return 1.41421356f * (p * u);
}

INLINE Words words(const uint32_t* p) { return *reinterpret_cast<const Words*>(p); }

// [step, trial, unit] from one key a trial; the counter is (time, unit)
static void normals(const uint32_t* keys, uint32_t first_time, int trials, int n, int steps, float* to) {
  constexpr int AT_ONCE = TOGETHER * LANES;
  const size_t size = (size_t)trials * n, padded = (size + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
  uint32_t* memory = (uint32_t*)calloc(3 * padded, sizeof(uint32_t));
  uint32_t *k0 = memory, *k1 = k0 + padded, *unit = k1 + padded;
  for (int r = 0; r < trials; ++r)
    for (int c = 0; c < n; ++c) {
      k0[(size_t)r * n + c] = keys[2 * r];
      k1[(size_t)r * n + c] = keys[2 * r + 1];
      unit[(size_t)r * n + c] = (uint32_t)c;
    }
  for (int j = 0; j < steps; ++j)
    for (size_t i = 0; i < size; i += AT_ONCE) {
      Words a[TOGETHER], b[TOGETHER], x[TOGETHER], y[TOGETHER];
#pragma GCC unroll 8
      for (int m = 0; m < TOGETHER; ++m) {
        a[m] = (first_time + (uint32_t)j) - Words{};
        b[m] = words(unit + i + m * LANES);
        x[m] = words(k0 + i + m * LANES);
        y[m] = words(k1 + i + m * LANES);
      }
      threefry(a, b, x, y);
#pragma GCC unroll 8
      for (int m = 0; m < TOGETHER; ++m) {
        const ptrdiff_t at = (ptrdiff_t)i + m * LANES, left = (ptrdiff_t)size - at;
        if (left > 0) store(to + j * size + at, normal_of(a[m] ^ b[m]), left < LANES ? (int)left : LANES);
      }
    }
  free(memory);
}

}  // namespace INSTRUCTIONS
