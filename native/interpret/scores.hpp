// What scores are read by: probabilities of logits, the best label. Scores are [n] with n >= 1.
//
// Sums run in numpy's order and exp() is the C library's, so that results are the same on every CPU with FMA
// and one C library: numpy's own exp() has other last bits where it finds AVX-512. Without FMA the C
// library's has, too. NaN is treated as numpy does: it is the largest and the smallest of all.
#pragma once

#include <cstddef>

namespace mmedge {

// Index of the largest score, the first of several.
std::size_t best(const double* scores, std::size_t n);
double smallest(const double* scores, std::size_t n);
// Turns logits, divided by `temperature`, into probabilities.
void softmax(double* scores, std::size_t n, double temperature);
// What rounding left outside 0..1 is moved inside.
void clip(double* scores, std::size_t n);

}  // namespace mmedge
