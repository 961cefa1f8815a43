#include "bindings/prompt.hpp"

#include <cmath>

namespace mmedge::bindings {
namespace {

namespace nb = nanobind;

constexpr double kPromptS = 50e-6;
constexpr double kDefaultS = 0.005;  // Python's own

int waiting = 0;

// A program that has taken the function out of `sys` has the turns it has.
PyObject* function(const char* name) { return PySys_GetObject(name); }

bool is_set_to(double interval_s) {
  PyObject* get = function("getswitchinterval");
  const nb::object now = nb::steal(get != nullptr ? PyObject_CallNoArgs(get) : nullptr);
  const double now_s = now.is_valid() ? PyFloat_AsDouble(now.ptr()) : 0.0;
  PyErr_Clear();
  return std::abs(now_s - interval_s) < 1e-6;  // Python keeps whole microseconds
}

void set_to(double interval_s) {
  PyObject* set = function("setswitchinterval");
  const nb::object done = nb::steal(set != nullptr ? PyObject_CallFunction(set, "d", interval_s) : nullptr);
  PyErr_Clear();
}

// Whatever is on its way out goes on its way: an end may be that of a wait that a signal broke off.
class Aside {
 public:
  Aside() { PyErr_Fetch(&kind_, &value_, &trace_); }
  ~Aside() { PyErr_Restore(kind_, value_, trace_); }

 private:
  PyObject *kind_ = nullptr, *value_ = nullptr, *trace_ = nullptr;
};

}  // namespace

PromptTurns::PromptTurns() {
  if (++waiting == 1 && is_set_to(kDefaultS)) set_to(kPromptS);
}

PromptTurns::~PromptTurns() {
  const Aside aside;
  if (--waiting == 0 && is_set_to(kPromptS)) set_to(kDefaultS);
}

}  // namespace mmedge::bindings
