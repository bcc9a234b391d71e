#include "compiler.h"

#include <dlfcn.h>

#include <cstring>
#include <stdexcept>

#include "sources.h"  // generated: KERNEL_SOURCES

namespace luvc {
namespace {

// A shared library opened by the first of `names` that is found.
class Library {
 public:
    Library(std::vector<char const*> const& names, char const* mend) {
        for (char const* name : names)
            if ((mHandle = dlopen(name, RTLD_NOW | RTLD_LOCAL))) return;
        throw std::runtime_error(std::string("cannot open ") + names.front() + ": " + mend);
    }

    template <typename Function>
    void find(Function& function, char const* symbol) const {
        function = reinterpret_cast<Function>(dlsym(mHandle, symbol));
        if (!function) throw std::runtime_error(std::string("no symbol ") + symbol);
    }

 private:
    void* mHandle = nullptr;
};

// The few functions of NVRTC used here; a status of 0 is success.
struct Nvrtc {
    int (*create)(void**, char const*, char const*, int, char const* const*, char const* const*);
    int (*compile)(void*, int, char const* const*);
    int (*destroy)(void**);
    int (*ptxSize)(void*, size_t*);
    int (*ptx)(void*, char*);
    int (*logSize)(void*, size_t*);
    int (*log)(void*, char*);

    Nvrtc() {
        Library const library({"libnvrtc.so.13", "libnvrtc.so"},
                              "put the CUDA 13.0 runtime compiler on LD_LIBRARY_PATH "
                              "(pip install 'nvidia-cuda-nvrtc==13.0.*' brings it)");
        library.find(create, "nvrtcCreateProgram");
        library.find(compile, "nvrtcCompileProgram");
        library.find(destroy, "nvrtcDestroyProgram");
        library.find(ptxSize, "nvrtcGetPTXSize");
        library.find(ptx, "nvrtcGetPTX");
        library.find(logSize, "nvrtcGetProgramLogSize");
        library.find(log, "nvrtcGetProgramLog");
    }

    std::string text(void* program, int (*size)(void*, size_t*), int (*read)(void*, char*)) const {
        size_t bytes = 0;
        if (size(program, &bytes) || bytes == 0) return "";
        std::string result(bytes, '\0');
        read(program, result.data());
        result.resize(std::strlen(result.c_str()));
        return result;
    }
};

// The same for the CUDA driver.
struct Driver {
    int (*load)(void**, void const*);
    int (*unload)(void*);
    int (*function)(void**, void*, char const*);
    int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                  void*, void**, void**);
    int (*errorName)(int, char const**);

    Driver() {
        Library const library({"libcuda.so.1"}, "this machine has no NVIDIA driver");
        library.find(load, "cuModuleLoadData");
        library.find(unload, "cuModuleUnload");
        library.find(function, "cuModuleGetFunction");
        library.find(launch, "cuLaunchKernel");
        library.find(errorName, "cuGetErrorName");
    }

    void check(int status, char const* what) const {
        char const* name = nullptr;
        if (status == 0) return;
        errorName(status, &name);
        throw std::runtime_error(std::string(what) + ": " + (name ? name : "unknown CUDA error"));
    }
};

Nvrtc const& nvrtc() {
    static Nvrtc const loaded;
    return loaded;
}

Driver const& driver() {
    static Driver const loaded;
    return loaded;
}

char const* sourceText(std::string const& name) {
    for (auto const& source : KERNEL_SOURCES)
        if (name == source.name) return source.text;
    throw std::runtime_error("no kernel source " + name);
}

}  // namespace

std::string compilePtx(Launch const& launch) {
    std::vector<char const*> names, headers;
    for (auto const& source : KERNEL_SOURCES)
        if (std::string(source.name).rfind(".cuh") != std::string::npos) {
            names.push_back(source.name);
            headers.push_back(source.text);
        }
    void* program = nullptr;
    if (nvrtc().create(&program, sourceText(launch.source), launch.source.c_str(),
                       static_cast<int>(names.size()), headers.data(), names.data()))
        throw std::runtime_error("nvrtcCreateProgram failed for " + launch.source);
    auto const options = launch.options();
    std::vector<char const*> arguments;
    for (auto const& option : options) arguments.push_back(option.c_str());
    int const status =
        nvrtc().compile(program, static_cast<int>(arguments.size()), arguments.data());
    std::string const text = status ? nvrtc().text(program, nvrtc().logSize, nvrtc().log)
                                    : nvrtc().text(program, nvrtc().ptxSize, nvrtc().ptx);
    nvrtc().destroy(&program);
    if (status) throw std::runtime_error(launch.source + " does not compile:\n" + text);
    return text;
}

Kernel::Kernel(std::string const& ptx, std::string const& entry) {
    driver().check(driver().load(&mModule, ptx.c_str()), "loading the PTX");
    int const status = driver().function(&mFunction, mModule, entry.c_str());
    if (status) driver().unload(mModule);
    driver().check(status, "finding the kernel in the PTX");
}

Kernel::~Kernel() { driver().unload(mModule); }

void Kernel::launch(unsigned const (&grid)[3], unsigned threads, void* stream,
                    void** arguments) const {
    driver().check(driver().launch(mFunction, grid[0], grid[1], grid[2], threads, 1, 1, 0, stream,
                                   arguments, nullptr),
                   "launching the kernel");
}

}  // namespace luvc
