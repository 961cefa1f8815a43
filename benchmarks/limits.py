"""Which side of a figure is good, and how good it is to be."""

from __future__ import annotations

from mmedge.engine.cpu import saturates_pairs

# Figure -> (which side is good, the limit). Shares are ours of the partner's, in the same run.
GOALS: dict[str, tuple[str, float]] = {
    "overhead_core_p50_us": ("<=", 120),
    "overhead_p50_us": ("<=", 200),
    "overhead_p99_vs_hops": ("<=", 1.5),
    "user_overhead_p50_us": ("<=", 320),
    "live_cpu_vs_threads": ("<=", 1.15),
    "live_pss_vs_threads": ("<=", 1.5),
    "live_p50_vs_threads": ("<=", 1.01),
    "live_p99_vs_threads": ("<=", 1.02),
    "busy_p50_vs_threads": ("<=", 0.2),
    "busy_p50_vs_tuned": ("<=", 1.0),
    "busy_frames_done": (">=", 0.99),
    "overload_p99_vs_bound": ("<=", 1),
    "overload_false_absences": ("<=", 0),
    "import_vs_onnxruntime": ("<=", 0.8),
    "cold_first_result_vs_bare": ("<=", 1.3),
    "streams_30fps": (">=", 24),
    "streams_30fps_processes": (">=", 16),
    "start_16_s": ("<=", 6),
    "per_stage_us": ("<=", 2.5),
    "window_cost_ratio": ("<=", 1.2),
    "old_text_us": ("<=", 5),
    "replay_x": (">=", 25),
    "logmel_20ms_vs_knf": (">=", 4),
    "logmel_100ms_vs_knf": (">=", 8),
    "logmel_10s_vs_1s": ("<=", 1.3),
    "logmel_400_vs_512": ("<=", 1.5),
    "image_480_vs_best_opencv": (">=", 3.0),
    "image_480_vs_kornia": (">=", 4.0),
    "image_480_vs_typical_opencv": (">=", 10.0),
    "image_1080_vs_best_opencv": (">=", 1.6),
    "image_1080_vs_floor": ("<=", 1.5),
    "image_nv12_vs_opencv": (">=", 3.5),
    "image_i420_vs_opencv": (">=", 3.5),
    "image_nv12_1080_vs_opencv": (">=", 3.0),
    "image_other_size_vs_own": ("<=", 1.1),
    "image_max_error_gray_levels": ("<=", 0.02),
    "histogram_error_p999": ("<=", 0.01),
    "known_latency_error_ms": ("<=", 0.3),
    "omission_error": ("<=", 0.05),
    "bench_overhead_ratio": ("<=", 1.02),
    "runtime_share_vga": ("<=", 1.3),
    "runtime_share_1080p": ("<=", 1.5),
    "interval_coverage": (">=", 0.95),
    "gpu_vs_bare": ("<=", 1.05),
    "auto_resnet18_vs_ort_fp32": (">=", 1.8 if saturates_pairs() else 2.8),  # without VNNI / with it
    "auto_resnet18_openvino_vs_ort_fp32": (">=", 2.0),
    "auto_mobilenet_vs_ort_fp32": (">=", 1.0),
    "cpu_int8_agreement": (">=", 0.995),
    "engine_call_vs_session_run": ("<=", 0.6),
    "swap_frames_lost": ("<=", 0),
    "swap_gap_frames": ("<=", 1),
    "boards_diagnosed": (">=", 1),
    "aarch64_tests_passed_ratio": (">=", 0.98),
    "aarch64_label_agreement": (">=", 1),
    "wheel_mb": ("<=", 3),
    "int8_drop_points": ("<=", 0.3),
    "av_digits_drop_points": ("<=", 0.3),
    "int8_sqnr_db": (">=", 28),
    "onet_agreement": (">=", 0.99),
    "int8_drop_glitch_points": ("<=", 0.5),
    "int8_drop_stress_points": ("<=", 1.0),
    "calibration_peak_mb": ("<=", 300),
    "calibration_cpu_ratio": ("<=", 3),
    "weighted_nodes_int8_ratio": (">=", 0.9),
}

# Figures that have no limit of their own: they tell, beside those that do.
LOWER = {
    "async_cost_vs_ideal",
    "attention_false_openings_per_h",
    "attention_onset_delay_ms",
    "audio_fill_us",
    "audio_gil_p99_vs_callback",
    "audio_overflows_busy_60s",
    "false_accepts_per_h",
    "first_answer_s",
    "gap_recovery_s",
    "graph_overhead_p50_us",
    "loopback_skew_ms",
    "reconnect_s",
    "rss_slope_mb_per_min",
    "skew_p50_ms",
    "skew_p99_ms",
    "uncertainty_p50_ms",
    "view_cost_p50_ratio",
    "wait_p99_ms",
}
HIGHER = {
    "attention_accuracy",
    "digits_vs_opencv_best",
    "digits_vs_opencv_typical",
    "epoch_2_vs_epoch_1",
    "fused_min_margin_points",
    "fused_vs_best_single_points",
    "auto_mobilenet_openvino_vs_ort_fp32",
    "hindcast_hits",
    "hindcast_hits_agx_orin",
    "hindcast_hits_orin_nano",
    "hindcast_hits_orin_nx",
    "hindcast_hits_thor",
    "impacts_accuracy",
    "impacts_accuracy_92ms",
    "log_mel_vs_numpy_rfft",
    "logmel_100ms_vs_numpy",
    "logmel_20ms_vs_numpy",
    "outputs_per_s",
    "within_uncertainty",
}


def good_side(name: str) -> str:
    """Return which side of a figure is good, for a reader; empty where nobody has said so."""
    sign = GOALS[name][0] if name in GOALS else ""
    if sign == "<=" or name in LOWER:
        return "lower is better"
    return "higher is better" if sign == ">=" or name in HIGHER else ""
