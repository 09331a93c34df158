// Groups of many tiles sorted over the whole device: from the last digit of their keys to the first, eight bits at a
// time, every pass stable. A block counts the digits of a tile; the counts of a group are summed up, digit by digit and
// tile by tile, to the places where each tile's samples of each digit begin; a block brings a tile's samples into the
// order of their digits in shared memory, and from there to those places, samples of one digit side by side. In groups
// of up to 32 tiles it sums the counts itself, else passes of their own do.
//
// Cost, float32: four passes, each of which reads a key of 4 bytes to count it, and reads and writes the key and the
// sample's number, 20 bytes; the first reads the reward alone, 16. In a pass no block waits for another.
#pragma once

#include "cuda/coefficients.cuh"
#include "cuda/passes.cuh"
#include "cuda/rows.cuh"
#include "cuda/tiles.cuh"

namespace pkpo::cuda {

constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
constexpr int kSorters = kDigits;  // threads of a block that sorts, one a digit at least

// The bits below this one are the same in all keys of one sign, so that they order nothing.
__host__ __device__ inline uint32_t first_bit(DType dtype) {
  switch (dtype) {
    case DType::bfloat16:
    case DType::boolean:
    case DType::uint8:
    case DType::int8:
    case DType::int32:  // 21 of a float64's
      return 16;
    case DType::float16:
    case DType::int16:
      return 8;
    default:
      return 0;
  }
}

// Keys and the samples' numbers in the group, where the group stands in the workspace; and where they go to.
template <class V>
struct Sorting {
  KeyOf<V>*keys, *keys_to;
  uint32_t *samples, *samples_to;
  uint32_t* counts;  // a digit of a tile each; once placed, where in the group that digit of the tile goes
  uint32_t* sums;    // a digit of a chunk each, in the row of the chunk's first tile

  // The way back.
  __host__ __device__ Sorting turned() const { return {keys_to, keys, samples_to, samples, counts, sums}; }
};

template <class Key>
__device__ inline uint32_t digit_of(Key key, uint32_t shift) {
  return static_cast<uint32_t>(key >> shift) & (kDigits - 1);
}

// The keys of the rewards at, at + step and so on of which `limit` is above their distance from `at`; all bits for
// others.
template <int I, class V>
__device__ inline void load_keys(const Batch& batch, int64_t at, int step, int limit, KeyOf<V> (&key)[I]) {
  const auto load = [&]<class Bits>(Bits) {
    const Bits* rewards = static_cast<const Bits*>(batch.rewards) + at;
    Bits bits[I];
#pragma unroll
    for (int i = 0; i < I; ++i) bits[i] = i * step < limit ? rewards[i * step] : Bits(0);
#pragma unroll
    for (int i = 0; i < I; ++i) {
      key[i] = i * step < limit ? key_of(value_of_bits<V>(bits[i], batch.dtype)) : ~KeyOf<V>(0);
    }
  };
  const int log_bytes = log_bytes_of(batch.dtype);
  if constexpr (sizeof(V) == 8) {
    if (log_bytes == 3) {
      load(uint64_t{});
    } else {
      load(uint32_t{});
    }
  } else {
    if (log_bytes == 2) {
      load(uint32_t{});
    } else if (log_bytes == 1) {
      load(uint16_t{});
    } else {
      load(uint8_t{});
    }
  }
}

// Has a thread a digit of its own?
template <int L>
__device__ inline bool has_digit(int thread) {
  return L == kDigits || thread < kDigits;
}

template <class V, bool first>
struct CountDigits : Pass<kSorters> {
  template <int L>
  __device__ static void run(const Batch& batch, const Tiles& tiles, const Sorting<V>& sorting, uint32_t shift) {
    using Key = KeyOf<V>;
    constexpr int I = kTile / L;
    __shared__ uint32_t counts[kDigits];
    const int thread = static_cast<int>(threadIdx.x);
    tiles.for_each([&](const Tile& tile, int64_t number) {
      if (has_digit<L>(thread)) counts[thread] = 0;
      __syncthreads();
      const int size = static_cast<int>(tile.samples());
      if constexpr (first) {
        Key key[I];
        load_keys<I, V>(batch, tile.begin + tile.first + thread, L, size - thread, key);
#pragma unroll
        for (int i = 0; i < I; ++i) {
          if (i * L < size - thread) atomicAdd(&counts[digit_of(key[i], shift)], 1u);
        }
      } else {
        using Keys = Piece<Key>;
        constexpr int kPieces = I / Keys::kItems;
        const Key* keys = sorting.keys + tile.place() + tile.first;
        if (size == kTile) {
          Keys piece[kPieces];
#pragma unroll
          for (int i = 0; i < kPieces; ++i) piece[i] = reinterpret_cast<const Keys*>(keys)[i * L + thread];
#pragma unroll
          for (int i = 0; i < I; ++i) {
            atomicAdd(&counts[digit_of(piece[i / Keys::kItems].item[i % Keys::kItems], shift)], 1u);
          }
        } else {
          for (int i = thread; i < size; i += L) atomicAdd(&counts[digit_of(keys[i], shift)], 1u);
        }
      }
      __syncthreads();
      if (has_digit<L>(thread)) sorting.counts[number * kDigits + thread] = counts[thread];
    });
  }
};

// Calls body(row, count) for the rows of counts of a thread's digit, so many of them read at once.
template <uint32_t kAtOnce, class Body>
__device__ inline void for_each_row(const uint32_t* counts, uint32_t rows, int64_t step, Body body) {
  for (uint32_t from = 0; from < rows; from += kAtOnce) {
    uint32_t count[kAtOnce];
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) count[i] = from + i < rows ? counts[(from + i) * step] : 0;
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      if (from + i < rows) body(from + i, count[i]);
    }
  }
}

