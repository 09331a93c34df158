// A block of groups side by side, a group a lane: rows in, transposed to columns, sorted (network.h), scanned (scan.h),
// moved back and transposed to rows. Value is float or double.
//
// Groups of a block may differ in size, in k, and in which of their samples are absent: a lane then counts as full, its
// absent samples standing behind the present ones, with gaps of zero (or beyond all gaps, where gradients are shared
// among ties), and the coefficients are taken lane by lane. A lane with rewards too large for plain float64 arithmetic
// is left to group.h. Bits are those of the group alone, whatever lies beside it.
//
// Cost a block: see network.h for the sort; besides, log2(lanes) shuffles a vector in and out, and about ten
// instructions a column for each direction of the scan.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ahead.h"
#include "coefficients.h"
#include "group.h"
#include "lanes.h"
#include "network.h"
#include "scan.h"
#include "scratch.h"
#include "transpose.h"

namespace pkpo::cpu {
namespace {

// Up to a register's width of groups; unused lanes repeat one of them, so that they change nothing.
template <class Value>
struct Block {
  static constexpr int kLanes = Lanes<Value>::count;

  int count = 0;
  int64_t largest = 0;                     // samples of the largest group
  bool same_size = false, same_k = false;  // in all groups
  const int64_t *size = nullptr, *k = nullptr;
  alignas(64) const Value* rewards[kLanes];
  alignas(64) const Value* grad[kLanes];  // backward: one a sample, or one a group
  alignas(64) Value* out[kLanes];         // one a sample, or one a group
  int64_t readable = 0;                   // so many samples may be read from every row of rewards and grad
  bool adjacent = false;                  // each row of out begins where the one before it ends
  NextBlock next;                         // as far as it is known where its rows lie
};

// Coefficients with a number a lane; entries behind a lane's last rank are zero.
template <class D>
struct LaneCoefficients {
  D top_;
  const D *up_ = nullptr, *down_ = nullptr, *w_ = nullptr;
  bool has_top_ = false;

  bool has_top() const { return has_top_; }
  bool has_up() const { return up_ != nullptr; }
  bool has_down() const { return down_ != nullptr; }
  const D& top() const { return top_; }
  const D& up(int64_t q) const { return up_[q]; }
  const D& down(int64_t q) const { return down_[q]; }
  const D& w(int64_t q) const { return w_[q]; }
};

template <class Value>
class Columns {
 public:
  using L = Lanes<Value>;
  using V = typename L::Vector;
  using Mask = typename L::Mask;
  using D = typename Wide<Value>::Type;
  static constexpr int kLanes = L::count;
  static constexpr bool kWide = std::is_same_v<Value, double>;
  static_assert(ColumnSort<Value>::kLargest <= kOneCut);

  // For groups of up to `largest` samples. compensated: whether sums of float64 values are; see scan.h.
  Columns(int64_t largest, bool compensated) : compensated_(compensated) {
    largest = std::min<int64_t>(largest, ColumnSort<Value>::kLargest);
    const int columns = network_size(largest);
    // The squares of the transposition may reach behind the last column.
    rewards_ = scratch_.take<Value>((columns + kLanes) * kLanes);
    grad_ = scratch_.take<Value>((columns + kLanes) * kLanes);
    record_ = scratch_.take<Mask>(most_masks(columns));
    absent_ = scratch_.take<Mask>(largest);
    sums_ = scratch_.take<D>(largest + 1);
  }

  void transform(const Block<Value>& block, Form form) {
    load(block, form, /*above_all=*/false);
    if (nothing_) return fill_rows(block, 0);
    network_.sort(rewards_, record_);
    const auto put = [to = rewards_, next = block.next](int64_t q, const D& y) {
      next.ask(q);
      Wide<Value>::store(to + q * kLanes, y);
    };
    const auto put_nonnegative = [to = rewards_, next = block.next](int64_t q, const D& y) {
      next.ask(q);
      Wide<Value>::store_nonnegative(to + q * kLanes, y);
    };
    with_coefficients(block, form, [&](const auto& c, int64_t n) {
      if (kWide && compensated_) {
        scan<kWide>(c, n, sorted(), sums_, put, put_nonnegative);
      } else {
        scan<false>(c, n, sorted(), sums_, put, put_nonnegative);
      }
      // An absent sample that stands as large as the largest may have changed places with it.
      const V top = L::load(rewards_ + (n - 1) * kLanes);
      for (int64_t q = n; q < block.largest; ++q) L::store(rewards_ + q * kLanes, top);
    });
    store(block, rewards_, [&](int l) {
      Group<Value>::transform(block.rewards[l], block.size[l], block.k[l], form, compensated_, block.out[l]);
    });
  }

