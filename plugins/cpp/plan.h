// Which kernel runs a SPU operator and how it is launched: launch.py in C++, held equal by a test.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace luvc {

enum class Element { FLOAT16, BFLOAT16, FLOAT32 };

struct Launch {
    std::string source;  // file name, in some kernels/ folder
    std::string entry;   // name of the kernel in it
    std::vector<std::pair<std::string, int64_t>> macros;
    int threads = 0;
    int64_t sharedBytes = 0;  // static shared memory of a block
    int chunks = 1;           // partial sums C a score writes
    int blocks = 1;           // blocks per batch row beyond the chunks

    std::vector<std::string> options() const;  // for the compiler
};

// A launch with the sizes of one call.
struct Call {
    Launch launch;
    unsigned grid[3];
    std::vector<int32_t> scalars;  // between inputs and outputs among the kernel's parameters
};

// All three throw std::invalid_argument, whose text names the value, the limit and the mend.
Launch scoreLaunch(int64_t tokens, int64_t groups, int64_t channels, int64_t cutoff, int64_t band,
                   Element element);
Launch selectLaunch(int64_t tokens, int64_t groups, int64_t keep);
Launch gatherLaunch(int64_t channels, Element element);

// `chunks` are those of the energies; `rows` survive, positions have `components` axes.
Call scoreCall(Launch const& launch, int64_t batch, int64_t sequence, int64_t channels,
               int64_t cutoff);
Call selectCall(Launch const& launch, int64_t batch, int64_t sequence, int64_t chunks,
                int64_t keep);
Call gatherCall(int64_t channels, Element element, int64_t batch, int64_t sequence, int64_t rows,
                int64_t components);

int64_t itemBytes(Element element);
int64_t unitBytes(int64_t channels, Element element);  // widest word, at most 16, dividing a row

}  // namespace luvc
