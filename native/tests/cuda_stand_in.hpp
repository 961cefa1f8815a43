// A stand-in for CUDA's driver that checks how it is called: a GPU it is not, kernels compute nothing in it.
// It ends the process on what the driver forbids or would not notice: a handle that is unknown or freed, a
// call without a context, contexts that are popped in another order, what is recorded and what is not.
#pragma once

#include <cstddef>

extern "C" {
// The `n`th call from now on (0: the next) fails with `error`; a negative `n`: none.
void stand_in_fail(int n, int error);
// The name of the call that failed.
const char* stand_in_failed();
// How many calls were made since the last `stand_in_fail`.
int stand_in_calls();
// Handles, memory and retained contexts that were not given back.
std::size_t stand_in_live();
// Launches of graphs, and in all of them together kernels and copies.
int stand_in_launches();
int stand_in_kernels();
int stand_in_copies();
// SMs that work in a stream may use.
unsigned stand_in_sms(void* stream);
// How often an event says "not ready" after it was recorded.
void stand_in_busy(int queries);
}
