// Green contexts. A driver before CUDA 12.5 has none: leave this file out.
#include "cuda_stand_in_state.hpp"

using namespace cuda_stand_in;

CUDA_CALL int cuDeviceGetDevResource(int, mmedge::cuda::DevResource* resource, int type) {
  BEGIN_WITHOUT_CONTEXT;
  if (type != mmedge::cuda::kSmResource) return kBadResource;
  resource->type = type, resource->sm = {kSms, kLeastPart, kAlignment};
  return 0;
}
CUDA_CALL int cuDevSmResourceSplitByCount(mmedge::cuda::DevResource* result, unsigned* groups,
                                          const mmedge::cuda::DevResource* input,
                                          mmedge::cuda::DevResource* remaining, unsigned flags,
                                          unsigned least) {
  BEGIN_WITHOUT_CONTEXT;
  if (input->type != mmedge::cuda::kSmResource || input->sm.count != kSms || flags != 0) return kBadResource;
  if (*groups != 1 || least > kSms) return kBadValue;
  const unsigned part = least < kLeastPart ? kLeastPart : (least + kAlignment - 1) / kAlignment * kAlignment;
  *result = *input, result->sm.count = part;
  *remaining = *input, remaining->sm.count = kSms - part;
  if (remaining->sm.count == 0) remaining->type = 0;
  return 0;
}
CUDA_CALL int cuDevResourceGenerateDesc(CUdevResourceDesc_st** description,
                                        mmedge::cuda::DevResource* resources, unsigned count) {
  BEGIN_WITHOUT_CONTEXT;
  if (count != 1 || resources->type != mmedge::cuda::kSmResource) return kBadResource;
  // Nothing gives a description back, so none is counted as alive.
  *description = reinterpret_cast<CUdevResourceDesc_st*>(state().next += 16);
  state().sms[*description] = resources->sm.count;
  return 0;
}
CUDA_CALL int cuGreenCtxCreate(CUgreenCtx_st** context, CUdevResourceDesc_st* description, int device,
                               unsigned flags) {
  BEGIN_WITHOUT_CONTEXT;
  if (state().sms.count(description) == 0) die(__func__, "an unknown description");
  if (device != 0 || flags != mmedge::cuda::kGreenDefaultStream) return kBadValue;
  *context = static_cast<CUgreenCtx_st*>(make("green context"));
  state().sms[*context] = state().sms[description];
  return 0;
}
CUDA_CALL int cuGreenCtxDestroy(CUgreenCtx_st* context) {
  BEGIN_WITHOUT_CONTEXT;
  for (const auto& [stream, green] : state().green)
    if (green == context && state().fail_at < 0)  // a stream that could not be destroyed leaks
      die(__func__, "while a stream of it is there");
  take(__func__, context, "green context");
  state().sms.erase(context);
  return 0;
}
CUDA_CALL int cuGreenCtxStreamCreate(CUstream_st** stream, CUgreenCtx_st* context, unsigned flags, int) {
  BEGIN_WITHOUT_CONTEXT;
  need(__func__, context, "green context");
  if (flags != mmedge::cuda::kNonBlocking) return kBadValue;
  *stream = static_cast<CUstream_st*>(make("stream"));
  state().green[*stream] = context, state().sms[*stream] = state().sms[context];
  return 0;
}
