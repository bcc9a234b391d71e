// PTX from the embedded kernel sources, and its launch. NVRTC and the CUDA driver are opened when
// first needed: an engine that holds its PTX runs without NVRTC.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace luvc {

// Throws std::runtime_error when NVRTC is missing or the kernel does not compile.
std::string compilePtx(Launch const& launch);

// A kernel loaded into the current CUDA context; unloaded with the object.
class Kernel {
 public:
    // Throws std::runtime_error when the driver is missing or refuses the PTX.
    Kernel(std::string const& ptx, std::string const& entry);
    ~Kernel();
    Kernel(Kernel const&) = delete;
    Kernel& operator=(Kernel const&) = delete;

    // `arguments` points at the kernel's parameters, `stream` is a cudaStream_t.
    void launch(unsigned const (&grid)[3], unsigned threads, void* stream, void** arguments) const;

 private:
    void* mModule = nullptr;
    void* mFunction = nullptr;
};

}  // namespace luvc
