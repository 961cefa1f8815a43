#include "interpret/scores.hpp"

#include "bindings/modules.hpp"
#include "bindings/score_arrays.hpp"

namespace mmedge::bindings {

void bind_scores(nb::module_& m) {
  m.def(
      "softmax",
      [](const Output& scores, double temperature) {
        if (scores.size() < 1) throw std::invalid_argument("there must be at least one score");
        softmax(own_scores(scores, scores.size()), scores.size(), temperature);
      },
      nb::arg("scores").noconvert(), nb::arg("temperature"),
      nb::sig("def softmax(scores: numpy.typing.NDArray[numpy.float64], temperature: float) -> None"),
      "Turn logits [n] into probabilities, divided by ``temperature`` first, in place.");
}

}  // namespace mmedge::bindings
