// One function per header of the core; each adds that header's classes to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace mmedge::bindings {

void bind_answers(nanobind::module_& m);
void bind_attach_client(nanobind::module_& m);
void bind_callback_blocks(nanobind::module_& m);
void bind_classifier(nanobind::module_& m);
void bind_cpu(nanobind::module_& m);
void bind_cuda(nanobind::module_& m);
void bind_datagrams(nanobind::module_& m);
void bind_decimals(nanobind::module_& m);
void bind_detector(nanobind::module_& m);
void bind_fingerprint(nanobind::module_& m);
void bind_finite(nanobind::module_& m);
void bind_graph(nanobind::module_& m);
void bind_histogram(nanobind::module_& m);
void bind_image(nanobind::module_& m);
void bind_jpeg_scan(nanobind::module_& m);
void bind_lifeline(nanobind::module_& m);
void bind_log_mel(nanobind::module_& m);
void bind_messages(nanobind::module_& m);
void bind_microphone_clock(nanobind::module_& m);
void bind_microphone_reader(nanobind::module_& m);
void bind_mixer(nanobind::module_& m);
void bind_moment(nanobind::module_& m);
void bind_packet_reader(nanobind::module_& m);
void bind_picture_seat(nanobind::module_& m);
void bind_planes(nanobind::module_& m);
void bind_record_queue(nanobind::module_& m);
void bind_regressor(nanobind::module_& m);
void bind_result_ring(nanobind::module_& m);
void bind_ring_slot(nanobind::module_& m);
void bind_runner(nanobind::module_& m);
void bind_sample_ring(nanobind::module_& m);
void bind_scores(nanobind::module_& m);
void bind_sliding_log_mel(nanobind::module_& m);
void bind_slot_ring(nanobind::module_& m);
void bind_sound_records(nanobind::module_& m);
void bind_stage(nanobind::module_& m);
void bind_stream_clock(nanobind::module_& m);
void bind_synchronizer(nanobind::module_& m);
void bind_smoother(nanobind::module_& m);
void bind_suppress(nanobind::module_& m);
void bind_task_reader(nanobind::module_& m);
void bind_trigger_times(nanobind::module_& m);
void bind_verifier(nanobind::module_& m);
void bind_wake(nanobind::module_& m);

}  // namespace mmedge::bindings
