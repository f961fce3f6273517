// What XLA calls. Arrays that are written in place come back as results; XLA has made them the same memory.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "table.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace plain {
extern const Table table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Table table;
}
namespace avx512 {
extern const Table table;
}
#endif

// What the processor has, or less if POPRNN_KERNELS names it.
static const char* instructions() {
#if defined(__x86_64__)
  const char* named = std::getenv("POPRNN_KERNELS");
  const bool plain = named && !std::strcmp(named, "plain"), two = named && !std::strcmp(named, "avx2");
  __builtin_cpu_init();
  if (plain || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return "plain";
  if (two || !__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl"))
    return "avx2";
  return "avx512";
#endif
  return "plain";
}

static const Table& choose() {
#if defined(__x86_64__)
  const char* name = instructions();
  if (name[3] == '5') return avx512::table;
  if (name[3] == '2') return avx2::table;
#endif
  return plain::table;
}

static const Table& table() {
  static const Table& chosen = choose();
  return chosen;
}

using Float = ffi::Buffer<ffi::F32>;
using Number = ffi::Buffer<ffi::S32>;
using FloatOut = ffi::ResultBuffer<ffi::F32>;
using Marks = ffi::Buffer<ffi::U8>;
using MarksOut = ffi::ResultBuffer<ffi::U8>;
using NumberOut = ffi::ResultBuffer<ffi::S32>;

static const float* leak_of(const Float& leak) { return leak.element_count() ? leak.typed_data() : nullptr; }

// marks [lane, time, trial], numbers = (weight, reach of the first lane); at a weight of 1 there is nothing to do.
static Skips skips_of(const Marks& marks, const Float& numbers, size_t first, FloatOut& regular, FloatOut& strategic) {
  if (!marks.element_count() || numbers.typed_data()[0] == 1.0f) return {};
  const float weight = numbers.typed_data()[0], reach = numbers.typed_data()[1];
  const auto shape = marks.dimensions();
  const size_t trials = (size_t)shape[2], lane = (size_t)shape[1] * trials;
  const uint8_t* at = marks.typed_data() + first * trials;
  return {(int)shape[0], weight, {{at, reach, regular->typed_data()}, {at + lane, 0, strategic->typed_data()}}};
}

// matrix [to, from]
static ffi::Error pack(Float matrix, bool transposed, FloatOut packed) {
  table().pack(matrix.typed_data(), transposed, (int)matrix.dimensions()[0], packed->typed_data());
  return ffi::Error::Success();
}

// external [time, trial, unit]; states and drives [row, trial, unit], of which places = (first row, steps) are this block's.
// What is left of a block after its steps keeps the last state.
static ffi::Error forward(Float packed, Float leak, Float slope, Float external, Float states, Float drives, Number places,
                          Marks marks, Float skips, Float regular, Float strategic, int32_t activation, FloatOut states_out,
                          FloatOut drives_out, FloatOut regular_out, FloatOut strategic_out) {
  (void)states, (void)drives, (void)regular, (void)strategic;
  const auto shape = external.dimensions();
  const int size = (int)shape[0], trials = (int)shape[1], n = (int)shape[2], steps = places.typed_data()[1];
  const size_t step = (size_t)trials * n, first = (size_t)places.typed_data()[0];
  float* h = states_out->typed_data() + first * step;
  float* d = drives_out->element_count() ? drives_out->typed_data() + first * step : nullptr;
  table().forward(activation, slope.typed_data()[0], packed.typed_data(), leak_of(leak), external.typed_data(), h, d, trials,
                  n, steps, skips_of(marks, skips, 0, regular_out, strategic_out));
  for (int j = steps; j < size; ++j) {
    std::copy_n(h + steps * step, step, h + (j + 1) * step);
    if (d) std::copy_n(external.typed_data() + j * step, step, d + j * step);
  }
  return ffi::Error::Success();
}

// places = (row of the first state, row of the first drive, first step to walk, one past the last)
static ffi::Error backward(Float packed, Float leak, Float slope, Float states, Float drives, Float g_after, Float g,
                           Float g_matrix, Float g_leak, Number places, Marks marks, Float skips, Float g_regular,
                           Float g_strategic, int32_t activation, FloatOut g_out, FloatOut g_matrix_out, FloatOut g_leak_out,
                           FloatOut g_drives, FloatOut g_regular_out, FloatOut g_strategic_out) {
  (void)g, (void)g_matrix, (void)g_leak, (void)g_regular, (void)g_strategic;
  const auto shape = g_after.dimensions();
  const int size = (int)shape[0], trials = (int)shape[1], n = (int)shape[2];
  const int32_t* at = places.typed_data();
  const size_t step = (size_t)trials * n, first = (size_t)at[2], end = std::max(at[2], at[3]);
  float* out = g_drives->typed_data();
  std::fill_n(out, first * step, 0.0f);
  std::fill_n(out + end * step, (size - end) * step, 0.0f);
  const float* d = drives.element_count() ? drives.typed_data() + (at[1] + first) * step : nullptr;
  table().backward(activation, slope.typed_data()[0], packed.typed_data(), leak_of(leak),
                   states.typed_data() + (at[0] + first) * step, d,
                   g_after.typed_data() + first * step, g_out->typed_data(), out + first * step, g_matrix_out->typed_data(),
                   g_leak_out->typed_data(), trials, n, (int)(end - first),
                   skips_of(marks, skips, first, g_regular_out, g_strategic_out));
  return ffi::Error::Success();
}

// n_since [trial], starts [trial, period], ends [trial, skip, (from, to)], numbers = (span, time of the first step, steps)
// -> marks [lane, time, trial]: regular skips, then strategic ones; n_since after the steps
static ffi::Error marks(Number n_since, Number starts, Number ends, Number numbers, MarksOut out, NumberOut n_since_out) {
  const auto shape = out->dimensions();
  const int trials = (int)shape[2], n_periods = (int)starts.dimensions()[1], n_skips = (int)ends.dimensions()[1];
  const int span = numbers.typed_data()[0], time = numbers.typed_data()[1], steps = numbers.typed_data()[2];
  uint8_t *regular = out->typed_data(), *strategic = regular + shape[1] * trials;
  std::fill_n(regular, out->element_count(), (uint8_t)0);
  const auto mark = [=](uint8_t* lane, int at, int r, Mark which) {
    if (at >= time && at - time < steps) lane[(size_t)(at - time) * trials + r] |= which;
  };
  for (int r = 0; r < trials; ++r) {
    for (int k = 0; k < n_periods; ++k) mark(regular, starts.typed_data()[r * n_periods + k], r, BEGINS);
    for (int k = 0; k < n_skips; ++k) {
      const int32_t* skip = ends.typed_data() + 2 * (r * n_skips + k);
      mark(strategic, skip[0], r, BEGINS);
      mark(strategic, skip[1] - 1, r, ARRIVES);
    }
    int n = n_since.typed_data()[r];
    for (int j = 0; j < steps; ++j) {
      uint8_t& now = regular[(size_t)j * trials + r];
      if (n == 0) now |= BEGINS;
      n = now ? 1 : n + 1;
      if (n != span) continue;
      now |= ARRIVES;
      n = 0;
    }
    n_since_out->typed_data()[r] = n;
  }
  return ffi::Error::Success();
}

// a [row, i], b [row, k] -> [i, k]
static ffi::Error outer(Float a, Float b, FloatOut sums) {
  std::fill_n(sums->typed_data(), sums->element_count(), 0.0f);
  const int rows = (int)a.dimensions()[0], n_a = (int)a.dimensions()[1], n_b = (int)b.dimensions()[1];
  table().add_outer(a.typed_data(), n_a, b.typed_data(), n_b, rows, sums->typed_data());
  return ffi::Error::Success();
}

// keys [trial, 2] -> [time, trial, unit]
static ffi::Error normals(ffi::Buffer<ffi::U32> keys, ffi::Buffer<ffi::U32> first_time, FloatOut to) {
  const auto shape = to->dimensions();
  table().normals(keys.typed_data(), first_time.typed_data()[0], (int)shape[1], (int)shape[2], (int)shape[0],
                  to->typed_data());
  return ffi::Error::Success();
}

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(poprnn_pack, pack, ffi::Ffi::Bind().Arg<Float>().Attr<bool>("transposed").Ret<Float>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(poprnn_forward, forward,
                              ffi::Ffi::Bind()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Number>()
                                  .Arg<Marks>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Attr<int32_t>("activation")
                                  .Ret<Float>()
                                  .Ret<Float>()
                                  .Ret<Float>()
                                  .Ret<Float>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(poprnn_backward, backward,
                              ffi::Ffi::Bind()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Number>()
                                  .Arg<Marks>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Arg<Float>()
                                  .Attr<int32_t>("activation")
                                  .Ret<Float>()
                                  .Ret<Float>()
                                  .Ret<Float>()
                                  .Ret<Float>()
                                  .Ret<Float>()
                                  .Ret<Float>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(poprnn_marks, marks,
                              ffi::Ffi::Bind().Arg<Number>().Arg<Number>().Arg<Number>().Arg<Number>().Ret<Marks>().Ret<
                                  Number>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(poprnn_outer, outer, ffi::Ffi::Bind().Arg<Float>().Arg<Float>().Ret<Float>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(poprnn_normals, normals,
                              ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::U32>>().Arg<ffi::Buffer<ffi::U32>>().Ret<Float>());

extern "C" const char* poprnn_instructions() { return instructions(); }

#pragma GCC visibility pop
