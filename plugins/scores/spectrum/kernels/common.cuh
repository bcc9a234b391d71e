// Shared by the kernels: element types and complex numbers. No header is included, so NVRTC alone
// compiles every kernel.
//
// Macros, set by launch.py:
//   ELEMENT        type of the signal: 0 float16, 1 bfloat16, 2 float32
//   EVEN_CHANNELS  1 when the channel count is even, so that two channels load as one word
#pragma once

#define DEVICE static __device__ __forceinline__

typedef long long Index;

constexpr int LOW = 0, HIGH = 1;  // values of BAND

struct alignas(8) Complex {
    float re, im;
};

DEVICE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
DEVICE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
DEVICE Complex operator*(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
DEVICE Complex conjugate(Complex a) { return {a.re, -a.im}; }
DEVICE float squared(Complex a) { return a.re * a.re + a.im * a.im; }

union Word {
    unsigned bits;
    float value;
};

#if ELEMENT == 2
typedef float Element;
DEVICE float to_float(Element value) { return value; }
#else
typedef unsigned short Element;
DEVICE float to_float(Element half) {
#if ELEMENT == 1
    Word word;
    word.bits = static_cast<unsigned>(half) << 16;
    return word.value;
#elif defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
#else
    const bool special = (half & 0x7c00) == 0x7c00;  // infinity or not a number
    Word word;
    word.bits = (half & 0x7fffu) << 13;
    word.value *= special ? 1.f : 5.192296858534828e33f;  // 2^112 moves the exponent bias
    word.bits |= (special ? 0x7f800000u : 0u) | (half & 0x8000u) << 16;
    return word.value;
#endif
}
#endif

// Channels `channel` (even) and `channel + 1` of one row as a complex number, zero past the end.
DEVICE Complex load_pair(const Element* row, int channel, int channels) {
    struct alignas(2 * sizeof(Element)) Pair {
        Element re, im;
    };
    if (channel >= channels) return {0.f, 0.f};
#if EVEN_CHANNELS
    const Pair pair = *reinterpret_cast<const Pair*>(row + channel);
    return {to_float(pair.re), to_float(pair.im)};
#else
    const bool both = channel + 1 < channels;
    return {to_float(row[channel]), both ? to_float(row[channel + 1]) : 0.f};
#endif
}
