// The NumPy module: the CPU kernels on NumPy arrays, without torch. pkpo_kernels/numpy.py checks the arguments and has
// the documentation; this hands the arrays' memory to the kernels, as it lies, with the interpreter's lock released.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <exception>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/grouping.h"
#include "cpu/parallel.h"
#include "cpu/pkpo.h"
#include "cpu/validate.h"

namespace py = pybind11;

namespace pkpo {
namespace {

// An array whose strides are whole elements, as a kernel sees it. Keeps the array and its strides alive.
class View {
 public:
  // One value a sample: the last dimension is that of the samples. One value a group: there is no such dimension.
  View(py::array array, bool per_sample) : array_(std::move(array)) {
    const int64_t item = array_.itemsize();
    const int64_t dimensions = array_.ndim();
    for (int64_t d = 0; d < dimensions; ++d) {
      sizes_.push_back(array_.shape(d));
      strides_.push_back(array_.strides(d) / item);
    }
    view_.data = const_cast<void*>(array_.data());
    if (per_sample || dimensions == 1) view_.stride = dimensions ? strides_.back() : 1;
    leading_ = static_cast<int>(per_sample ? dimensions - 1 : dimensions);
  }
  View(const View&) = delete;

  int64_t size() const { return array_.size(); }

  const Array& array() {
    // A one-dimensional array needs no leading sizes: its elements are one stride apart.
    if (sizes_.size() > 1) {
      view_.leading = leading_;
      view_.sizes = sizes_.data();
      view_.strides = strides_.data();
    }
    return view_;
  }

