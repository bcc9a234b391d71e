// Test aid, a stand-in for libnvinfer.so.11: adds the entry points that the Python bindings of
// TensorRT need and the lean runtime lacks, so that the real plugin registry works without the
// builder library and without a GPU. Builder and parser come back null: never use them.
extern "C" {
void* getPluginRegistry() noexcept;

void* createInferBuilder_INTERNAL(void*, int) noexcept { return nullptr; }
void* getBuilderPluginRegistry(int) noexcept { return getPluginRegistry(); }
void* createNvOnnxParser_INTERNAL(void*, void*, int) noexcept { return nullptr; }
void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int) noexcept { return nullptr; }
int getNvOnnxParserVersion() noexcept { return 0; }
bool initLibNvInferPlugins(void*, char const*) noexcept { return true; }
}
