// Run digits through an ONNX file of muquant, by onnxruntime as it comes:
//
//     build/digits ../networks/3bit.onnx ../networks/digits.pgm

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

namespace {

struct Digits {
  std::vector<float> pixels;      // [count, 1, size, size] in [0, 1]
  std::array<std::int64_t, 4> shape;
};

// Square pictures, one under the other in a binary PGM file.
Digits read_digits(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  std::int64_t size = 0, height = 0, white = 0;
  file >> magic >> size >> height >> white;
  file.get();
  if (!file || magic != "P5" || white != 255 || size <= 0 || height < size) {
    throw std::runtime_error(std::string(path) + " is not there, or is not a PGM file of square pictures");
  }
  std::vector<char> bytes(static_cast<std::size_t>(size * height));
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw std::runtime_error(std::string(path) + " is cut off");
  }
  Digits digits{std::vector<float>(bytes.size()), {height / size, 1, size, size}};
  std::transform(bytes.begin(), bytes.end(), digits.pixels.begin(),
                 [](char byte) { return static_cast<unsigned char>(byte) / 255.0f; });
  return digits;
}

double milliseconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - since).count();
}

void run(const char* network, const char* pictures) {
  Digits digits = read_digits(pictures);
  const std::filesystem::path path(network);  // onnxruntime takes wide strings on Windows, as this does
  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "digits");

  auto start = std::chrono::steady_clock::now();
  Ort::Session session(environment, path.c_str(), Ort::SessionOptions());
  std::cout << path.filename().string() << ": " << std::filesystem::file_size(path) << " bytes, opened in "
            << milliseconds(start) << " ms\n";

  Ort::AllocatorWithDefaultOptions allocator;
  const auto input = session.GetInputNameAllocated(0, allocator);
  const auto output = session.GetOutputNameAllocated(0, allocator);
  const char* inputs[] = {input.get()};
  const char* outputs[] = {output.get()};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto images = Ort::Value::CreateTensor<float>(memory, digits.pixels.data(), digits.pixels.size(),
                                                      digits.shape.data(), digits.shape.size());
  start = std::chrono::steady_clock::now();
  const auto results = session.Run(Ort::RunOptions{nullptr}, inputs, &images, 1, outputs, 1);
  std::cout << digits.shape[0] << " digits in " << milliseconds(start) << " ms:";

  const float* logits = results.front().GetTensorData<float>();
  const auto classes = results.front().GetTensorTypeAndShapeInfo().GetShape().at(1);
  for (const float* row = logits; row != logits + digits.shape[0] * classes; row += classes) {
    std::cout << ' ' << std::max_element(row, row + classes) - row;
  }
  std::cout << '\n';
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: digits NETWORK.onnx PICTURES.pgm; examples/make_networks.py makes both\n";
    return 2;
  }
  try {
    run(arguments[1], arguments[2]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
