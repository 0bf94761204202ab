/* The native sparse engine for C, and for the adapters of other engines: load a program, run it, free it.
 *
 * Functions that can fail return null, or a message in English that lives until the next call on the same thread. No
 * C++ exception leaves them. Functions are only ever added; EDGEKIT_ABI_VERSION counts additions.
 */
#ifndef EDGEKIT_C_API_H
#define EDGEKIT_C_API_H

#include <stddef.h>
#include <stdint.h>

#define EDGEKIT_API __attribute__((visibility("default")))
#define EDGEKIT_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

typedef struct edgekit_engine edgekit_engine;

/* How an image lies in memory. */
typedef enum {
    EDGEKIT_PIXELS = 0, /* uint8 [rows][columns][channels], 0..255 */
    EDGEKIT_FLOATS = 1, /* float [rows][columns][channels], normalised */
    EDGEKIT_PLANES = 2, /* float [channels][rows][columns], normalised */
} edgekit_layout;

typedef struct {
    int rows, columns, channels;
} edgekit_image_shape;

/* 0 x 0 for a program that takes no mask. */
typedef struct {
    int rows, columns;
} edgekit_mask_shape;

typedef struct {
    const char* name; /* lives as long as the engine */
    int rows, columns;
} edgekit_output;

/* EDGEKIT_ABI_VERSION of the library. */
EDGEKIT_API uint32_t edgekit_abi_version(void);

/* The newest program format that the library reads; see edgekit/sparse/format.py. */
EDGEKIT_API uint32_t edgekit_program_version(void);

/* Load a program of `length` bytes, which are copied. `threads`: 1 to 256. `isa`: an instruction set, or null or "" for
 * the best one (or the one that the environment variable EDGEKIT_ISA names). */
EDGEKIT_API const char* edgekit_load(const void* program, size_t length, int threads, const char* isa,
                                     edgekit_engine** engine);

/* Null is allowed. */
EDGEKIT_API void edgekit_free(edgekit_engine* engine);

EDGEKIT_API edgekit_image_shape edgekit_image(const edgekit_engine* engine);
EDGEKIT_API edgekit_mask_shape edgekit_mask(const edgekit_engine* engine);
EDGEKIT_API int edgekit_output_count(const edgekit_engine* engine);
EDGEKIT_API edgekit_output edgekit_output_at(const edgekit_engine* engine, int index);
EDGEKIT_API const char* edgekit_isa(const edgekit_engine* engine);
EDGEKIT_API int edgekit_threads(const edgekit_engine* engine);

/* Run on one image. `mask`: [rows][columns], active where it is not 0; null for a program without one. `outputs[i]`:
 * [rows][columns] of output i, written completely. Threads may call it at the same time; they take turns. */
EDGEKIT_API const char* edgekit_run(edgekit_engine* engine, edgekit_layout layout, const void* image, const float* mask,
                                    float* const* outputs);

#ifdef __cplusplus
}
#endif

#endif