  // out[l][j] for ks[j], or for the group's own k where there is no list.
  void max_at_k(const Block<Value>& block, const int64_t* ks, int64_t count) {
    load(block, Form::max_at_k, false);
    network_.sort(rewards_, record_);
    for (int64_t j = 0; j < count; ++j) {
      Block<Value> each = block;
      int64_t same[kLanes];
      if (ks) {
        std::fill(same, same + kLanes, ks[j]);
        each.k = same;
        each.same_k = true;
        choose_k(each, Form::max_at_k);
      }
      Value results[kLanes];
      with_coefficients(each, Form::max_at_k, [&](const auto& c, int64_t n) {
        const bool compensated = kWide && compensated_;
        Wide<Value>::store(
            results, compensated ? scan_to_first<kWide, D>(c, n, sorted()) : scan_to_first<false, D>(c, n, sorted()));
      });
      for (int l = 0; l < block.count; ++l) {
        if (left_out_ >> l & 1) {
          Group<Value>::max_at_k(block.rewards[l], block.size[l], &each.k[l], 1, compensated_, block.out[l] + j);
        } else {
          block.out[l][j] = present_of(l) > 0 ? results[l] : std::numeric_limits<Value>::quiet_NaN();
        }
      }
    }
  }

  void transform_backward(const Block<Value>& block, Form form) {
    load(block, form, /*above_all=*/true);
    if (nothing_) return fill_rows(block, 0);
    const int64_t size = block.largest;
    load_rows(block, block.grad, grad_);
    std::fill(grad_ + size * kLanes, grad_ + network_.columns() * kLanes, Value(0));
    if (some_absent_) zero_absent(grad_, size);
    const Cuts<D> cuts = cuts_of(grad_, size);
    network_.sort(rewards_, record_);
    network_.apply(grad_, record_);
    const auto at = [from = grad_](int64_t q) { return Wide<Value>::load(from + q * kLanes); };
    const auto put = [to = grad_, next = block.next](int64_t q, const D& share) {
      next.ask(q);
      Wide<Value>::store(to + q * kLanes, share);
    };
    D* h = sums_;
    with_coefficients(block, form, [&](const auto& c, int64_t n) {
      const D total = scan_gradient<kWide>(c, n, cuts, at, h);
      h[n] = constant<D>(0);
      if (c.has_top()) {
        // Behind the last rank of every lane.
        const D last = constant<D>(0) - c.top() * total, ranks = present_wide();
        for (int64_t q = uniform_ ? n : 0; q <= n; ++q) {
          h[q] = where_equal(ranks, constant<D>(static_cast<double>(q)), last, h[q]);
        }
      }
      if (has_ties(n)) {
        share_differences(n, sorted(), h, put);
      } else {
        for (int64_t q = 0; q < n; ++q) put(q, h[q] - h[q + 1]);
      }
    });
    store(block, grad_, [&](int l) {
      Group<Value>::transform_backward(block.grad[l], block.rewards[l], block.size[l], block.k[l], form, block.out[l]);
    });
  }

  // block.grad: one value a group
  void max_at_k_backward(const Block<Value>& block) {
    load(block, Form::max_at_k, /*above_all=*/true);
    network_.sort(rewards_, record_);
    std::fill(grad_, grad_ + network_.columns() * kLanes, Value(0));
    Value incoming[kLanes];
    for (int l = 0; l < kLanes; ++l) incoming[l] = *block.grad[l];
    const D gy = Wide<Value>::load(incoming);
    const auto put = [to = grad_](int64_t q, const D& share) { Wide<Value>::store(to + q * kLanes, share); };
    D* terms = sums_;
    with_coefficients(block, Form::max_at_k, [&](const auto& c, int64_t n) {
      for (int64_t q = 0; q < n; ++q) terms[q] = c.w(q) * gy;
      if (has_ties(n)) {
        share_sums(n, sorted(), terms, put);
      } else {
        for (int64_t q = 0; q < n; ++q) put(q, terms[q]);
      }
    });
    store(block, grad_, [&](int l) {
      Group<Value>::max_at_k_backward(*block.grad[l], block.rewards[l], block.size[l], block.k[l], block.out[l]);
    });
  }

 private:
  // The sorted rewards of all lanes, by rank.
  auto sorted() const {
    return [from = rewards_](int64_t q) { return Wide<Value>::load(from + q * kLanes); };
  }

