// 3x3 convolutions, compiled once for each instruction set; the best one that the processor has is chosen at run time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <omp.h>

#include "layer.h"
#include "workspace.h"

namespace nst {

// Each inclusion of convolution.inc defines the same functions in a namespace of its own, for vectors of LANES floats
// and products of BLOCK_ROWS rows at once, which together fill the registers of the instruction set.

namespace portable {
#define LANES 4
#define BLOCK_ROWS 6
#include "convolution.inc"
} // namespace portable

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAS_AVX 1

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define LANES 8
#define BLOCK_ROWS 6
#include "convolution.inc"
} // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,fma,prefer-vector-width=512")
namespace avx512 {
#define LANES 16
#define BLOCK_ROWS 12
#include "convolution.inc"
} // namespace avx512
#pragma GCC pop_options
#endif

struct InstructionSet {
    const char *name;
    decltype(&portable::winograd_forward) winograd_forward, direct_forward;
    decltype(&portable::winograd_backward) winograd_backward, direct_backward;
};

#define INSTRUCTION_SET(name)                                                                                          \
    InstructionSet {                                                                                                   \
        #name, name::winograd_forward, name::direct_forward, name::winograd_backward, name::direct_backward            \
    }

// Returns the best instruction set of this processor.
inline InstructionSet best_instruction_set() {
#ifdef HAS_AVX
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return INSTRUCTION_SET(avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return INSTRUCTION_SET(avx2);
#endif
    return INSTRUCTION_SET(portable);
}

// Returns the instruction set to use: the best one, or the one that -DNST_INSTRUCTION_SET=... fixes for a test.
inline const InstructionSet &instruction_set() {
#ifdef NST_INSTRUCTION_SET
#define EXPANDED(name) INSTRUCTION_SET(name)
    static const InstructionSet chosen = EXPANDED(NST_INSTRUCTION_SET);
#undef EXPANDED
#else
    static const InstructionSet chosen = best_instruction_set();
#endif
    return chosen;
}

#undef INSTRUCTION_SET

} // namespace nst
