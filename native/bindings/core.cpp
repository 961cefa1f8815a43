#include "bindings/modules.hpp"

NB_MODULE(_core, m) {
  m.doc() = "Native core of mmedge.";
  mmedge::bindings::bind_image(m);
  mmedge::bindings::bind_log_mel(m);
  mmedge::bindings::bind_sample_ring(m);
}
