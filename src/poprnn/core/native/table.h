// What every instruction set offers.
#pragma once

#include <cstdint>

struct Table {
  void (*pack)(const float* matrix, bool transposed, int n, float* packed);
  void (*forward)(int activation, float slope, const float* packed, const float* leak, const float* external, float* states,
                  float* drives, int trials, int n, int steps);
  void (*backward)(int activation, float slope, const float* packed, const float* leak, const float* states,
                   const float* drives, const float* g_after, float* g, float* g_drives, float* g_matrix, float* g_leak,
                   int trials, int n, int steps);
  void (*add_outer)(const float* a, int n_a, const float* b, int n_b, int n_rows, float* sums);
  void (*normals)(const uint32_t* keys, uint32_t first_time, int trials, int n, int steps, float* to);
};
