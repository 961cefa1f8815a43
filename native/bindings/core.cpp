#include <system_error>

#include "bindings/modules.hpp"

namespace nb = nanobind;

NB_MODULE(_core, m) {
  m.doc() = "Native core of mmedge.";
  // What lives until the interpreter's end (a pipeline nobody closed) is no leak.
  nanobind::set_leak_warnings(false);
  nb::register_exception_translator([](const std::exception_ptr& error, void*) {
    try {
      std::rethrow_exception(error);
    } catch (const std::system_error& system) {
      const nb::tuple arguments = nb::make_tuple(system.code().value(), system.what());
      PyErr_SetObject(PyExc_OSError, arguments.ptr());
    }
  });
  mmedge::bindings::bind_attach_client(m);
  mmedge::bindings::bind_callback_blocks(m);
  mmedge::bindings::bind_task_reader(m);  // before what reads a task
  mmedge::bindings::bind_classifier(m);
  mmedge::bindings::bind_cpu(m);
  mmedge::bindings::bind_cuda(m);  // before what takes its runs
  mmedge::bindings::bind_datagrams(m);
  mmedge::bindings::bind_decimals(m);
  mmedge::bindings::bind_detector(m);
  mmedge::bindings::bind_fingerprint(m);
  mmedge::bindings::bind_finite(m);
  mmedge::bindings::bind_moment(m);  // each before what takes it
  mmedge::bindings::bind_stage(m);
  mmedge::bindings::bind_runner(m);
  mmedge::bindings::bind_graph(m);
  mmedge::bindings::bind_histogram(m);
  mmedge::bindings::bind_image(m);
  mmedge::bindings::bind_jpeg_scan(m);
  mmedge::bindings::bind_lifeline(m);
  mmedge::bindings::bind_log_mel(m);
  mmedge::bindings::bind_messages(m);
  mmedge::bindings::bind_microphone_clock(m);
  mmedge::bindings::bind_microphone_reader(m);
  mmedge::bindings::bind_mixer(m);
  mmedge::bindings::bind_packet_reader(m);
  mmedge::bindings::bind_picture_seat(m);
  mmedge::bindings::bind_planes(m);
  mmedge::bindings::bind_record_queue(m);
  mmedge::bindings::bind_regressor(m);
  mmedge::bindings::bind_result_ring(m);
  mmedge::bindings::bind_ring_slot(m);
  mmedge::bindings::bind_sample_ring(m);
  mmedge::bindings::bind_scores(m);
  mmedge::bindings::bind_sliding_log_mel(m);
  mmedge::bindings::bind_slot_ring(m);
  mmedge::bindings::bind_sound_records(m);
  mmedge::bindings::bind_stream_clock(m);
  mmedge::bindings::bind_synchronizer(m);
  mmedge::bindings::bind_smoother(m);
  mmedge::bindings::bind_suppress(m);
  mmedge::bindings::bind_trigger_times(m);
  mmedge::bindings::bind_answers(m);
  mmedge::bindings::bind_verifier(m);
  mmedge::bindings::bind_wake(m);
}
