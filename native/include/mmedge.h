/* mmedge.h: attach to a running pipeline from C, C++ or any language that calls C.
 *
 * A pipeline that runs with `mmedge run BUNDLE ... --attach PATH`, or Pipeline(..., attach=PATH), listens on
 * a unix socket. A client gets its results, and the pictures they were made from, out of shared memory, and
 * pushes data of its own sensors into inputs that are fed by push://. A client that reads slowly loses its
 * own oldest results; one that dies is forgotten. Neither holds the pipeline up.
 *
 * All times are nanoseconds on CLOCK_MONOTONIC. Strings are UTF-8 and end with NUL. A client belongs to one
 * thread at a time. Nothing is printed, no signal is caught, no thread is started.
 *
 * Functions are only ever added, and fields only where `reserved` is, so that a program that was built before
 * goes on: MMEDGE_ABI counts the breaks of this rule. */
#ifndef MMEDGE_H
#define MMEDGE_H

#include <stddef.h>
#include <stdint.h>

#define MMEDGE_ABI 1

#if defined(_WIN32)
#error "mmedge runs on Linux"
#endif
#define MMEDGE_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* What every function that can fail returns. mmedge_error has the words. */
typedef enum mmedge_status {
  MMEDGE_OK = 0,
  MMEDGE_TIMEOUT = 1, /* nothing came in time */
  MMEDGE_ENDED = 2,   /* the run has ended as it should: no more results come, nothing is taken */
  MMEDGE_GONE = 3,    /* the picture was overwritten: it lives for a moment, copy it as its result arrives */
  MMEDGE_ABSENT = 4,  /* the result has no such task, or no picture of that input */
  MMEDGE_FULL = 5,    /* the pipeline is behind: try again, or leave this one out */
  MMEDGE_REFUSED = 6, /* the pipeline refused what was pushed before; this one was pushed */
  MMEDGE_INVALID = 7, /* an argument that cannot be */
  MMEDGE_FAILED = 8   /* no pipeline there, another version, not permitted, damaged, out of memory; the run
                         failed or died */
} mmedge_status;

typedef struct mmedge_client mmedge_client;
typedef struct mmedge_result mmedge_result;

/* One interpreted task. Strings are the result's. */
typedef struct mmedge_task {
  const char* label; /* NULL where it abstains, is undefined, or tells a number */
  double score;      /* NaN where there is none */
  double value;      /* of a task that tells a number, else NaN */
  uint64_t reserved[4];
} mmedge_task;

/* One picture, where it lies. `data` holds `bytes` bytes in `format`: the planes one after another, rows
 * without padding, as the camera or the file gave them. */
typedef struct mmedge_frame {
  const uint8_t* data;
  size_t bytes;
  const char* format; /* gray8, bgr24, rgb24, yuv420p, nv12, yuv422p, yuv444p, yuyv422, p010le, yuv420p10le */
  uint32_t width;
  uint32_t height;
  int64_t capture_ns;
  int64_t uncertainty_ns; /* capture_ns is right within this */
  uint32_t rotation;      /* degrees clockwise that turn it upright: 0, 90, 180, 270 */
  uint32_t mirrored;      /* 1: flipped left to right after that */
  uint32_t full_range;    /* 1: luma spans 0..255, 0: 16..235 */
  uint32_t pixel_width;   /* shape of one stored pixel: 1 and 1 where they are square */
  uint32_t pixel_height;
  const char* matrix; /* bt601, bt709, ...: what turns luma and chroma into colours */
  uint64_t seq;       /* for mmedge_frame_intact */
  int32_t ring, slot; /* for mmedge_frame_intact */
  uint64_t reserved[4];
} mmedge_frame;

typedef enum mmedge_dtype {
  MMEDGE_UINT8 = 1,
  MMEDGE_INT8 = 2,
  MMEDGE_INT16 = 3,
  MMEDGE_INT32 = 4,
  MMEDGE_INT64 = 5,
  MMEDGE_FLOAT16 = 6,
  MMEDGE_FLOAT32 = 7,
  MMEDGE_FLOAT64 = 8,
  MMEDGE_BOOL = 9
} mmedge_dtype;

/* What is pushed: an image is uint8 [height, width] gray or [height, width, 3] RGB, sound is float32 [n], a
 * tensor as the bundle declares it. Rows without padding. */