__device__ inline uint32_t tiles_of_chunk(const Tile& first) {
  const uint32_t left = first.tiles() - first.first / kTile;
  return left < kChunk ? left : kChunk;
}

template <class V>
struct SumChunks : Pass<kSorters> {
  template <int L>
  __device__ static void run(const Tiles& tiles, const Sorting<V>& sorting) {
    tiles.for_each_chunk([&](const Tile& tile, int64_t number) {
      const bool has_one = has_digit<L>(static_cast<int>(threadIdx.x));
      const int64_t row = number * kDigits + threadIdx.x;
      uint32_t sum = 0;
      for_each_row<8>(sorting.counts + row, has_one ? tiles_of_chunk(tile) : 0, kDigits,
                      [&](uint32_t, uint32_t count) { sum += count; });
      if (has_one) sorting.sums[row] = sum;
    });
  }
};

// Counts become places: in a chunk from what was summed for those before it.
template <class V>
struct PlaceDigits : Pass<kSorters> {
  template <int L>
  __device__ static void run(const Tiles& tiles, const Sorting<V>& sorting) {
    tiles.for_each_chunk([&](const Tile& tile, int64_t number) {
      const Team<L> team = Team<L>().here();
      uint32_t* counts = sorting.counts + number * kDigits + team.thread;
      const uint32_t chunks = (tile.tiles() - 1) / kChunk + 1, own = tile.first / kTile / kChunk;
      const bool has_one = has_digit<L>(team.thread);
      uint32_t all = 0, before = 0;  // of this digit
      if (chunks == 1) {
        for_each_row<8>(counts, has_one ? tile.tiles() : 0, kDigits, [&](uint32_t, uint32_t count) { all += count; });
      } else {
        for_each_row<8>(sorting.sums + tile.slot * kDigits + team.thread, has_one ? chunks : 0,
                        int64_t{kDigits} * kChunk, [&](uint32_t chunk, uint32_t sum) {
                          all += sum;
                          before += chunk < own ? sum : 0;
                        });
      }
      uint32_t place = team.parts(all, 0u, Add()).before + before;
      for_each_row<8>(counts, has_one ? tiles_of_chunk(tile) : 0, kDigits, [&](uint32_t row, uint32_t count) {
        counts[row * kDigits] = place;
        place += count;
      });
    });
  }
};

// The lanes of a warp that have the digit of this one.
__device__ inline uint32_t lanes_with(uint32_t digit) {
  uint32_t lanes = kAllLanes;
#pragma unroll
  for (int bit = 0; bit < kDigitBits; ++bit) lanes &= lanes_alike(digit, 1u << bit);
  return lanes;
}

template <class V, int L>
struct ScatterMemory {
  KeyOf<V> keys[kTile];  // in the order of their digits
  uint32_t samples[kTile];
  uint32_t counts[L / kWarp][kDigits];  // of a warp; then where its samples of the digit begin in the tile
  uint32_t places[kDigits];             // where the tile's of a digit go; then from its order to the group's
  uint32_t totals[kDigits];             // of the group
};

template <class V, bool first>
struct ScatterDigits : Pass<kSorters, sizeof(V) == 4 ? 4 : 2> {
  template <int L>
  static constexpr size_t kShared = sizeof(ScatterMemory<V, L>);

