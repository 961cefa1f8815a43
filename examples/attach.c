/* Prints the answers of one task of a running pipeline, and how bright the pictures were that led to them.
 *
 *   mmedge run digits.mmedge ... --attach /tmp/digits.sock
 *   attach /tmp/digits.sock digit image 100
 */
#include <inttypes.h>
#include <math.h>
#include <mmedge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The mean of what a picture's first plane holds: luma, or all colours. */
static double brightness(const mmedge_frame* frame) {
  const int colours = strcmp(frame->format, "rgb24") == 0 || strcmp(frame->format, "bgr24") == 0;
  const size_t n = (size_t)frame->width * frame->height * (colours ? 3 : 1);
  uint64_t sum = 0;
  for (size_t i = 0; i < n; ++i) sum += frame->data[i];
  return (double)sum / (double)n;
}

static void print_task(const mmedge_result* result, const char* name) {
  mmedge_task task;
  if (mmedge_result_task(result, name, &task) != MMEDGE_OK) {
    printf(" no task %s", name);
  } else if (!isnan(task.value)) {
    printf(" %s %g", name, task.value);
  } else {
    printf(" %s %s", name, task.label != NULL ? task.label : "?");
    if (!isnan(task.score)) printf(" %.3f", task.score);
  }
}

/* The picture is looked at where it lies: what was seen counts only if it was still whole afterwards. */
static void print_brightness(mmedge_client* client, const mmedge_result* result, const char* input) {
  mmedge_frame frame;
  const mmedge_status status = mmedge_result_frame(result, input, &frame);
  if (status != MMEDGE_OK) {
    printf(", %s: %s", input, mmedge_error(client));
    return;
  }
  const double seen = brightness(&frame);
  if (mmedge_frame_intact(client, &frame))
    printf(", %s %.1f", input, seen);
  else
    printf(", %s: overwritten meanwhile", input);
}

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    fprintf(stderr, "usage: %s PATH TASK [INPUT] [COUNT]\n", argv[0]);
    return 2;
  }
  long left = argc > 4 ? strtol(argv[4], NULL, 10) : -1; /* below 0: until the run ends */
  mmedge_client* client = NULL;
  if (mmedge_attach(argv[1], &client) != MMEDGE_OK) {
    fprintf(stderr, "%s\n", mmedge_error(NULL));
    return 1;
  }
  mmedge_status status = MMEDGE_OK;
  mmedge_result* result = NULL;
  while (left != 0 && (status = mmedge_next(client, -1, &result)) == MMEDGE_OK) {
    printf("%.3f s", (double)mmedge_result_t_ns(result) / 1e9);
    print_task(result, argv[2]);
    if (argc > 3) print_brightness(client, result, argv[3]);
    printf("\n");
    fflush(stdout);
    mmedge_release(client, result);
    if (left > 0) --left;
  }
  if (status != MMEDGE_OK) fprintf(stderr, "%s\n", mmedge_error(client));
  if (mmedge_dropped(client) > 0) fprintf(stderr, "%" PRIu64 " results were lost\n", mmedge_dropped(client));
  mmedge_detach(client);
  return status == MMEDGE_OK || status == MMEDGE_ENDED ? 0 : 1;
}