  // Columns of the block's rewards, sorted out and filled up for the network. Absent samples are set to the largest of
  // their group, or above all of them.
  void load(const Block<Value>& block, Form form, bool above_all) {
    const int64_t size = block.largest;
    network_.set(network_size(size));
    load_rows(block, block.rewards, rewards_);
    if (!block.same_size) mark_absent_behind(block);
    std::fill(rewards_ + size * kLanes, rewards_ + network_.columns() * kLanes, std::numeric_limits<Value>::infinity());
    some_absent_ = false;
    left_out_ = 0;
    same_present_ = block.same_size;
    present_[0] = size;
    const V magnitude = largest_magnitude(rewards_, size);
    if (!block.same_size || !L::every(L::less(magnitude, L::all(kTooLarge<Value>)))) set_apart(size, above_all);
    choose_k(block, form);
  }

  // Of each lane; NaN is above all.
  static V largest_magnitude(const Value* columns, int64_t size) {
    typename L::BitVector largest{};
    for (int64_t q = 0; q < size; ++q) largest = L::larger(largest, L::magnitude(L::load(columns + q * kLanes)));
    return as<V>(largest);
  }

  // What was read behind the ends of shorter rows is no sample.
  void mark_absent_behind(const Block<Value>& block) {
    V sizes;
    for (int l = 0; l < kLanes; ++l) reinterpret_cast<Value*>(&sizes)[l] = static_cast<Value>(block.size[l]);
    const V absent = L::all(std::numeric_limits<Value>::quiet_NaN());
    for (int64_t q = *std::min_element(block.size, block.size + kLanes); q < block.largest; ++q) {
      Value* at = rewards_ + q * kLanes;
      L::store(at, L::select(L::less(L::all(static_cast<Value>(q)), sizes), L::load(at), absent));
    }
  }

  // Rows to columns, all read as far as the longest goes; where that is more than there is, by way of copies.
  void load_rows(const Block<Value>& block, const Value* const* rows, Value* columns) {
    const int64_t read = std::max<int64_t>(block.largest, square_size<Value>(block.largest));
    if ((block.same_size && read == block.largest) || block.readable >= read) {
      return rows_to_columns(rows, block.largest, columns);
    }
    Scratch scratch;
    Value* copies = scratch.take<Value>(kLanes * read);
    const Value* padded[kLanes];
    for (int l = 0; l < kLanes; ++l) {
      const int64_t size = block.size[l];
      padded[l] = copies + l * read;
      std::copy(rows[l], rows[l] + size, copies + l * read);
      std::fill(copies + l * read + size, copies + (l + 1) * read, std::numeric_limits<Value>::quiet_NaN());
    }
    rows_to_columns(padded, block.largest, columns);
  }

  // Finds absent samples, and lanes to be left out.
  void set_apart(int64_t size, bool above_all) {
    const V infinity = L::all(std::numeric_limits<Value>::infinity());
    some_absent_ = true;
    V present = L::all(0), highest = -infinity, magnitude = L::all(0);
    for (int64_t q = 0; q < size; ++q) {
      const V x = L::load(rewards_ + q * kLanes);
      absent_[q] = L::is_nan(x);
      present = L::select(absent_[q], present, present + 1);
      highest = L::select(absent_[q], highest, L::max(highest, x));
      magnitude = L::select(absent_[q], magnitude, L::max(magnitude, L::max(x, -x)));
    }
    // A group without samples is one of zeros to the scans.
    const V filling = above_all ? infinity : L::select(L::less(L::all(0), present), highest, L::all(0));
    for (int64_t q = 0; q < size; ++q) {
      Value* at = rewards_ + q * kLanes;
      L::store(at, L::select(absent_[q], filling, L::load(at)));
    }
    same_present_ = false;
    for (int l = 0; l < kLanes; ++l) {
      present_[l] = static_cast<int64_t>(present[l]);
      if (!(magnitude[l] < kTooLarge<Value>)) left_out_ |= 1u << l;
    }
  }

  int64_t present_of(int l) const { return present_[same_present_ ? 0 : l]; }
  int64_t k_of(int l) const { return k_[uniform_ ? 0 : l]; }

  // The k that is used in every lane, and whether all lanes have the same table.
  void choose_k(const Block<Value>& block, Form form) {
    k_[0] = clamp_k(block.k[0], present_[0], form);
    uniform_ = same_present_ && block.same_k;
    nothing_ = k_[0] < 1;
    if (uniform_) return;
    uniform_ = true;
    for (int l = 1; l < kLanes; ++l) {
      k_[l] = clamp_k(block.k[l], present_of(l), form);
      nothing_ &= k_[l] < 1;
      uniform_ &= k_[l] == k_[0] && present_of(l) == present_[0];
    }
    nothing_ &= left_out_ == 0;
  }