  template <int L>
  __device__ static void run(const Batch& batch, const Tiles& tiles, const Sorting<V>& sorting, uint32_t shift,
                             bool placed) {
    using Key = KeyOf<V>;
    using Memory = ScatterMemory<V, L>;
    constexpr int I = kTile / L;
    Memory& memory = *reinterpret_cast<Memory*>(dynamic_shared());
    tiles.for_each([&](const Tile& tile, int64_t number) {
      const Team<L> team = Team<L>().here();
      const int thread = team.thread, lane = thread % kWarp, warp = thread / kWarp;
      const uint32_t below = (1u << lane) - 1, above = ~below << 1;  // lanes
      uint32_t* counts = memory.counts[warp];
      const int size = static_cast<int>(tile.samples());
      // A warp has its samples one after another, for the passes must be stable. What is missing comes behind the rest.
      const int at = warp * kWarp * I + lane, limit = size - at;
      Key key[I];
      if constexpr (first) {
        load_keys<I, V>(batch, tile.begin + tile.first + at, kWarp, limit, key);
      } else {
        bring_ahead<L>(sorting.samples + tile.place() + tile.first, size, team.thread, memory.samples);
        const Key* keys = sorting.keys + tile.place() + tile.first + at;
#pragma unroll
        for (int i = 0; i < I; ++i) key[i] = i * kWarp < limit ? keys[i * kWarp] : ~Key(0);
      }
      // Asked for with the keys, not when it is needed; it waits where registers are not taken.
      const bool has_one = has_digit<L>(thread);
      if (placed) {
        if (has_one) memory.places[team.thread] = sorting.counts[number * kDigits + team.thread];
      } else if (has_one) {
        uint32_t all = 0, place = 0;
        for_each_row<4>(sorting.counts + tile.slot * kDigits + team.thread, tile.tiles(), kDigits,
                        [&](uint32_t row, uint32_t count) {
                          all += count;
                          place += tile.slot + row < number ? count : 0;
                        });
        memory.places[team.thread] = place;
        memory.totals[team.thread] = all;
      }
#pragma unroll
      for (int i = 0; i < kDigits / kWarp; ++i) counts[i * kWarp + lane] = 0;
      __syncwarp();
      uint32_t ranks[I / 2] = {};  // among the warp's samples of the digit, 16 bits each
#pragma unroll
      for (int i = 0; i < I; ++i) {
        const uint32_t digit = digit_of(key[i], shift), lanes = lanes_with(digit);
        const uint32_t rank = counts[digit] + __popc(lanes & below);
        __syncwarp();
        if (!(lanes & above)) counts[digit] = rank + 1;
        ranks[i / 2] |= rank << i % 2 * 16;
        __syncwarp();
      }
      const auto rank_of = [&](int i) { return ranks[i / 2] >> i % 2 * 16 & 0xffffu; };
      if constexpr (!first) wait_for_copies();
      __syncthreads();
      uint32_t own = 0;
#pragma unroll
      for (int w = 0; w < L / kWarp; ++w) own += has_one ? memory.counts[w][team.thread] : 0;
      uint32_t begin = team.parts(own, 0u, Add()).before, of_group = 0;
      if (!placed) of_group = team.parts(has_one ? memory.totals[team.thread] : 0u, 0u, Add()).before;
      if (has_one) {
        memory.places[team.thread] += of_group - begin;
#pragma unroll
        for (int w = 0; w < L / kWarp; ++w) {
          const uint32_t count = memory.counts[w][team.thread];
          memory.counts[w][team.thread] = begin;
          begin += count;
        }
      }
      __syncthreads();
      uint32_t sample[I];
#pragma unroll
      for (int i = 0; i < I; ++i) {
        ranks[i / 2] += counts[digit_of(key[i], shift)] << i % 2 * 16;  // now in the tile
        memory.keys[rank_of(i)] = key[i];
        sample[i] = first ? tile.first + at + i * kWarp : memory.samples[at + i * kWarp];
      }
      if constexpr (!first) __syncthreads();
#pragma unroll
      for (int i = 0; i < I; ++i) memory.samples[rank_of(i)] = sample[i];
      __syncthreads();
      Key* keys_to = sorting.keys_to + tile.place();
      uint32_t* samples_to = sorting.samples_to + tile.place();
#pragma unroll
      for (int i = 0; i < I; ++i) {
        const int from = i * L + team.thread;
        if (from >= size) break;
        const Key its_key = memory.keys[from];
        const uint32_t to = memory.places[digit_of(its_key, shift)] + from;
        keys_to[to] = its_key;
        samples_to[to] = memory.samples[from];
      }
      __syncthreads();
    });
  }
};

// Are counts summed up to places in passes of their own?
inline bool placed_apart(const Batch& batch) {
  return (batch.offsets.data ? batch.samples : batch.width) > int64_t{kChunk} * kTile;
}

// The passes of a sort; afterwards `keys` and `samples` are sorted, and what they went to is free.
#pragma nv_exec_check_disable
template <class V, class Way>
__host__ __device__ void sort_groups(const Batch& batch, const Tiles& tiles, const Sorting<V>& sorting, bool placed,
                                     Way& way) {
  const uint32_t begin = first_bit(batch.dtype), end = 8 * sizeof(V);
  for (uint32_t shift = begin; shift < end; shift += kDigitBits) {
    // The last one goes to the keys; what is before the first does not matter, which reads rewards.
    const Sorting<V> from = (end - shift) / kDigitBits % 2 == 1 ? sorting.turned() : sorting;
    if (shift == begin) {
      way.template pass<CountDigits<V, true>>(batch, tiles, from, shift);
    } else {
      way.template pass<CountDigits<V, false>>(batch, tiles, from, shift);
    }
    if (placed) {
      way.template pass<SumChunks<V>>(tiles, from);
      way.template pass<PlaceDigits<V>>(tiles, from);
    }
    if (shift == begin) {
      way.template pass<ScatterDigits<V, true>>(batch, tiles, from, shift, placed);
    } else {
      way.template pass<ScatterDigits<V, false>>(batch, tiles, from, shift, placed);
    }
  }
}

}  // namespace pkpo::cuda