typedef struct mmedge_array {
  const void* data;
  mmedge_dtype dtype;
  uint32_t ndim; /* 1 to 8 */
  uint64_t shape[8];
} mmedge_array;

/* MMEDGE_ABI of the library that runs. */
MMEDGE_API int mmedge_abi(void);
/* Now, on the clock of all times. */
MMEDGE_API int64_t mmedge_now_ns(void);

/* Attaches to the pipeline that listens on `path`; *client is set where it returns MMEDGE_OK. Waits at most 5
 * s. */
MMEDGE_API mmedge_status mmedge_attach(const char* path, mmedge_client** client);
/* Leaves the pipeline and frees everything of this client, its results too. NULL is allowed. */
MMEDGE_API void mmedge_detach(mmedge_client* client);
/* Words for the last status that was not MMEDGE_OK: of a client, or of this thread's mmedge_attach where it
 * is NULL. Valid until the next call. */
MMEDGE_API const char* mmedge_error(const mmedge_client* client);
/* A descriptor that is readable when mmedge_next may have something, for poll() and the like; it stays the
 * client's. */
MMEDGE_API int mmedge_fd(const mmedge_client* client);
/* Results that this client has lost because it read too slowly. */
MMEDGE_API uint64_t mmedge_dropped(const mmedge_client* client);

/* Waits for the next result, `timeout_ms` at most; negative waits for ever, 0 not at all. A signal does not
 * end the wait: whose handler only sets a flag gives a timeout. Of 64 that wait the oldest is lost when
 * another comes. *result is yours until mmedge_release; hold a few at most: those you hold are not written
 * again, and who holds all 64 is told so, MMEDGE_INVALID. */
MMEDGE_API mmedge_status mmedge_next(mmedge_client* client, int64_t timeout_ms, mmedge_result** result);
MMEDGE_API void mmedge_release(mmedge_client* client, mmedge_result* result);

MMEDGE_API int64_t mmedge_result_t_ns(const mmedge_result* result);
/* The same instant on the wall clock, in nanoseconds since 1970. */
MMEDGE_API int64_t mmedge_result_unix_ns(const mmedge_result* result);
/* 1: "ok", 0: "unvalidated": inputs were missing in a way that nobody measured. */
MMEDGE_API int mmedge_result_ok(const mmedge_result* result);
/* The whole result as one line of JSON, schema mmedge.result/1. `size` may be NULL. */
MMEDGE_API const char* mmedge_result_json(const mmedge_result* result, size_t* size);
MMEDGE_API mmedge_status mmedge_result_task(const mmedge_result* result, const char* name, mmedge_task* task);
/* Where the picture lies that an input's seat was given: no copy. It may be overwritten after a moment (a few
 * tenths of a second): use it at once and ask mmedge_frame_intact afterwards, or use mmedge_frame_copy.
 * MMEDGE_GONE where it is overwritten already. */
MMEDGE_API mmedge_status mmedge_result_frame(const mmedge_result* result, const char* input,
                                             mmedge_frame* frame);
/* 1 if the picture is still whole: all that was read of it before this call is right. */
MMEDGE_API int mmedge_frame_intact(const mmedge_client* client, const mmedge_frame* frame);
/* Copies frame->bytes bytes to `out`, which holds `size`; MMEDGE_GONE if it was overwritten, also meanwhile.
 */
MMEDGE_API mmedge_status mmedge_frame_copy(mmedge_client* client, const mmedge_frame* frame, void* out,
                                           size_t size);

/* Pushes data that was sensed at `capture_ns` (of sound: the instant after the last sample) into an input
 * that is fed by push://. It is copied. The pipeline checks it later: what it refuses is told by the next
 * push, MMEDGE_REFUSED. */
MMEDGE_API mmedge_status mmedge_push(mmedge_client* client, const char* input, const mmedge_array* array,
                                     int64_t capture_ns);
/* The same for a text input, up to 64 KiB of UTF-8; "" takes the text back. */
MMEDGE_API mmedge_status mmedge_push_text(mmedge_client* client, const char* input, const char* text,
                                          int64_t capture_ns);

#ifdef __cplusplus
}
#endif
#endif