  // body(coefficients, number of ranks) with one table for all lanes, or one a lane.
  template <class Body>
  void with_coefficients(const Block<Value>& block, Form form, Body body) {
    if (uniform_ && k_[0] >= 1) {
      const Coefficients c = cache_.get(present_[0], k_[0], form);
      return body(c, present_[0]);
    }
    // The tables of all lanes as rows, zeros behind their ranks, and from rows to columns.
    constexpr int kWidth = Lanes<double>::count;
    Scratch scratch;
    LaneCoefficients<D> c;
    const int64_t n = block.largest, length = (n + kWidth - 1) / kWidth * kWidth;
    fill(c.top_, 0);
    double *up = nullptr, *down = nullptr, *w = nullptr;  // rows
    const auto zeros = [&] {
      double* rows = scratch.take<double>(kLanes * length);
      std::fill(rows, rows + kLanes * length, 0.0);
      return rows;
    };
    for (int l = 0; l < block.count; ++l) {
      if (k_of(l) < 1) continue;
      const int64_t ranks = present_of(l);
      const Coefficients& table = cache_.get(ranks, k_of(l), form);
      const auto copy = [&](double*& rows, const double* from, int64_t first) {
        if (!from) return;
        if (!rows) rows = zeros();
        std::copy(from + first, from + ranks, rows + l * length + first);
      };
      copy(up, table.up_, 1);
      copy(down, table.down_, 1);
      if (form == Form::max_at_k) copy(w, table.w_, 0);
      reinterpret_cast<double*>(&c.top_)[l] = table.top();
      c.has_top_ |= table.has_top();
    }
    if (form == Form::max_at_k && !down) down = w = zeros();  // no sample in any lane
    const auto in_columns = [&](const double* rows) -> const D* {
      if (!rows) return nullptr;
      double* columns = scratch.take<double>(kLanes * length);
      tables_to_columns<kLanes>(rows, length, columns);
      return reinterpret_cast<const D*>(columns);
    };
    c.up_ = in_columns(up);
    c.down_ = in_columns(down);
    c.w_ = in_columns(w);
    uniform_ = false;
    body(c, n);
  }

  D present_wide() const {
    D d;
    for (int l = 0; l < kLanes; ++l) reinterpret_cast<double*>(&d)[l] = static_cast<double>(present_of(l));
    return d;
  }

  bool has_ties(int64_t n) const {
    Mask ties{};
    for (int64_t q = 1; q < n; ++q) {
      ties = L::either(ties, L::equal(L::load(rewards_ + q * kLanes), L::load(rewards_ + (q - 1) * kLanes)));
    }
    return L::any(ties);
  }

  Cuts<D> cuts_of(const Value* grad, int64_t size) const {
    const V largest = largest_magnitude(grad, size);
    Cuts<D> cuts;
    for (int l = 0; l < kLanes; ++l) {
      const Cuts<double> lane = cuts_for(static_cast<double>(largest[l]), std::max<int64_t>(present_of(l), 1));
      reinterpret_cast<double*>(&cuts.first)[l] = lane.first;
      reinterpret_cast<double*>(&cuts.second)[l] = lane.second;
    }
    return cuts;
  }

  void zero_absent(Value* columns, int64_t size) const {
    for (int64_t q = 0; q < size; ++q) {
      Value* at = columns + q * kLanes;
      L::store(at, L::select(absent_[q], L::all(0), L::load(at)));
    }
  }

  // Columns by rank to the rows of the block. Absent samples get 0; alone(l) does the lanes that are left out.
  template <class Alone>
  void store(const Block<Value>& block, Value* columns, Alone alone) {
    network_.revert(columns);
    if (some_absent_) zero_absent(columns, block.largest);
    columns_to_rows(columns, block.largest, block.out, block.size, block.count, block.same_size, block.adjacent);
    for (int l = 0; l < block.count; ++l) {
      if (left_out_ >> l & 1) alone(l);
    }
  }

  static void fill_rows(const Block<Value>& block, Value value) {
    for (int l = 0; l < block.count; ++l) std::fill(block.out[l], block.out[l] + block.size[l], value);
  }

  CoefficientCache& cache_ = CoefficientCache::of_this_thread();
  Scratch scratch_;
  ColumnSort<Value> network_;
  Value *rewards_, *grad_;  // columns
  Mask* record_;            // of the network
  Mask* absent_;            // a mask a column, if some are absent
  D* sums_;
  const bool compensated_;
  bool some_absent_ = false;
  unsigned left_out_ = 0;  // lanes that the group code does, a bit each
  // Of each lane, or (same_present_, uniform_) of all lanes in the first place.
  int64_t present_[kLanes], k_[kLanes];
  bool same_present_ = false, uniform_ = false, nothing_ = false;
};

}  // namespace
}  // namespace pkpo::cpu
