// A sensor of its own process: pushes a tensor into an input of a running pipeline, and prints what comes of
// it.
//
//   mmedge run robot.mmedge --input imu=push:// ... --attach /tmp/robot.sock
//   attach_push /tmp/robot.sock imu 1x6 100 50     [1, 6] numbers, 100 times a second, until 50 results
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <mmedge.hpp>
#include <optional>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// What a sensor would say: waves.
void sense(std::vector<float>& values, double seconds) {
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(std::sin(seconds * static_cast<double>(i + 1)));
}

std::vector<std::uint64_t> shape_of(const char* text) {
  std::vector<std::uint64_t> shape;
  for (char* end = nullptr; *text != '\0'; text = *end == 'x' ? end + 1 : end) {
    shape.push_back(std::strtoull(text, &end, 10));
    if (end == text || (*end != 'x' && *end != '\0')) return {};
  }
  return shape;
}

int run(const std::string& path, const std::string& input, const std::vector<std::uint64_t>& shape,
        double rate, long results) {
  mmedge::Client client(path);
  std::uint64_t size = 1;
  for (const std::uint64_t side : shape) size *= side;
  std::vector<float> values(size);
  const auto period = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / rate));
  const auto start = Clock::now();
  for (auto due = start; results > 0; due += period) {
    sense(values, std::chrono::duration<double>(due - start).count());
    const mmedge::Client::Pushed pushed = client.push(input, values, shape, mmedge::now_ns());
    if (pushed == mmedge::Client::Pushed::kRefused) {
      std::cerr << client.error() << '\n';
      return 1;
    }
    if (pushed == mmedge::Client::Pushed::kFull) std::cerr << "the pipeline is behind: one is left out\n";
    // Results until the next is due.
    while (results > 0) {
      const auto left = std::chrono::floor<std::chrono::milliseconds>(due + period - Clock::now());
      const std::optional<mmedge::Result> result = client.next(std::max(left, std::chrono::milliseconds(0)));
      if (!result) break;
      std::cout << result->json() << std::endl;
      --results;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::uint64_t> shape = shape_of(argc == 6 ? argv[3] : "");
  const double rate = argc == 6 ? std::atof(argv[4]) : 0;
  const long results = argc == 6 ? std::atol(argv[5]) : 0;
  if (shape.empty() || !(rate > 0) || results < 1) {
    std::cerr << "usage: " << argv[0] << " PATH INPUT SHAPE RATE RESULTS\n";
    return 2;
  }
  try {
    return run(argv[1], argv[2], shape, rate, results);
  } catch (const mmedge::Error& error) {
    std::cerr << error.what() << '\n';
    return error.status() == MMEDGE_ENDED ? 0 : 1;
  }
}
