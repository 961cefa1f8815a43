// The bytes of MessagePack at the borders of its forms, and of what a task tells.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "results/packer.hpp"
#include "results/task_told.hpp"

namespace {

using mmedge::Packer;
using mmedge::TaskTold;

template <typename Write>
std::string packed(Write write) {
  Packer packer;
  packer.nil();
  packer.clear();
  write(&packer);
  return std::string(packer.text());
}

std::string bytes(std::initializer_list<int> values) {
  std::string text;
  for (const int value : values) text.push_back(static_cast<char>(value));
  return text;
}

void values_have_their_forms() {
  CHECK(packed([](Packer* to) { to->nil(), to->boolean(false), to->boolean(true); }) ==
        bytes({0xc0, 0xc2, 0xc3}));
  CHECK(packed([](Packer* to) { to->number(0), to->number(127), to->number(-1), to->number(-32); }) ==
        bytes({0x00, 0x7f, 0xff, 0xe0}));
  CHECK(packed([](Packer* to) { to->number(128); }) == bytes({0xd3, 0, 0, 0, 0, 0, 0, 0, 0x80}));
  CHECK(packed([](Packer* to) { to->number(INT64_MIN); }) == bytes({0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}));
  CHECK(packed([](Packer* to) { to->real(-1.5); }) == bytes({0xcb, 0xbf, 0xf8, 0, 0, 0, 0, 0, 0}));
}

void lengths_have_their_forms() {
  const auto head = [](std::size_t n, auto write) {
    const std::string text(n, 'x');
    const std::string found = packed([&](Packer* to) { write(to, std::string_view(text)); });
    CHECK(found.substr(found.size() - n) == text);
    return found.substr(0, found.size() - n);
  };
  const auto string = [](Packer* to, std::string_view text) { to->string(text); };
  const auto binary = [](Packer* to, std::string_view text) { to->binary(text); };
  CHECK(head(0, string) == bytes({0xa0}) && head(31, string) == bytes({0xbf}));
  CHECK(head(32, string) == bytes({0xd9, 32}) && head(255, string) == bytes({0xd9, 255}));
  CHECK(head(256, string) == bytes({0xda, 1, 0}) && head(65535, string) == bytes({0xda, 255, 255}));
  CHECK(head(65536, string) == bytes({0xdb, 0, 1, 0, 0}));
  CHECK(head(0, binary) == bytes({0xc4, 0}) && head(256, binary) == bytes({0xc5, 1, 0}));
  CHECK(head(65536, binary) == bytes({0xc6, 0, 1, 0, 0}));
  CHECK(packed([](Packer* to) { to->array(15), to->array(16), to->array(65536); }) ==
        bytes({0x9f, 0xdc, 0, 16, 0xdd, 0, 1, 0, 0}));
  CHECK(packed([](Packer* to) { to->map(15), to->map(16), to->map(65536); }) ==
        bytes({0x8f, 0xde, 0, 16, 0xdf, 0, 1, 0, 0}));
}

void tasks_are_told() {
  const std::vector<std::string> labels{"a", "b"};
  const std::string undefined = bytes({0x82, 0xa5}) + "label" + bytes({0xc0, 0xa5}) + "score" + bytes({0xc0});
  CHECK(packed([](Packer* to) { pack(TaskTold{}, to); }) == undefined);
  const std::vector<std::pair<std::size_t, double>> top{{1, 1.0}};
  const std::string one = bytes({0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0});
  CHECK(packed([&](Packer* to) { pack(TaskTold{&labels, 1, 1.0, &top}, to); }) ==
        bytes({0x83, 0xa5}) + "label" + bytes({0xa1}) + "b" + bytes({0xa5}) + "score" + one + bytes({0xa3}) +
            "top" + bytes({0x91, 0x92, 0xa1}) + "b" + one);
  TaskTold number;
  number.value = 1.0;
  number.unit = "m";
  CHECK(packed([&](Packer* to) { pack(number, to); }) == bytes({0x84}) + undefined.substr(1) + bytes({0xa5}) +
                                                             "value" + one + bytes({0xa4}) + "unit" +
                                                             bytes({0xa1}) + "m");
  bool threw = false;
  try {
    packed([&](Packer* to) { pack(TaskTold{&labels, 2, 1.0}, to); });
  } catch (const std::out_of_range&) {
    threw = true;
  }
  CHECK(threw);
}

}  // namespace

int main() {
  values_have_their_forms();
  lengths_have_their_forms();
  tasks_are_told();
}
