// Rows of n samples that lie one after another, to n columns in registers and back: a register's width of rows at a
// time, read and written in whole registers that may hold pieces of several rows. A lane has the same row in every
// column.
//
// Let n = g m, g the largest power of two that divides n and is no wider than a register, and call g samples a piece.
// The lanes of m registers one after another hold E = lanes / g whole rows, row f / m at piece f % m in place f. In the
// same lane of these registers stand different pieces, since E and m have no common factor: renamed, register t has
// piece t + lane (modulo m) in every lane. So a rotation of the registers, by another distance in every lane, brings
// each piece into the register of its number, and a permutation of that one's lanes into the lane of its row (the
// decomposition of Catanzaro, Keller and Garland, A decomposition for in-place matrix transposition, 2014). Rotated is
// by powers of two, m selections each. What remains is to transpose squares of g samples.
#pragma once

#include <cstdint>

#include "lanes.h"
#include "transpose.h"

namespace pkpo::cpu {
namespace {

template <class Value, int n>
class AdjacentRows {
 public:
  using L = Lanes<Value>;
  using V = typename L::Vector;

  static inline __attribute__((always_inline)) void load(const Value* rows, V (&x)[n]) {
    if constexpr (g == lanes) {
      unrolled<n>([&]<int i>() { x[i] = L::load(rows + i % g * n + i / g * g); });
    } else {
      unrolled<g>([&]<int part>() __attribute__((always_inline)) {
        V y[m];
        unrolled<m>([&]<int r>() { y[E * r % m] = L::load(rows + (part * m + r) * lanes); });
        unrolled<kRounds>([&]<int i>() __attribute__((always_inline)) { rotate<1 << i, m - (1 << i) % m>(y); });
        unrolled<m>([&]<int j>() {
          x[j * g + part] = shuffle_by<V, lanes>(y[j], y[j], [](int l) { return (l / g * m + j) % E * g + l % g; });
        });
      });
    }
    unrolled<m>([&]<int j>() { transpose_squares<Value, g>(reinterpret_cast<V(&)[g]>(x[j * g])); });
  }

  static inline __attribute__((always_inline)) void store(V (&x)[n], Value* rows) {
    unrolled<m>([&]<int j>() { transpose_squares<Value, g>(reinterpret_cast<V(&)[g]>(x[j * g])); });
    if constexpr (g == lanes) {
      unrolled<n>([&]<int i>() { L::store(rows + i % g * n + i / g * g, x[i]); });
    } else {
      unrolled<g>([&]<int part>() __attribute__((always_inline)) {
        V y[m];
        unrolled<m>([&]<int j>() {
          const V& v = x[j * g + part];
          y[j] = shuffle_by<V, lanes>(v, v, [](int l) { return (l / g + E * m - j) * kInverse % E * g + l % g; });
        });
        unrolled<kRounds>([&]<int i>() __attribute__((always_inline)) { rotate<1 << i, (1 << i) % m>(y); });
        unrolled<m>([&]<int r>() { L::store(rows + (part * m + r) * lanes, y[E * r % m]); });
      });
    }
  }

 private:
  enum : int { lanes = L::count };
  static constexpr int piece() {
    int size = 1;
    while (n % (2 * size) == 0 && 2 * size <= lanes) size *= 2;
    return size;
  }
  static constexpr int rounds() {
    int count = 0;
    while (1 << count < (m < E ? m : E)) ++count;
    return count;
  }
  static constexpr int inverse() {  // of m, modulo E
    int i = 1;
    while (i * m % E != 1 % E) ++i;
    return i;
  }
  static constexpr int g = piece(), m = n / g, E = lanes / g, kRounds = rounds(), kInverse = inverse();

  // In the lanes whose distance has this bit, register j takes from j + by.
  template <int bit, int by>
  static inline __attribute__((always_inline)) void rotate(V (&y)[m]) {
    V from[m];
    unrolled<m>([&]<int j>() { from[j] = y[j]; });
    unrolled<m>([&]<int j>() {
      y[j] = shuffle_by<V, lanes>(from[j], from[(j + by) % m], [](int l) { return l / g % m & bit ? lanes + l : l; });
    });
  }
};

}  // namespace
}  // namespace pkpo::cpu
