// A block of steps of an element-wise cell, forward and backward:
//
//   d(t) = e(t) + h(t-1) M'      h(t) = f(d(t))      or, with a leak l,      h(t) = h(t-1) + l (f(d(t)) - h(t-1))
//
// and skips through time, lane by lane, with a weight w of the base dynamics and a reach s:
//
//   where a skip begins      a = h(t-1) + s l (f(d(t)) - h(t-1))
//   where a skip arrives     h(t) <- w h(t) + (1 - w) a
#pragma once

#include <cstdlib>

#include "products.h"
#include "table.h"

namespace INSTRUCTIONS {

enum Activation { RELU, LEAKY_RELU, TANH, SOFTPLUS, SIGMOID, IDENTITY };

// f, in which not-a-number stays what it is; `s` is the slope below zero
template <int F> INLINE Floats value(Floats x, Floats s) {
  if (F == RELU) return x <= 0.0f ? Floats{} : x;
  if (F == LEAKY_RELU) return x > 0.0f ? x : s * x;
  if (F == SIGMOID) return 1.0f / (1.0f + exponential(-x));
  if (F == SOFTPLUS) {
    Floats size = x < 0.0f ? x : -x;
    size = x == x ? size : x;
    Floats e = exponential(size), u = 1.0f + e;
    Floats positive = x <= 0.0f ? Floats{} : x;
    return positive + logarithm(u) + (e - (u - 1.0f));  // ln(1 + e), with what the sum lost
  }
  if (F == TANH) {  // the quotient of polynomials of Eigen and XLA
    Floats c = clamp(x, -7.90531110763549805f, 7.90531110763549805f), z = c * c;
    Floats p = all(-2.76076847742355e-16f);
    p = p * z + 2.00018790482477e-13f;
    p = p * z - 8.60467152213735e-11f;
    p = p * z + 5.12229709037114e-08f;
    p = p * z + 1.48572235717979e-05f;
    p = p * z + 6.37261928875436e-04f;
    p = p * z + 4.89352455891786e-03f;
    Floats q = all(1.19825839466702e-06f);
    q = q * z + 1.18534705686654e-04f;
    q = q * z + 2.26843463243900e-03f;
    q = q * z + 4.89352518554385e-03f;
    Floats y = quotient(c * p, q);
    y = x > all(9.0f) ? all(1.0f) : y;  // where 1 is the nearest number
    return x < all(-9.0f) ? all(-1.0f) : y;
  }
  return x;
}

// f'(x) from y = f(x), for those of which y tells it
INLINE bool tells_slope(int activation) {
  return activation == RELU || activation == TANH || activation == SIGMOID || activation == IDENTITY;
}

template <int F> INLINE Floats slope_at(Floats y) {
  if (F == RELU) return y > 0.0f ? all(1.0f) : Floats{};
  if (F == SIGMOID) return y * (1.0f - y);
  if (F == TANH) return 1.0f - y * y;
  return all(1.0f);
}

template <int F> INLINE Floats slope(Floats x, Floats s) {
  if (F == LEAKY_RELU) return x > 0.0f ? all(1.0f) : s;
  if (F == SOFTPLUS) return value<SIGMOID>(x, s);
  return slope_at<F>(value<F>(x, s));
}

// --- the element-wise part of one step, for all trials ---------------------------------------------------------

template <int F> static void move_all(const float* d, float* to, int size, float s) {
  for (int i = 0; i < size; i += LANES) {
    const int m = size - i < LANES ? size - i : LANES;
    store(to + i, value<F>(load(d + i, m), all(s)), m);
  }
}

template <int F> static void leak_all(const float* d, const float* h, const float* leak, float* to, int trials, int n, float s) {
  for (int r = 0; r < trials; ++r)
    for (int c = 0; c < n; c += LANES) {
      const int m = n - c < LANES ? n - c : LANES;
      const size_t i = (size_t)r * n + c;
      Floats old = load(h + i, m);
      store(to + i, old + load(leak + c, m) * (value<F>(load(d + i, m), all(s)) - old), m);
    }
}

// cotangent of the drive from that of the new state, g + g_after, and from the new state itself
template <int F> static void move_back_at(const float* y, const float* g, const float* g_after, float* g_drive, int size) {
  for (int i = 0; i < size; i += LANES) {
    const int m = size - i < LANES ? size - i : LANES;
    store(g_drive + i, (load(g + i, m) + load(g_after + i, m)) * slope_at<F>(load(y + i, m)), m);
  }
}

// the same from the drive
template <int F> static void move_back(const float* d, const float* g, const float* g_after, float* g_drive, int size, float s) {
  for (int i = 0; i < size; i += LANES) {
    const int m = size - i < LANES ? size - i : LANES;
    store(g_drive + i, (load(g + i, m) + load(g_after + i, m)) * slope<F>(load(d + i, m), all(s)), m);
  }
}

// the same with a leak: also its own gradient, and `kept`, what reaches the old state past the drive
template <int F>
static void leak_back(const float* d, const float* h, const float* leak, const float* g, const float* g_after, float* g_drive,
                      float* kept, float* g_leak, int trials, int n, float s) {
  for (int c = 0; c < n; c += LANES) {
    const int m = n - c < LANES ? n - c : LANES;
    Floats a = load(leak + c, m), sum = load(g_leak + c, m);
    for (int r = 0; r < trials; ++r) {
      const size_t i = (size_t)r * n + c;
      Floats x = load(d + i, m), total = load(g + i, m) + load(g_after + i, m), part = a * total;
      store(g_drive + i, part * slope<F>(x, all(s)), m);
      store(kept + i, total - part, m);
      sum += total * (value<F>(x, all(s)) - load(h + i, m));
    }
    store(g_leak + c, sum, m);
  }
}

// --- skips at one step, for the trials of which the first is number `first` of `trials` ------------------------------

template <int F>
static void skip(const Skips& skips, size_t first, const float* d, const float* h, const float* leak, float* next, int rows,
                 int n, float s) {
  for (int k = 0; k < skips.n; ++k) {
    const Lane& lane = skips.lanes[k];
    for (int r = 0; r < rows; ++r) {
      const uint8_t mark = lane.marks[r];
      if (!mark) continue;
      const size_t row = (size_t)r * n;
      float* anchor = lane.anchors + first * n + row;
      for (int c = 0; c < n; c += LANES) {
        const int m = n - c < LANES ? n - c : LANES;
        Floats a = load(anchor + c, m);
        if (mark & BEGINS) {
          a = load(h + row + c, m);
          if (lane.reach) a += lane.reach * load(leak + c, m) * (value<F>(load(d + row + c, m), all(s)) - a);
          store(anchor + c, a, m);
        }
        if (mark & ARRIVES) store(next + row + c, skips.weight * load(next + row + c, m) + (1.0f - skips.weight) * a, m);
      }
    }
  }
}

// cotangents of the anchors that arrive; `g` becomes the cotangent of the state before they do, all of it
static void arrive_back(const Skips& skips, size_t first, const float* g_after, float* g, int rows, int n) {
  for (int i = 0; i < rows * n; i += LANES) {
    const int m = rows * n - i < LANES ? rows * n - i : LANES;
    store(g + i, load(g + i, m) + load(g_after + i, m), m);
  }
  for (int k = skips.n - 1; k >= 0; --k)
    for (int r = 0; r < rows; ++r) {
      if (!(skips.lanes[k].marks[r] & ARRIVES)) continue;
      float *g_anchor = skips.lanes[k].anchors + (first + r) * n, *g_row = g + (size_t)r * n;
      for (int c = 0; c < n; c += LANES) {
        const int m = n - c < LANES ? n - c : LANES;
        Floats total = load(g_row + c, m);
        store(g_anchor + c, load(g_anchor + c, m) + (1.0f - skips.weight) * total, m);
        store(g_row + c, skips.weight * total, m);
      }
    }
}

// what the anchors that begin give back by their long step: to the drive and to the leak
template <int F>
static void reach_back(const Skips& skips, size_t first, const float* d, const float* h, const float* leak, float* g_drive,
                       float* g_leak, int rows, int n, float s) {
  for (int k = 0; k < skips.n; ++k) {
    const Lane& lane = skips.lanes[k];
    if (!lane.reach) continue;
    for (int r = 0; r < rows; ++r) {
      if (!(lane.marks[r] & BEGINS)) continue;
      const size_t row = (size_t)r * n;
      for (int c = 0; c < n; c += LANES) {
        const int m = n - c < LANES ? n - c : LANES;
        Floats part = lane.reach * load(lane.anchors + first * n + row + c, m), x = load(d + row + c, m);
        store(g_drive + row + c, load(g_drive + row + c, m) + part * load(leak + c, m) * slope<F>(x, all(s)), m);
        store(g_leak + c, load(g_leak + c, m) + part * (value<F>(x, all(s)) - load(h + row + c, m)), m);
      }
    }
  }
}

// and to the state itself; nothing more goes back to them
static void begin_back(const Skips& skips, size_t first, const float* leak, float* g, int rows, int n) {
  for (int k = 0; k < skips.n; ++k) {
    const Lane& lane = skips.lanes[k];
    for (int r = 0; r < rows; ++r) {
      if (!(lane.marks[r] & BEGINS)) continue;
      float *g_anchor = lane.anchors + (first + r) * n, *g_row = g + (size_t)r * n;
      for (int c = 0; c < n; c += LANES) {
        const int m = n - c < LANES ? n - c : LANES;
        Floats past = all(1.0f);
        if (lane.reach) past -= lane.reach * load(leak + c, m);
        store(g_row + c, load(g_row + c, m) + past * load(g_anchor + c, m), m);
        store(g_anchor + c, Floats{}, m);
      }
    }
  }
}

// the lanes at step j of these trials
static Skips skips_at(Skips skips, size_t at) {
  for (int k = 0; k < skips.n; ++k) skips.lanes[k].marks += at;
  return skips;
}

static bool any(const Skips& skips, int rows, uint8_t which) {
  uint8_t all_marks = 0;
  for (int k = 0; k < skips.n; ++k)
    for (int r = 0; r < rows; ++r) all_marks |= skips.lanes[k].marks[r];
  return all_marks & which;
}

#define FOR_ACTIVATION(CALL)            \
  switch (activation) {                 \
    case RELU: CALL(RELU); break;             \
    case LEAKY_RELU: CALL(LEAKY_RELU); break; \
    case TANH: CALL(TANH); break;             \
    case SOFTPLUS: CALL(SOFTPLUS); break;     \
    case SIGMOID: CALL(SIGMOID); break;       \
    default: CALL(IDENTITY);                  \
  }

// --- blocks ----------------------------------------------------------------------------------------------------

// Trials go through a block some at a time, so that what passes from step to step stays in the first-level cache.
static int at_once(int n) { return 3072 / n > 24 ? 3072 / n : 24; }

// `states` begins with the state before the block; `drives` may be null
static void forward(int activation, float s, const float* packed, const float* leak, const float* external, float* states,
                    float* drives, int trials, int n, int steps, const Skips& skips) {
  const size_t size = (size_t)trials * n;
  const int many = at_once(n);
  float* scratch = drives ? nullptr : (float*)malloc(sizeof(float) * many * n);
  for (int r = 0; r < trials; r += many) {
    const int rows = trials - r < many ? trials - r : many;
    for (int j = 0; j < steps; ++j) {
      const size_t at = j * size + (size_t)r * n;
      const float* h = states + at;
      float *next = states + at + size, *d = drives ? drives + at : scratch;
      multiply(h, rows, packed, n, external + at, d);
#define MOVE(F) leak ? leak_all<F>(d, h, leak, next, rows, n, s) : move_all<F>(d, next, rows * n, s)
      FOR_ACTIVATION(MOVE)
#undef MOVE
      if (!skips.n) continue;
      const Skips now = skips_at(skips, (size_t)j * trials + r);
      if (!any(now, rows, BEGINS | ARRIVES)) continue;
#define SKIP(F) skip<F>(now, r, d, h, leak, next, rows, n, s)
      FOR_ACTIVATION(SKIP)
#undef SKIP
    }
  }
  free(scratch);
}

// From the last of `steps` to the first: `g` is the cotangent of the state after them and becomes that of the one before.
// `drives` may be null where there is no leak, no skip, and the state tells the slope; there they are not read.
// Cotangents of all drives are left in `g_drives`, the gradients of matrix and leak are added to.
static void backward(int activation, float s, const float* packed, const float* leak, const float* states,
                     const float* drives, const float* g_after, float* g, float* g_drives, float* g_matrix, float* g_leak,
                     int trials, int n, int steps, const Skips& skips) {
  const size_t size = (size_t)trials * n;
  const int many = at_once(n);
  if (!leak && !skips.n && tells_slope(activation)) drives = nullptr;
  const float* zeros = skips.n ? (float*)calloc((size_t)many * n, sizeof(float)) : nullptr;
  float* kept = leak ? (float*)malloc(sizeof(float) * many * n) : nullptr;
  for (int r = 0; r < trials; r += many) {
    const int rows = trials - r < many ? trials - r : many;
    float* cotangent = g + (size_t)r * n;
    for (int j = steps - 1; j >= 0; --j) {
      const size_t at = j * size + (size_t)r * n;
      const float *h = states + at, *d = drives ? drives + at : nullptr, *after = g_after + at;
      float* g_drive = g_drives + at;
      const Skips now = skips_at(skips, (size_t)j * trials + r);
      const bool begins = skips.n && any(now, rows, BEGINS);
      if (skips.n && any(now, rows, ARRIVES)) {
        arrive_back(now, r, after, cotangent, rows, n);
        after = zeros;
      }
#define BACK(F)                                                                       \
  leak ? leak_back<F>(d, h, leak, cotangent, after, g_drive, kept, g_leak, rows, n, s) \
  : d  ? move_back<F>(d, cotangent, after, g_drive, rows * n, s)                       \
       : move_back_at<F>(h + size, cotangent, after, g_drive, rows * n)
      FOR_ACTIVATION(BACK)
#undef BACK
      if (begins) {  // before the product, which takes the drive's part on to the state
#define REACH(F) reach_back<F>(now, r, d, h, leak, g_drive, g_leak, rows, n, s)
        FOR_ACTIVATION(REACH)
#undef REACH
      }
      multiply(g_drive, rows, packed, n, kept, cotangent);
      if (begins) begin_back(now, r, leak, cotangent, rows, n);
    }
  }
  free(kept);
  free((void*)zeros);
  add_outer(g_drives, n, states, n, trials * steps, g_matrix);
}

}  // namespace INSTRUCTIONS
