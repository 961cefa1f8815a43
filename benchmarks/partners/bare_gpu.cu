// The bare loop beside an engine of our own kernels: the same kernels on the same data in one CUDA graph, by
// hand and with CUDA's runtime. It reads what benchmarks/partners/bare_gpu.py wrote, and prints the time of
// each run in us.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "cuda/kernels.cu"

namespace {

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

std::FILE* file;

std::vector<char> take() {
  std::int64_t bytes = 0;
  if (std::fread(&bytes, sizeof bytes, 1, file) != 1) std::exit(2);
  std::vector<char> data(static_cast<std::size_t>(bytes));
  if (bytes > 0 && std::fread(data.data(), data.size(), 1, file) != 1) std::exit(2);
  return data;
}

template <typename T>
T* on_gpu(const std::vector<char>& data) {
  void* there = nullptr;
  check(cudaMalloc(&there, data.size()));
  check(cudaMemcpy(there, data.data(), data.size(), cudaMemcpyHostToDevice));
  return static_cast<T*>(there);
}

template <typename T>
T* zeros(std::size_t n) {
  return on_gpu<T>(std::vector<char>(n * sizeof(T)));
}

}  // namespace

int main(int, char** arguments) {
  file = std::fopen(arguments[1], "rb");
  if (file == nullptr) return 2;
  const int runs = std::atoi(arguments[2]);
  Picture picture;
  const auto bytes = take();
  if (bytes.size() != sizeof picture) return 2;
  std::memcpy(&picture, bytes.data(), sizeof picture);
  const Tap *const rows = on_gpu<Tap>(take()), *const columns = on_gpu<Tap>(take());
  std::vector<std::vector<char>> frames(16);
  for (auto& frame : frames) frame = take();
  const std::size_t size = frames[0].size();
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  void *x = nullptr, *y = nullptr;
  check(cudaHostAlloc(&x, size, cudaHostAllocDefault));
  auto* const there = zeros<std::uint8_t>(size);
  float* in = zeros<float>(static_cast<std::size_t>(picture.channels) * picture.height * picture.width);
  std::int64_t layers = 0, outputs = 0;
  if (std::fread(&layers, sizeof layers, 1, file) != 1) return 2;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  struct Layer {
    float *weights, *bias;
    std::int32_t inputs, outputs;
  };
  std::vector<Layer> net;
  for (std::int64_t at = 0; at < layers; ++at) {
    const auto weights = take(), bias = take();
    outputs = static_cast<std::int64_t>(bias.size() / sizeof(float));
    const auto inputs = static_cast<std::int32_t>(weights.size() / bias.size());
    net.push_back({on_gpu<float>(weights), on_gpu<float>(bias), inputs, static_cast<std::int32_t>(outputs)});
  }
  check(cudaHostAlloc(&y, static_cast<std::size_t>(outputs) * sizeof(float), cudaHostAllocDefault));
  std::vector<float*> made;
  for (const Layer& layer : net) made.push_back(zeros<float>(static_cast<std::size_t>(layer.outputs)));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  check(cudaMemcpyAsync(there, x, size, cudaMemcpyHostToDevice, stream));
  const dim3 grid((picture.columns + 127) / 128, picture.rows, picture.channels);
  mmedge_picture<<<grid, 128, 0, stream>>>(picture, there, rows, columns, in);
  for (std::size_t at = 0; at < net.size(); ++at) {
    const float least = at + 1 < net.size() ? 0.0f : -std::numeric_limits<float>::infinity();
    mmedge_dense<<<net[at].outputs, 128, 0, stream>>>(in, net[at].weights, net[at].bias, net[at].inputs,
                                                      least, made[at]);
    in = made[at];
  }
  check(cudaMemcpyAsync(y, in, static_cast<std::size_t>(outputs) * sizeof(float), cudaMemcpyDeviceToHost,
                        stream));
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&exec, graph, 0));
  for (int i = -runs / 10; i < runs; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    std::memcpy(x, frames[static_cast<std::size_t>(i + runs) % 16].data(), size);
    check(cudaGraphLaunch(exec, stream));
    check(cudaStreamSynchronize(stream));
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    if (i >= 0) std::printf("%.3f\n", took.count());
  }
  std::fwrite(y, static_cast<std::size_t>(outputs) * sizeof(float), 1, stderr);  // of the last picture
}
