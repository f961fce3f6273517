// What every instruction set offers.
#pragma once

#include <cstddef>
#include <cstdint>

enum Mark : uint8_t { BEGINS = 1, ARRIVES = 2 };

// Skips through time, of which a trial has at most one going on in every lane.
struct Lane {
  const uint8_t* marks;  // [step, trial]: what happens at a step
  float reach;           // a skip brings h + reach · (what the step from h adds) to its end
  float* anchors;        // [trial, unit]: what it brings; on the way back the cotangent of that
};

struct Skips {
  int n;         // lanes
  float weight;  // of the base dynamics where a skip arrives
  Lane lanes[2];
};

struct Table {
  void (*pack)(const float* matrix, bool transposed, int n, float* packed);
  void (*forward)(int activation, float slope, const float* packed, const float* leak, const float* external, float* states,
                  float* drives, int trials, int n, int steps, const Skips& skips);
  void (*backward)(int activation, float slope, const float* packed, const float* leak, const float* states,
                   const float* drives, const float* g_after, float* g, float* g_drives, float* g_matrix, float* g_leak,
                   int trials, int n, int steps, const Skips& skips);
  void (*add_outer)(const float* a, int n_a, const float* b, int n_b, int n_rows, float* sums);
  void (*normals)(const uint32_t* keys, uint32_t first_time, int trials, int n, int steps, float* to);
};
