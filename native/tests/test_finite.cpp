#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "finite.hpp"

namespace {

using mmedge::all_finite;

template <typename T>
void finds_one_at_any_place(T largest, std::vector<T> wrong) {
  for (std::size_t n = 0; n < 70; ++n) {
    std::vector<T> values(n, largest);
    CHECK(all_finite(values.data(), n, sizeof(T)));
    for (std::size_t i = 0; i < n; ++i) {
      for (const T bad : wrong) {
        values[i] = bad;
        CHECK(!all_finite(values.data(), n, sizeof(T)));
      }
      values[i] = largest;
    }
  }
}

}  // namespace

int main() {
  using Float = std::numeric_limits<float>;
  using Double = std::numeric_limits<double>;
  finds_one_at_any_place<float>(Float::max(), {Float::infinity(), -Float::infinity(), Float::quiet_NaN()});
  finds_one_at_any_place<double>(-Double::max(),
                                 {Double::infinity(), -Double::infinity(), Double::quiet_NaN()});
  finds_one_at_any_place<std::uint16_t>(0x7bff, {0x7c00, 0xfc00, 0x7e00, 0xfc01});  // halves
  CHECK(refuses([] { all_finite(nullptr, 0, 3); }));
}
