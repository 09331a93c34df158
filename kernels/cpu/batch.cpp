// A batch of groups, for one instruction set and one type that rewards are compared as: elements become such values,
// groups of similar size are put side by side into blocks (columns.h), groups of two values are counted (two_values.h),
// large ones are done alone (group.h); small rows of one size and k have a way of their own (small_rows.h). PKPO_ISA
// names the instruction set that the compiler is told to use, PKPO_VALUE the type, float or double.
//
// A batch whose elements are float32 or float64 and lie one after another is read and written where it is; others are
// converted a block at a time, in a copy that stays in the cache.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ahead.h"
#include "columns.h"
#include "group.h"
#include "half.h"
#include "isa.h"
#include "small_rows.h"
#include "two_values.h"

#if !defined(PKPO_ISA)
#define PKPO_ISA plain
#endif
#if !defined(PKPO_VALUE)
#define PKPO_VALUE float
#endif
#define PKPO_JOIN(isa, value) isa##_##value
#define PKPO_NAME(isa, value) PKPO_JOIN(isa, value)

namespace pkpo::cpu {
namespace {

using Value = PKPO_VALUE;
constexpr bool kWide = std::is_same_v<Value, double>;

template <class To, class From>
void convert(const From* from, int64_t stride, int64_t count, To* to) {
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<To>(from[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<To>(from[i * stride]);
  }
}

template <class Out>
Out result(Value value) {
  if constexpr (std::is_arithmetic_v<Out>)
    return static_cast<Out>(value);
  else
    return Out(static_cast<float>(value));
}

template <class Out>
void store(const Value* from, int64_t count, Out* to, int64_t stride) {
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = result<Out>(from[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i * stride] = result<Out>(from[i]);
  }
}

// Groups of a class go together: of one size up to 64 samples, then of 65 to 72, 73 to 80, ..., 129 to 144, ...
constexpr int class_of(int64_t size) {
  if (size <= 64) return static_cast<int>(size - 1);
  const int octave = std::bit_width(static_cast<uint64_t>(size - 1)) - 7;
  return 64 + 8 * octave + static_cast<int>((size - 1) >> (octave + 3) & 7);
}

// The groups [first, last) of a batch. Each operation says what it does with a block; the rest is common.
template <class In>
class Batch {
 public:
  using Out = std::conditional_t<std::is_integral_v<In> || std::is_same_v<In, Boolean>, float, In>;
  static constexpr int kLanes = Lanes<Value>::count;

  Batch(const Groups& groups, const Array& rewards, const Array& out, int64_t first, int64_t last)
      : groups_(groups),
        rewards_(rewards),
        out_(out),
        first_(first),
        last_(last),
        same_size_(sizes_are_same()),
        columns_(largest_group(), kCompensated) {}

  void transform(Form form) {
    if constexpr (std::is_same_v<In, Boolean>) {
      if (rewards_.stride == 1 && out_.stride == 1) {
        TrueAndFalse true_and_false(form);
        if (same_size_ && groups_.k.stride == 0 && rewards_.leading == 0 && out_.leading == 0) {
          const int64_t begin = groups_.begin(first_), n = groups_.size(first_);
          return true_and_false.transform(rewards_.at<const In>(first_, begin), last_ - first_, n, groups_.k[0],
                                          out_.at<Out>(first_, begin));
        }
        for (int64_t g = first_; g < last_; ++g) {
          const int64_t begin = groups_.begin(g);
          true_and_false.transform(rewards_.at<const In>(g, begin), groups_.size(g), groups_.k[g],
                                   out_.at<Out>(g, begin));
        }
        return;
      }
    }
    int64_t done = first_;
    if constexpr (kSame) {
      if (has_small_rows()) done = transform_small_rows(form);
    }
    transform_blocks(form, done, last_);
  }

  void transform_backward(Form form, const Array& grad) {
    grad_ = &grad;
    per_sample(first_, last_, [&](const Block<Value>& block, bool alone) {
      if (!alone) return columns_.transform_backward(block, form);
      for (int l = 0; l < block.count; ++l) {
        Group<Value>::transform_backward(block.grad[l], block.rewards[l], block.size[l], block.k[l], form,
                                         block.out[l]);
      }
    });
  }

  void max_at_k_backward(const Array& grad) {
    grad_ = &grad;
    grad_per_group_ = true;
    per_sample(first_, last_, [&](const Block<Value>& block, bool alone) {
      if (!alone) return columns_.max_at_k_backward(block);
      for (int l = 0; l < block.count; ++l) {
        Group<Value>::max_at_k_backward(*block.grad[l], block.rewards[l], block.size[l], block.k[l], block.out[l]);
      }
    });
  }

  // ks: a list for every group, `count` long, or none where each has its own k.
  void max_at_k(const int64_t* ks, int64_t count) {
    out_per_group_ = true;
    for (int64_t g = first_; groups_.offsets.data && g < last_; ++g) {
      if (groups_.size(g) > 0) continue;
      Out* out = out_.at<Out>(g, g * count);
      for (int64_t j = 0; j < count; ++j) out[j * out_.stride] = result<Out>(std::numeric_limits<Value>::quiet_NaN());
    }
    for_each_lot(first_, last_, [&](const Lot& lot, bool alone) {
      Scratch scratch;
      Block<Value> block = block_of(lot, scratch);
      Value* results = scratch.take<Value>(lot.count * count);
      for (int l = 0; l < lot.count; ++l) block.out[l] = results + l * count;
      if (!alone) {
        columns_.max_at_k(block, ks, count);
      } else {
        for (int l = 0; l < lot.count; ++l) {
          Group<Value>::max_at_k(block.rewards[l], block.size[l], ks ? ks : &block.k[l], count, kCompensated,
                                 block.out[l]);
        }
      }
      for (int l = 0; l < lot.count; ++l) {
        store<Out>(block.out[l], count, out_.at<Out>(lot.g[l], lot.g[l] * count), out_.stride);
      }
    });
  }

 private:
  static constexpr bool kSame = std::is_same_v<In, Value>;
  static constexpr int kClasses = class_of(ColumnSort<Value>::kLargest) + 1;
  static constexpr int kCounted = 16;  // from so many samples on two values are counted faster than sorted
  static constexpr int kPatience = 4;  // after so many blocks in a row with odd rewards, stop looking for others
  static constexpr bool kCompensated = std::is_same_v<In, double>;  // integers come out as float32

  // Groups that go together. Unused lanes repeat the first group, once they are filled.
  struct Lot {
    int count = 0;
    int64_t largest = 0;     // samples of the largest
    int64_t last_begin = 0;  // of the one that lies last in memory
    alignas(64) int64_t g[kLanes];
    alignas(64) int64_t begin[kLanes];
    alignas(64) int64_t size[kLanes];
    alignas(64) int64_t k[kLanes];

    void add(int64_t group, int64_t group_begin, int64_t group_size, int64_t group_k) {
      g[count] = group;
      begin[count] = group_begin;
      size[count] = group_size;
      k[count++] = group_k;
      largest = std::max(largest, group_size);
      last_begin = std::max(last_begin, group_begin);
    }
  };

  // Whether all groups have the same number of samples, not 0: such groups lie one after another like the rows of a
  // matrix.
  bool sizes_are_same() const {
    if (!groups_.offsets.data) return true;
    if (first_ == last_ || groups_.size(first_) == 0) return false;
    return groups_.offsets.with_type([&](auto at) {
      const int64_t size = at(first_ + 1) - at(first_);
      int64_t difference = 0;
      for (int64_t g = first_; g < last_; ++g) difference |= (at(g + 1) - at(g)) ^ size;
      return difference == 0;
    });
  }

  int64_t largest_group() const {
    if (!groups_.offsets.data) return groups_.width;
    if (same_size_) return groups_.size(first_);
    int64_t largest = 1;
    for (int64_t g = first_; g < last_; ++g) largest = std::max(largest, groups_.size(g));
    return largest;
  }

  // Rows of the same size and k that lie one after another and are done where they are.
  bool has_small_rows() const {
    if (!same_size_ || groups_.k.stride != 0 || last_ - first_ < kLanes) return false;
    const int64_t n = groups_.size(first_);
    return SmallRows<Value>::kSmallest <= n && n <= SmallRows<Value>::kLargest && rewards_.is_in_order() &&
           out_.is_in_order();
  }

  // Those from first_ on, as many as fill registers; gives the first that is not done.
  int64_t transform_small_rows(Form form) {
    const int64_t n = groups_.size(first_), k = clamp_k(groups_.k[0], n, form);
    if (k < 1) return first_;
    const auto transform = SmallRows<Value>::transform_of(n);
    const int64_t origin = groups_.begin(first_) - first_ * n;
    const Value* rewards = static_cast<const Value*>(rewards_.data) + origin;
    Value* out = static_cast<Value*>(out_.data) + origin;
    if (n >= kCounted && TwoValues<Value>::are_all(rewards + first_ * n, kLanes * n)) return first_;
    int failures = 0;
    int64_t g = first_;
    for (; g + kLanes <= last_ && failures < kPatience; g += kLanes) {
      ask_for_page_behind(rewards + g * n, kLanes * n);
      ask_for_page_behind(out + g * n, kLanes * n);
      if (transform(cache_.get(n, k, form), rewards + g * n, out + g * n)) {
        failures = 0;
      } else {
        transform_blocks(form, g, g + kLanes);
        ++failures;
      }
    }
    return g;
  }

  void transform_blocks(Form form, int64_t first, int64_t last) {
    per_sample(first, last, [&](const Block<Value>& block, bool alone) {
      if (two_values_.transform(block, form)) return;
      if (!alone) return columns_.transform(block, form);
      for (int l = 0; l < block.count; ++l) {
        Group<Value>::transform(block.rewards[l], block.size[l], block.k[l], form, kCompensated, block.out[l]);
      }
    });
  }

  // body(lot, whether its groups are better done alone) for the groups [first, last) that have samples.
  template <class Body>
  void for_each_lot(int64_t first, int64_t last, Body body) {
    if (same_size_) {
      if (first == last) return;
      const int64_t n = groups_.size(first_), origin = groups_.begin(first_) - first_ * n;
      const int most = n > ColumnSort<Value>::kLargest ? 1 : kLanes;
      Lot lot;
      std::fill(lot.size, lot.size + kLanes, n);
      std::fill(lot.k, lot.k + kLanes, groups_.k[first_]);
      lot.largest = n;
      for (int64_t g = first; g < last; g += lot.count) {
        const int count = lot.count = static_cast<int>(std::min<int64_t>(most, last - g));
        for (int l = 0; l < kLanes; ++l) lot.g[l] = g + (l < count ? l : 0);
        for (int l = 0; l < kLanes; ++l) lot.begin[l] = origin + (g + (l < count ? l : 0)) * n;
        lot.last_begin = origin + (g + count - 1) * n;
        if (groups_.k.stride != 0) {
          for (int l = 0; l < kLanes; ++l) lot.k[l] = groups_.k[lot.g[l]];
        }
        body(lot, better_alone(lot));
      }
      return;
    }
    const auto run = [&](Lot& lot) {
      const int count = lot.count;
      while (lot.count < kLanes) lot.add(lot.g[0], lot.begin[0], lot.size[0], lot.k[0]);
      lot.count = count;
      body(lot, better_alone(lot));
      lot.count = 0;
      lot.largest = lot.last_begin = 0;
    };
    Lot lots[kClasses], rest;
    groups_.offsets.with_type([&](auto at) {
      int64_t end = at(first);
      for (int64_t g = first; g < last; ++g) {
        const int64_t begin = end, size = at(g + 1) - begin;
        end += size;
        if (size == 0) continue;
        const bool is_large = size > ColumnSort<Value>::kLargest;
        Lot& lot = is_large ? rest : lots[class_of(size)];
        lot.add(g, begin, size, groups_.k[g]);
        if (is_large || lot.count == kLanes) {
          run(lot);
        } else {
          ask_for_rows(begin, size);
        }
      }
    });
    // What is left goes together from the largest on, where a block is not for so few large ones that they are better
    // done alone.
    for (int c = kClasses; c-- > 0;) {
      const Lot& lot = lots[c];
      for (int i = 0; i < lot.count; ++i) {
        if (rest.count == kLanes || (rest.count > 0 && 2 * lot.size[i] < rest.largest && better_alone(rest))) run(rest);
        rest.add(lot.g[i], lot.begin[i], lot.size[i], lot.k[i]);
      }
    }
    if (rest.count > 0) run(rest);
  }

  // Calls body(elements) for the arrays with a value a sample whose elements lie in the order of the batch.
  template <class Body>
  void for_each_array_in_order(Body body) const {
    if (rewards_.is_in_order()) body(static_cast<const In*>(rewards_.data));
    if (!out_per_group_ && out_.is_in_order()) body(static_cast<const Out*>(out_.data));
    if (grad_ && !grad_per_group_ && grad_->is_in_order()) body(static_cast<const In*>(grad_->data));
  }

  // The rows of a small group, which waits for others of its class.
  void ask_for_rows(int64_t begin, int64_t size) const {
    if (size > 256) return;
    for_each_array_in_order([&](const auto* elements) { ask_for_page_behind(elements + begin, size); });
  }

  // The rows behind those of a lot, where all lie one after another.
  NextBlock behind(const Lot& lot) const {
    NextBlock next;
    if (!same_size_) return next;
    const int64_t begin = lot.begin[0] + kLanes * lot.largest;
    for_each_array_in_order([&](const auto* elements) { next.add(elements + begin, kLanes); });
    return next;
  }

  // A block costs the same however few of its lanes are used: about as much as 2 groups of 128 float32 done alone, 5 of
  // 1,024, 8 of 8,192, half as many of float64 (measured; on narrower registers too).
  static bool better_alone(const Lot& lot) {
    const int as_many = (std::bit_width(static_cast<uint64_t>(lot.largest)) - 7) * 4 / int{sizeof(Value)};
    return lot.largest > ColumnSort<Value>::kLargest || lot.count <= as_many;
  }

  // The rows of a lot: where they are, or converted. Without results yet.
  Block<Value> block_of(const Lot& lot, Scratch& scratch) const {
    Block<Value> block;
    block.count = lot.count;
    block.largest = lot.largest;
    block.size = lot.size;
    block.k = lot.k;
    block.same_size = same_size_ || all_same(lot.size);
    block.same_k = groups_.k.stride == 0 || all_same(lot.k);
    block.readable = rows_of(lot, rewards_, scratch, block.rewards);
    if (grad_ && grad_per_group_) {
      Value* incoming = scratch.take<Value>(kLanes);
      for (int l = 0; l < kLanes; ++l) {
        convert(grad_->at<const In>(lot.g[l], lot.g[l]), 1, 1, incoming + l);
        block.grad[l] = incoming + l;
      }
    } else if (grad_) {
      block.readable = std::min(block.readable, rows_of(lot, *grad_, scratch, block.grad));
    }
    return block;
  }

  static bool all_same(const int64_t (&numbers)[kLanes]) {
    int64_t difference = 0;
    for (int l = 1; l < kLanes; ++l) difference |= numbers[l] ^ numbers[0];
    return difference == 0;
  }

  // Sets the rows; gives how many samples may be read from each.
  int64_t rows_of(const Lot& lot, const Array& array, Scratch& scratch, const Value** rows) const {
    bool in_place = false;
    if constexpr (kSame) in_place = array.stride == 1;
    if (in_place && array.leading == 0) {
      const Value* first = static_cast<const Value*>(array.data);
      for (int l = 0; l < kLanes; ++l) rows[l] = first + lot.begin[l];
      return groups_.begin(groups_.count) - lot.last_begin;
    }
    if (in_place) {
      for (int l = 0; l < kLanes; ++l) rows[l] = array.at<const Value>(lot.g[l], lot.begin[l]);
      return 0;
    }
    Value* copies = scratch.take<Value>(lot.count * lot.largest + kLanes);
    // Rows that lie one after another are converted as one.
    if (array.is_in_order() && same_size_) {
      convert(array.at<const In>(lot.g[0], lot.begin[0]), 1, lot.count * lot.largest, copies);
    } else {
      for (int l = 0; l < lot.count; ++l) {
        convert(array.at<const In>(lot.g[l], lot.begin[l]), array.stride, lot.size[l], copies + l * lot.largest);
      }
    }
    for (int l = 0; l < kLanes; ++l) rows[l] = copies + (l < lot.count ? l : 0) * lot.largest;
    return lot.largest + kLanes;
  }

  // body(block, alone) with a result for every sample of the groups [first, last).
  template <class Body>
  void per_sample(int64_t first, int64_t last, Body body) {
    for_each_lot(first, last, [&](const Lot& lot, bool alone) {
      Scratch scratch;
      Block<Value> block = block_of(lot, scratch);
      block.next = behind(lot);
      const bool one_after_another = out_.is_in_order() && same_size_;
      if constexpr (kSame) {
        if (out_.stride == 1) {
          if (out_.leading == 0) {
            Value* first_out = static_cast<Value*>(out_.data);
            for (int l = 0; l < kLanes; ++l) block.out[l] = first_out + lot.begin[l];
          } else {
            for (int l = 0; l < kLanes; ++l) block.out[l] = out_.at<Value>(lot.g[l], lot.begin[l]);
          }
          block.adjacent = one_after_another;
          return body(block, alone);
        }
      }
      Value* results = scratch.take<Value>(lot.count * lot.largest);
      for (int l = 0; l < lot.count; ++l) block.out[l] = results + l * lot.largest;
      block.adjacent = block.same_size;
      body(block, alone);
      if (one_after_another) {
        return store<Out>(results, lot.count * lot.largest, out_.at<Out>(lot.g[0], lot.begin[0]), 1);
      }
      for (int l = 0; l < lot.count; ++l) {
        store<Out>(block.out[l], lot.size[l], out_.at<Out>(lot.g[l], lot.begin[l]), out_.stride);
      }
    });
  }

  const Groups& groups_;
  const Array &rewards_, &out_;
  const int64_t first_, last_;
  const bool same_size_;
  const Array* grad_ = nullptr;
  bool grad_per_group_ = false, out_per_group_ = false;
  CoefficientCache& cache_ = CoefficientCache::of_this_thread();
  Columns<Value> columns_;
  TwoValues<Value> two_values_;
};

template <class T>
struct Tag {
  using In = T;
};

// Calls body(Tag<In>) with the element type that dtype names, of those that are compared as Value. No gradient flows to
// bool and integers.
template <class Body>
void with_floating(DType dtype, Body body) {
  if constexpr (kWide) {
    if (dtype == DType::float64) body(Tag<double>{});
  } else {
    if (dtype == DType::float32) body(Tag<float>{});
    if (dtype == DType::float16) body(Tag<Float16>{});
    if (dtype == DType::bfloat16) body(Tag<BFloat16>{});
  }
}

template <class Body>
void with_element(DType dtype, Body body) {
  if constexpr (kWide) {
    if (dtype == DType::int32) return body(Tag<int32_t>{});
    if (dtype == DType::int64) return body(Tag<int64_t>{});
  } else {
    if (dtype == DType::boolean) return body(Tag<Boolean>{});
    if (dtype == DType::uint8) return body(Tag<uint8_t>{});
    if (dtype == DType::int8) return body(Tag<int8_t>{});
    if (dtype == DType::int16) return body(Tag<int16_t>{});
  }
  with_floating(dtype, body);
}

void run_transform(const Groups& groups, Baseline baseline, DType dtype, const Array& rewards, const Array& out,
                   int64_t first, int64_t last) {
  with_element(dtype, [&](auto tag) {
    Batch<typename decltype(tag)::In>(groups, rewards, out, first, last).transform(form_of(baseline));
  });
  CoefficientCache::of_this_thread().trim();
}

void run_transform_backward(const Groups& groups, Baseline baseline, DType dtype, const Array& grad,
                            const Array& rewards, const Array& out, int64_t first, int64_t last) {
  with_floating(dtype, [&](auto tag) {
    Batch<typename decltype(tag)::In>(groups, rewards, out, first, last).transform_backward(form_of(baseline), grad);
  });
  CoefficientCache::of_this_thread().trim();
}

void run_max_at_k(const Groups& groups, DType dtype, const Array& rewards, const Array& out, int64_t first,
                  int64_t last) {
  with_element(dtype, [&](auto tag) {
    Batch<typename decltype(tag)::In>(groups, rewards, out, first, last).max_at_k(nullptr, 1);
  });
  CoefficientCache::of_this_thread().trim();
}

void run_max_at_k_curve(const Groups& groups, const Indices& ks, int64_t count, DType dtype, const Array& rewards,
                        const Array& out, int64_t first, int64_t last) {
  Scratch scratch;
  int64_t* list = scratch.take<int64_t>(count);
  for (int64_t j = 0; j < count; ++j) list[j] = ks[j];
  with_element(dtype, [&](auto tag) {
    Batch<typename decltype(tag)::In>(groups, rewards, out, first, last).max_at_k(list, count);
  });
  CoefficientCache::of_this_thread().trim();
}

void run_max_at_k_backward(const Groups& groups, DType dtype, const Array& grad, const Array& rewards, const Array& out,
                           int64_t first, int64_t last) {
  with_floating(dtype, [&](auto tag) {
    Batch<typename decltype(tag)::In>(groups, rewards, out, first, last).max_at_k_backward(grad);
  });
  CoefficientCache::of_this_thread().trim();
}

}  // namespace

const Functions PKPO_NAME(PKPO_ISA, PKPO_VALUE) = {run_transform, run_transform_backward, run_max_at_k,
                                                   run_max_at_k_curve, run_max_at_k_backward};

}  // namespace pkpo::cpu
