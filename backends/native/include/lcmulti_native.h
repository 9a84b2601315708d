/* lcmulti's native kernels: locally connected layers on the CPU, in plain C.
 *
 *     y[n, o, f] = sum over t, c of x[n, o*stride + t*dilation - pad, c] * kernel[o, t, c, f]
 *
 * The three maps of the operation and of its derivatives. Nothing here knows a framework: whoever
 * has the addresses of three buffers can call it, from any thread.
 */
#ifndef LCMULTI_NATIVE_H
#define LCMULTI_NATIVE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define LCMULTI_API __declspec(dllexport)
#else
#define LCMULTI_API __attribute__((visibility("default")))
#endif

#define LCMULTI_MAX_AXES 6

enum lcmulti_dtype { LCMULTI_FLOAT32, LCMULTI_FLOAT64, LCMULTI_BFLOAT16, LCMULTI_FLOAT16 };
enum lcmulti_map { LCMULTI_FORWARD, LCMULTI_INPUT_GRAD, LCMULTI_KERNEL_GRAD };
enum lcmulti_status { LCMULTI_OK, LCMULTI_INVALID, LCMULTI_TOO_LARGE, LCMULTI_NO_MEMORY };

/* One call's geometry. Every field is an int64, so that the struct is an array of them to
 * whoever has no C structs. Fields of axes beyond `axes` are ignored. */
typedef struct lcmulti_geometry {
  int64_t dtype; /* enum lcmulti_dtype, of all three arrays; half types are summed in float32 */
  int64_t threads; /* at most so many; 0: as many as lcmulti_threads() says */
  int64_t axes;    /* spatial axes, 1 to LCMULTI_MAX_AXES */
  int64_t batch, channels, filters, groups;
  int64_t input[LCMULTI_MAX_AXES], output[LCMULTI_MAX_AXES], kernel[LCMULTI_MAX_AXES];
  int64_t stride[LCMULTI_MAX_AXES], dilation[LCMULTI_MAX_AXES];
  int64_t pad[LCMULTI_MAX_AXES];    /* zeros before the first element */
  int64_t shared[LCMULTI_MAX_AXES]; /* 1: one kernel for all positions along this axis */
  /* Distance in elements between neighbours of x or its gradient, and of y or its gradient: along
   * the batch, the channels (filters), then each axis. No two elements of what is written may be one.
   * The kernel and its gradient are contiguous: (*output or 1, *kernel, channels / groups, filters). */
  int64_t x_step[LCMULTI_MAX_AXES + 2], dy_step[LCMULTI_MAX_AXES + 2];
} lcmulti_geometry;

/* a, b and result: x, kernel, y; or dy, kernel, dx; or x, dy, dkernel. Addresses are multiples
 * of the element size. The result's old content is not read. Blocks until done. */
LCMULTI_API int lcmulti_compute(const lcmulti_geometry *geometry, int map, const void *a,
                                const void *b, void *result);

/* Calls work(data) once on each of so many threads, the caller's among them, and returns when all have
 * returned: the signature of GOMP_parallel in OpenMP runtimes of GNU's interface (the last is 0). */
typedef void (*lcmulti_parallel)(void (*work)(void *), void *data, unsigned threads, unsigned flags);

/* The same on threads of the caller's: a framework's, which it keeps awake for its own next operation
 * on the processors that the pool's would run on. Not used in a process that was forked after the
 * library was loaded. */
LCMULTI_API int lcmulti_compute_on(lcmulti_parallel parallel, const lcmulti_geometry *geometry, int map,
                                   const void *a, const void *b, void *result);

/* Cosines of filters that are neighbours on a sheet, for two spatial axes. The call is an array of int64:
 *     map, dtype (of all arrays; float32 or float64), threads (as in lcmulti_geometry),
 *     rows, columns, weights of a filter, filters, number of links;
 * then, for each link, which stands for pairs of filters,
 *     the rows and the columns of the first filters' positions, each from and to (exclusive),
 *     the rows down and the columns right from there to the second filters' positions,
 *     the first of the first filters, how much further the second ones are, the number of pairs at a position,
 *     and for each of these the weight of its cosine, as the bits of a double.
 * A kernel is (rows, columns, weights, filters), a bias (rows, columns, filters). With LCMULTI_COSINE_SUMS, a and b
 * are the kernel and the bias, and the result is (4, rows, columns, filters): two factors of each filter's gradient
 * (equal), the part of it along the filter, and half of what it adds to the weighted sum of all cosines, doubled.
 * With LCMULTI_COSINE_SLOPES, a is the kernel, or the bias as a kernel of one weight. b is the first three of
 * these, the first and the third one multiplied by the gradient of the weighted sum. The result is the gradient in a. */
enum lcmulti_cosine_map { LCMULTI_COSINE_SUMS, LCMULTI_COSINE_SLOPES };
LCMULTI_API int lcmulti_cosines(lcmulti_parallel parallel, const int64_t *call, int64_t length, const void *a,
                                const void *b, void *result);

/* Bytes the call holds beyond its arrays, on all its threads together; negative: a status. */
LCMULTI_API int64_t lcmulti_workspace(const lcmulti_geometry *geometry, int map);

/* Threads of the pool: OMP_NUM_THREADS, or the processors this process may run on. */
LCMULTI_API int64_t lcmulti_threads(void);

/* Instruction set chosen on this processor: "amx", "avx512bf16", "avx512", "avx2", "neon" or "plain".
 * The first two are for bfloat16 alone, the other types take "avx512" then. The environment variable
 * LCMULTI_NATIVE_ISA, read once, asks for a lesser one. */
LCMULTI_API const char *lcmulti_isa(void);

LCMULTI_API const char *lcmulti_status_text(int status);

/* sizeof(lcmulti_geometry), for whoever declares the struct in another language. */
LCMULTI_API int64_t lcmulti_geometry_size(void);

#ifdef __cplusplus
}
#endif
#endif
