// Rows of samples to columns and back: column q holds sample q of every group of a block.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "lanes.h"

namespace pkpo::cpu {
namespace {

// shuffle() with the places given by a function of the lane.
template <class V, int lanes, class Place>
inline __attribute__((always_inline)) V shuffle_by(const V& a, const V& b, Place) {
  return [&]<size_t... j>(std::index_sequence<j...>) {
    return shuffle<V, Place{}(static_cast<int>(j))...>(a, b);
  }(std::make_index_sequence<lanes>());
}

// Transposes the `size` x `size` squares that lie side by side in `size` vectors, each square by itself.
template <class Value, int size>
inline __attribute__((always_inline)) void transpose_squares(typename Lanes<Value>::Vector (&v)[size]) {
  using V = typename Lanes<Value>::Vector;
  enum : int { lanes = Lanes<Value>::count, in_16_bytes = 16 / sizeof(Value) };
  // Exchange of off-diagonal quarters, down to squares of 16 bytes a row: whole 16-byte pieces move.
  const auto exchange_quarters = [&]<int half>() {
    for (int i = 0; i < size; ++i) {
      if (i & half) continue;
      const V a = v[i], b = v[i + half];
      v[i] = shuffle_by<V, lanes>(a, b, [](int j) { return j & half ? lanes + j - half : j; });
      v[i + half] = shuffle_by<V, lanes>(a, b, [](int j) { return j & half ? lanes + j : j + half; });
    }
  };
  if constexpr (size / 2 >= in_16_bytes) exchange_quarters.template operator()<size / 2>();
  if constexpr (size / 4 >= in_16_bytes) exchange_quarters.template operator()<size / 4>();
  if constexpr (size / 8 >= in_16_bytes) exchange_quarters.template operator()<size / 8>();
  if constexpr (size < in_16_bytes) {
    if constexpr (size == 2) exchange_quarters.template operator()<1>();
    return;
  }
  const auto low = [](const V& a, const V& b) {  // the first halves of the 16 bytes, interleaved
    return shuffle_by<V, lanes>(a, b, [](int j) {
      const int in = j % in_16_bytes;
      return j - in + in / 2 + (in % 2 ? lanes : 0);
    });
  };
  const auto high = [](const V& a, const V& b) {
    return shuffle_by<V, lanes>(a, b, [](int j) {
      const int in = j % in_16_bytes;
      return j - in + in_16_bytes / 2 + in / 2 + (in % 2 ? lanes : 0);
    });
  };
  if constexpr (in_16_bytes == 2) {
    for (int i = 0; i < size; i += 2) {
      const V a = v[i], b = v[i + 1];
      v[i] = low(a, b);
      v[i + 1] = high(a, b);
    }
  } else {
    const auto lower = [](const V& a, const V& b) {
      return shuffle_by<V, lanes>(a, b, [](int j) { return j % 4 < 2 ? j : lanes + j - 2; });
    };
    const auto upper = [](const V& a, const V& b) {
      return shuffle_by<V, lanes>(a, b, [](int j) { return j % 4 < 2 ? j + 2 : lanes + j; });
    };
    for (int i = 0; i < size; i += 4) {
      const V a = low(v[i], v[i + 1]), b = high(v[i], v[i + 1]);
      const V c = low(v[i + 2], v[i + 3]), d = high(v[i + 2], v[i + 3]);
      v[i] = lower(a, c);
      v[i + 1] = upper(a, c);
      v[i + 2] = lower(b, d);
      v[i + 3] = upper(b, d);
    }
  }
}

// Squares of this many samples are used for groups of n: the smallest that hold them, at most a register wide.
template <class Value>
constexpr int square_size(int64_t n) {
  constexpr int lanes = Lanes<Value>::count;
  return lanes >= 16 && n <= lanes / 4 ? lanes / 4 : lanes >= 8 && n <= lanes / 2 ? lanes / 2 : lanes;
}

// `size` samples from `begin` of the rows that share a vector: row i, row i + size, ...
template <class Value, int size, int lanes>
inline __attribute__((always_inline)) auto gather_rows(const Value* const* rows, int64_t begin) {
  using V = typename VectorOf<Value, lanes>::type;
  if constexpr (lanes == size) {
    return load_vector<V>(rows[0] + begin);
  } else {
    return join<V>(gather_rows<Value, size, lanes / 2>(rows, begin),
                   gather_rows<Value, size, lanes / 2>(rows + lanes / 2, begin));
  }
}

template <class Value, int size>
void square_to_columns(const Value* const* rows, int64_t begin, Value* columns) {
  constexpr int lanes = Lanes<Value>::count;
  typename Lanes<Value>::Vector v[size];
  unrolled<size>([&]<int i>() { v[i] = gather_rows<Value, size, lanes>(rows + i, begin); });
  transpose_squares<Value, size>(v);
  unrolled<size>([&]<int i>() { Lanes<Value>::store(columns + i * lanes, v[i]); });
}

// The first m of `size` elements, as two pieces that may overlap.
template <int size, class Value>
inline __attribute__((always_inline)) void copy_first(const Value* from, int64_t m, Value* to) {
  constexpr int half = size / 2;
  if constexpr (size == 1) {
    if (m > 0) *to = *from;
  } else if (m < half) {
    copy_first<half>(from, m, to);
  } else {
    std::memcpy(to, from, half * sizeof(Value));
    std::memcpy(to + m - half, from + m - half, half * sizeof(Value));
  }
}

// Columns to rows, from `begin` on: `size` samples of the rows [0, whole), as much as there is of the rows [whole,
// count).
template <class Value, int size>
void columns_to_square(const Value* columns, int64_t begin, const int64_t* sizes, Value* const* rows, int64_t whole,
                       int64_t count) {
  constexpr int lanes = Lanes<Value>::count;
  typename Lanes<Value>::Vector v[size];
  unrolled<size>([&]<int i>() { v[i] = Lanes<Value>::load(columns + i * lanes); });
  transpose_squares<Value, size>(v);
  if (size == lanes && whole == lanes) {
    unrolled<size>([&]<int i>() { Lanes<Value>::store(rows[i] + begin, v[i]); });
    return;
  }
  for (int j = 0; j < lanes / size; ++j) {
    for (int i = 0; i < size; ++i) {
      const int64_t l = j * size + i;
      const Value* piece = reinterpret_cast<const Value*>(&v[i]) + j * size;
      if (l < whole) {
        std::memcpy(rows[l] + begin, piece, size * sizeof(Value));
      } else if (l < count && sizes[l] > begin) {
        copy_first<size>(piece, std::min<int64_t>(sizes[l] - begin, size), rows[l] + begin);
      }
    }
  }
}

// Calls square<size>(begin) so that the squares beginning there cover n samples; the last one may overlap the one
// before.
template <class Value, class Square>
inline void for_each_square(int64_t n, Square square) {
  constexpr int lanes = Lanes<Value>::count;
  if constexpr (lanes >= 16) {
    if (n <= lanes / 4) return square.template operator()<lanes / 4>(0);
  }
  if constexpr (lanes >= 8) {
    if (n <= lanes / 2) return square.template operator()<lanes / 2>(0);
  }
  for (int64_t begin = 0; begin + lanes <= n; begin += lanes) square.template operator()<lanes>(begin);
  if (n % lanes != 0) square.template operator()<lanes>(n > lanes ? n - lanes : 0);
}

// rows[l], l < lanes, to columns: reads n samples of each row, or one square where that is more.
template <class Value>
void rows_to_columns(const Value* const* rows, int64_t n, Value* columns) {
  for_each_square<Value>(n, [=]<int size>(int64_t begin) {
    square_to_columns<Value, size>(rows, begin, columns + begin * Lanes<Value>::count);
  });
}

// Columns to rows[l] for l < count, all of n samples if same_size, else of at most n. Writes the samples of each row
// and nothing else, but reads columns up to a whole square. adjacent: row l + 1 begins where row l ends.
template <class Value>
void columns_to_rows(const Value* columns, int64_t n, Value* const* rows, const int64_t* sizes, int64_t count,
                     bool same_size, bool adjacent) {
  for_each_square<Value>(n, [=]<int size>(int64_t begin) {
    // Up to here rows can be written a whole piece at a time: what is written behind one is overwritten by the next.
    const int64_t whole = !same_size ? 0 : n >= size ? count : adjacent ? count - (size - 1) / n : 0;
    columns_to_square<Value, size>(columns + begin * Lanes<Value>::count, begin, sizes, rows, whole, count);
  });
}

// `lanes` rows of `length` float64, a multiple of a register's width, to columns.
template <int lanes>
void tables_to_columns(const double* rows, int64_t length, double* columns) {
  enum : int { size = Lanes<double>::count };
  for (int l = 0; l < lanes; l += size) {
    for (int64_t begin = 0; begin < length; begin += size) {
      Lanes<double>::Vector v[size];
      unrolled<size>([&]<int i>() { v[i] = Lanes<double>::load(rows + (l + i) * length + begin); });
      transpose_squares<double, size>(v);
      unrolled<size>([&]<int i>() { Lanes<double>::store(columns + (begin + i) * lanes + l, v[i]); });
    }
  }
}

}  // namespace
}  // namespace pkpo::cpu
