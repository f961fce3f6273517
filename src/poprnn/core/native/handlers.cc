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

static const float* leak_of(const Float& leak) { return leak.element_count() ? leak.typed_data() : nullptr; }

// matrix [to, from]
static ffi::Error pack(Float matrix, bool transposed, FloatOut packed) {
  table().pack(matrix.typed_data(), transposed, (int)matrix.dimensions()[0], packed->typed_data());
  return ffi::Error::Success();
}

// external [time, trial, unit]; states and drives [row, trial, unit], of which places = (first row, steps) are this block's.
// What is left of a block after its steps keeps the last state.
static ffi::Error forward(Float packed, Float leak, Float slope, Float external, Float states, Float drives, Number places,
                          int32_t activation, FloatOut states_out, FloatOut drives_out) {
  (void)states, (void)drives;
  const auto shape = external.dimensions();
  const int size = (int)shape[0], trials = (int)shape[1], n = (int)shape[2], steps = places.typed_data()[1];
  const size_t step = (size_t)trials * n, first = (size_t)places.typed_data()[0];
  float* h = states_out->typed_data() + first * step;
  float* d = drives_out->element_count() ? drives_out->typed_data() + first * step : nullptr;
  table().forward(activation, slope.typed_data()[0], packed.typed_data(), leak_of(leak), external.typed_data(), h, d, trials,
                  n, steps);
  for (int j = steps; j < size; ++j) {
    std::copy_n(h + steps * step, step, h + (j + 1) * step);
    if (d) std::copy_n(external.typed_data() + j * step, step, d + j * step);
  }
  return ffi::Error::Success();
}

// places = (row of the first state, row of the first drive, first step to walk, one past the last)
static ffi::Error backward(Float packed, Float leak, Float slope, Float states, Float drives, Float g_after, Float g,
                           Float g_matrix, Float g_leak, Number places, int32_t activation, FloatOut g_out,
                           FloatOut g_matrix_out, FloatOut g_leak_out, FloatOut g_drives) {
  (void)g, (void)g_matrix, (void)g_leak;
  const auto shape = g_after.dimensions();
  const int size = (int)shape[0], trials = (int)shape[1], n = (int)shape[2];
  const int32_t* at = places.typed_data();
  const size_t step = (size_t)trials * n, first = (size_t)at[2], end = std::max(at[2], at[3]);
  float* out = g_drives->typed_data();
  std::fill_n(out, first * step, 0.0f);
  std::fill_n(out + end * step, (size - end) * step, 0.0f);
  table().backward(activation, slope.typed_data()[0], packed.typed_data(), leak_of(leak),
                   states.typed_data() + (at[0] + first) * step, drives.typed_data() + (at[1] + first) * step,
                   g_after.typed_data() + first * step, g_out->typed_data(), out + first * step, g_matrix_out->typed_data(),
                   g_leak_out->typed_data(), trials, n, (int)(end - first));
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
                                  .Attr<int32_t>("activation")
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
                                  .Attr<int32_t>("activation")
                                  .Ret<Float>()
                                  .Ret<Float>()
                                  .Ret<Float>()
                                  .Ret<Float>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(poprnn_outer, outer, ffi::Ffi::Bind().Arg<Float>().Arg<Float>().Ret<Float>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(poprnn_normals, normals,
                              ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::U32>>().Arg<ffi::Buffer<ffi::U32>>().Ret<Float>());

extern "C" const char* poprnn_instructions() { return instructions(); }

#pragma GCC visibility pop