 private:
  py::array array_;
  std::vector<int64_t> sizes_, strides_;
  Array view_;
  int leading_;
};

using IndexArray = py::array_t<int64_t, py::array::c_style>;
using Offsets = std::optional<IndexArray>;

// rewards (..., n), or (N,) with offsets (G + 1,); k one number, or one a group in the order of the batch.
Groups groups_of(const py::array& rewards, const Offsets& offsets, const IndexArray& k) {
  Groups groups;
  if (offsets) {
    groups.offsets = Indices{offsets->data(), true, 1};
    groups.count = offsets->size() - 1;
  } else {
    groups.width = rewards.shape(rewards.ndim() - 1);
    groups.count = rewards.size() / groups.width;
  }
  groups.k = Indices{k.data(), true, k.size() == 1 ? 0 : 1};
  return groups;
}

// Runs body(first, last) over the groups with the interpreter's lock released, on up to `threads` threads. A piece that
// no thread can be had for is done here; what a piece throws is thrown when all have ended.
template <class Body>
void run(const Groups& groups, int64_t samples, int64_t threads, const Body& body) {
  const std::string fault = cpu::find_fault(groups, samples);
  if (!fault.empty()) throw py::value_error(fault);
  const py::gil_scoped_release release;
  const int64_t pieces = cpu::piece_count(samples, threads);
  std::vector<std::exception_ptr> failures(pieces);
  const auto piece = [&](int64_t i) {
    try {
      body(cpu::piece_begin(groups, i, pieces), cpu::piece_begin(groups, i + 1, pieces));
    } catch (...) {
      failures[i] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(pieces);
  for (int64_t i = 1; i < pieces; ++i) {
    try {
      others.emplace_back(piece, i);
    } catch (const std::system_error&) {
      piece(i);
    }
  }
  piece(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

void transform(const py::array& rewards, const Offsets& offsets, int dtype, py::array out, int64_t threads,
               const IndexArray& k, int baseline) {
  const Groups groups = groups_of(rewards, offsets, k);
  View from(rewards, true), to(std::move(out), true);
  const Array &x = from.array(), &y = to.array();
  run(groups, from.size(), threads, [&](int64_t first, int64_t last) {
    cpu::transform(groups, static_cast<Baseline>(baseline), static_cast<DType>(dtype), x, y, first, last);
  });
}

void max_at_k(const py::array& rewards, const Offsets& offsets, int dtype, py::array out, int64_t threads,
              const IndexArray& k) {
  const Groups groups = groups_of(rewards, offsets, k);
  View from(rewards, true), to(std::move(out), false);
  const Array &x = from.array(), &y = to.array();
  run(groups, from.size(), threads,
      [&](int64_t first, int64_t last) { cpu::max_at_k(groups, static_cast<DType>(dtype), x, y, first, last); });
}

// out: contiguous, (groups, ks)
void max_at_k_curve(const py::array& rewards, const Offsets& offsets, int dtype, py::array out, int64_t threads,
                    const IndexArray& ks) {
  const int64_t one = 1;
  Groups groups = groups_of(rewards, offsets, ks);
  groups.k = Indices{&one, true, 0};
  View from(rewards, true);
  const Array& x = from.array();
  const Array y{out.mutable_data()};
  const Indices indices{ks.data(), true, 1};
  run(groups, from.size(), threads, [&](int64_t first, int64_t last) {
    cpu::max_at_k_curve(groups, indices, ks.size(), static_cast<DType>(dtype), x, y, first, last);
  });
}

// (order, offsets, number of every sample)
py::tuple lined_up(const IndexArray& numbers, int64_t groups) {
  IndexArray order(numbers.size()), offsets(groups + 1);
  {
    const int64_t* from = numbers.data();
    int64_t *to = order.mutable_data(), *ends = offsets.mutable_data();
    const py::gil_scoped_release release;
    cpu::line_up(from, numbers.size(), groups, to, ends);
  }
  return py::make_tuple(order, offsets, numbers);
}

py::tuple group_integers(const IndexArray& ids) {
  IndexArray numbers(ids.size());
  cpu::Numbering numbering;
  {
    const int64_t* from = ids.data();
    int64_t* to = numbers.mutable_data();
    const int64_t samples = ids.size();
    const py::gil_scoped_release release;
    const auto same = [](int64_t) { return true; };  // the hash is the id
    for (int64_t i = 0; i < samples; ++i) to[i] = numbering.number(static_cast<uint64_t>(from[i]), same);
  }
  return lined_up(numbers, numbering.count());
}

// Any hashables. Like a dict: equal ids are one group.
py::tuple group_objects(const py::object& sequence) {
  const auto ids = py::reinterpret_steal<py::tuple>(PySequence_Tuple(sequence.ptr()));
  if (!ids) throw py::error_already_set();
  IndexArray numbers(static_cast<py::ssize_t>(ids.size()));
  int64_t* to = numbers.mutable_data();
  cpu::Numbering numbering;
  std::vector<PyObject*> firsts;
  for (size_t i = 0; i < ids.size(); ++i) {
    PyObject* id = PyTuple_GET_ITEM(ids.ptr(), static_cast<Py_ssize_t>(i));
    const Py_hash_t hash = PyObject_Hash(id);
    if (hash == -1) throw py::error_already_set();
    to[i] = numbering.number(static_cast<uint64_t>(hash), [&](int64_t number) {
      if (firsts[number] == id) return true;
      const int equal = PyObject_RichCompareBool(firsts[number], id, Py_EQ);
      if (equal < 0) throw py::error_already_set();
      return equal == 1;
    });
    if (to[i] == static_cast<int64_t>(firsts.size())) firsts.push_back(id);
  }
  return lined_up(numbers, numbering.count());
}

}  // namespace
}  // namespace pkpo

// Nothing here is shared by threads but what they ask the kernels for, which is kept for each thread apart or atomic: a
// Python without the interpreter's lock stays so.
PYBIND11_MODULE(_numpy, module, py::mod_gil_not_used()) {
  module.def("transform", &pkpo::transform);
  module.def("max_at_k", &pkpo::max_at_k);
  module.def("max_at_k_curve", &pkpo::max_at_k_curve);
  module.def("isa", &pkpo::cpu::isa);
  module.def("set_isa", &pkpo::cpu::set_isa);
  module.def("available_isas", &pkpo::cpu::available_isas);
  module.def("group_integers", &pkpo::group_integers);
  module.def("group_objects", &pkpo::group_objects);
}
