// Products with a small matrix that many rows are multiplied by: sums stay in registers.
#pragma once

#include "lanes.h"

namespace INSTRUCTIONS {

// How `n` columns are cut in panels of up to COLUMNS vectors, as equal as can be.
struct Cut {
  int n, n_vectors, n_panels;
  explicit Cut(int n) : n(n) {
    n_vectors = (n + LANES - 1) / LANES;
    n_panels = (n_vectors + COLUMNS - 1) / COLUMNS;
  }
  int first(int panel) const { return (int)((int64_t)n_vectors * panel / n_panels); }
};

// A square matrix panel by panel, each stored [row, column], filled up with zeros; n * 16 * ceil(n / 16) floats.
static void pack(const float* matrix, bool transposed, int n, float* packed) {
  Cut cut(n);
  for (int panel = 0; panel < cut.n_panels; ++panel) {
    int c0 = cut.first(panel) * LANES, width = cut.first(panel + 1) * LANES - c0, real = n - c0 < width ? n - c0 : width;
    float* out = packed + (size_t)n * c0;
    memset(out, 0, sizeof(float) * n * width);
    if (!transposed) {
      for (int k = 0; k < n; ++k) memcpy(out + (size_t)k * width, matrix + (size_t)k * n + c0, sizeof(float) * real);
    } else {
      for (int c = 0; c < real; ++c)
        for (int k = 0; k < n; ++k) out[(size_t)k * width + c] = matrix[(size_t)(c0 + c) * n + k];
    }
  }
}

// R rows and C vectors of columns of `to = from + sum_k left[., k] right[k, .]`, `rest` lanes of them in the last one
template <int R, int C>
INLINE void tile(const float* left, ptrdiff_t row, ptrdiff_t column, const float* right, ptrdiff_t right_row, int right_rest,
                 int K, const float* from, float* to, ptrdiff_t stride, int rest) {
  Floats sums[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c)
      sums[r][c] = from ? load(from + r * stride + c * LANES, c < C - 1 ? LANES : rest) : Floats{};
  for (int k = 0; k < K; ++k) {
    Floats b[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) b[c] = load(right + k * right_row + c * LANES, c < C - 1 ? LANES : right_rest);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      Floats a = all(left[r * row + k * column]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] += a * b[c];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) store(to + r * stride + c * LANES, sums[r][c], c < C - 1 ? LANES : rest);
}

// A product as it is cut in tiles.
struct Product {
  const float* left;
  ptrdiff_t row, column;
  const float* right;
  ptrdiff_t right_row;
  bool packed;  // `right` is one panel, filled up
  int K;
  const float* from;
  float* to;
  ptrdiff_t stride;
  int rest;
};

template <int R, int C> INLINE void tile_at(const Product& p, int r) {
  const float* from = p.from ? p.from + r * p.stride : nullptr;
  if (p.packed)
    tile<R, C>(p.left + r * p.row, p.row, p.column, p.right, C * LANES, LANES, p.K, from, p.to + r * p.stride, p.stride, p.rest);
  else
    tile<R, C>(p.left + r * p.row, p.row, p.column, p.right, p.right_row, p.rest, p.K, from, p.to + r * p.stride, p.stride,
               p.rest);
}

template <int C> static void rows_of(const Product& p, int n_rows) {
  const int blocks = (n_rows + ROWS - 1) / ROWS;
  for (int b = 0; b < blocks; ++b) {
    const int r = (int)((int64_t)n_rows * b / blocks);
    switch ((int)((int64_t)n_rows * (b + 1) / blocks) - r) {
      case 6: tile_at<6, C>(p, r); break;
      case 5: tile_at<5, C>(p, r); break;
      case 4: tile_at<4, C>(p, r); break;
      case 3: tile_at<3, C>(p, r); break;
      case 2: tile_at<2, C>(p, r); break;
      case 1: tile_at<1, C>(p, r); break;
    }
  }
}

static void panel_of(const Product& p, int n_vectors, int n_rows) {
  switch (n_vectors) {
    case 4:
      if constexpr (COLUMNS >= 4) rows_of<4>(p, n_rows);
      break;
    case 3:
      if constexpr (COLUMNS >= 3) rows_of<3>(p, n_rows);
      break;
    case 2: rows_of<2>(p, n_rows); break;
    case 1: rows_of<1>(p, n_rows); break;
  }
}

// to[r, :] = from[r, :] + x[r, :] matrix, for a packed matrix of n rows and columns; `from` may be null
static void multiply(const float* x, int n_rows, const float* packed, int n, const float* from, float* to) {
  Cut cut(n);
  for (int i = 0; i < cut.n_panels; ++i) {
    const int c0 = cut.first(i) * LANES, vectors = cut.first(i + 1) - cut.first(i);
    const int rest = n - c0 - (vectors - 1) * LANES;
    Product p{x, n, 1, packed + (size_t)n * c0, 0, true, n, from ? from + c0 : nullptr, to + c0, n, rest < LANES ? rest : LANES};
    panel_of(p, vectors, n_rows);
  }
}

// sums[i, k] += sum_r a[r, i] b[r, k], as many rows at a time as the first-level cache holds
static void add_outer(const float* a, int n_a, const float* b, int n_b, int n_rows, float* sums) {
  Cut cut(n_b);
  const int many = 8192 / (n_a + n_b) > 64 ? 8192 / (n_a + n_b) : 64;
  for (int r = 0; r < n_rows; r += many) {
    const int K = n_rows - r < many ? n_rows - r : many;
    for (int i = 0; i < cut.n_panels; ++i) {
      const int c0 = cut.first(i) * LANES, vectors = cut.first(i + 1) - cut.first(i);
      const int rest = n_b - c0 - (vectors - 1) * LANES;
      Product p{a + (size_t)r * n_a, 1, n_a, b + (size_t)r * n_b + c0, n_b, false, K, sums + c0, sums + c0, n_b,
                rest < LANES ? rest : LANES};
      panel_of(p, vectors, n_a);
    }
  }
}

}  // namespace INSTRUCTIONS
