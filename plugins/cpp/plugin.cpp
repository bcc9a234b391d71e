#include "plugin.h"

#include <stdexcept>

namespace luvc {
namespace {

using namespace nvinfer1;

// Runs `action`; an exception becomes a message in TensorRT's log and the status it understands.
template <typename Action>
int32_t guarded(char const* name, Action action) noexcept {
    try {
        action();
        return 0;
    } catch (std::exception const& error) {
        logError(std::string("luvc::") + name + ": " + error.what());
        return -1;
    }
}

std::string identity(Launch const& launch) {
    std::string text = launch.source;
    for (auto const& option : launch.options()) text += " " + option;
    return text;
}

}  // namespace

Plugin::Plugin(Operator const& op, Attributes attributes, Compiled compiled)
    : mOperator(op), mAttributes(std::move(attributes)), mCompiled(std::move(compiled)) {}

IPluginCapability* Plugin::getCapabilityInterface(PluginCapabilityType type) noexcept {
    switch (type) {
        case PluginCapabilityType::kCORE:
            return static_cast<IPluginV3OneCore*>(this);
        case PluginCapabilityType::kBUILD:
            return static_cast<IPluginV3OneBuild*>(this);
        case PluginCapabilityType::kRUNTIME:
            return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

IPluginV3* Plugin::clone() noexcept {
    Plugin* copy = nullptr;
    guarded(mOperator.name, [&] {
        copy = new Plugin(mOperator, mAttributes, mCompiled);
        copy->mCall = mCall;
        copy->mKernel = mKernel;
    });
    return copy;
}

char const* Plugin::getPluginName() const noexcept { return mOperator.name; }
char const* Plugin::getPluginVersion() const noexcept { return "1"; }
char const* Plugin::getPluginNamespace() const noexcept { return "luvc"; }

int32_t Plugin::getNbOutputs() const noexcept {
    return static_cast<int32_t>(mOperator.outputs.size());
}

int32_t Plugin::getOutputDataTypes(DataType* outputTypes, int32_t nbOutputs,
                                   DataType const* inputTypes, int32_t nbInputs) const noexcept {
    return guarded(mOperator.name, [&] {
        for (int32_t i = 0; i < nbInputs; i++)
            if (!mOperator.accepts(inputTypes[i], inputTypes[0], i))
                throw std::invalid_argument("input " + std::to_string(i) +
                                            " has an element type the operator does not take.");
        for (int32_t i = 0; i < nbOutputs; i++)
            outputTypes[i] = mOperator.outputs[i] == Kind::LIKE_FIRST ? inputTypes[0]
                             : mOperator.outputs[i] == Kind::FLOAT32  ? DataType::kFLOAT
                                                                      : DataType::kINT64;
    });
}

int32_t Plugin::getOutputShapes(DimsExprs const* inputs, int32_t nbInputs, DimsExprs const*,
                                int32_t, DimsExprs* outputs, int32_t,
                                IExprBuilder& builder) noexcept {
    return guarded(mOperator.name, [&] {
        for (int32_t i = 0; i < nbInputs; i++)
            if (inputs[i].nbDims != mOperator.ranks[i])
                throw std::invalid_argument("input " + std::to_string(i) + " has " +
                                            std::to_string(inputs[i].nbDims) + " axes, not " +
                                            std::to_string(mOperator.ranks[i]) + ".");
        mOperator.shapes(inputs, outputs, builder, mAttributes);
    });
}

bool Plugin::supportsFormatCombination(int32_t pos, DynamicPluginTensorDesc const* inOut, int32_t,
                                       int32_t) noexcept {
    return inOut[pos].desc.format == TensorFormat::kLINEAR &&
           mOperator.accepts(inOut[pos].desc.type, inOut[0].desc.type, pos);
}

int32_t Plugin::configurePlugin(DynamicPluginTensorDesc const* in, int32_t nbInputs,
                                DynamicPluginTensorDesc const*, int32_t) noexcept {
    return guarded(mOperator.name, [&] {
        // The compiled kernel depends on sizes fixed at build time only, so any profile will do.
        std::vector<PluginTensorDesc> descs;
        for (int32_t i = 0; i < nbInputs; i++) {
            descs.push_back(in[i].desc);
            descs.back().dims = in[i].max;
        }
        compile(mOperator.call(descs.data(), mAttributes).launch);
    });
}

int32_t Plugin::onShapeChange(PluginTensorDesc const* in, int32_t, PluginTensorDesc const*,
                              int32_t) noexcept {
    return guarded(mOperator.name, [&] {
        mCall = mOperator.call(in, mAttributes);
        compile(mCall.launch);
        if (!mKernel) mKernel = std::make_shared<Kernel>(mCompiled.ptx, mCall.launch.entry);
    });
}

int32_t Plugin::enqueue(PluginTensorDesc const*, PluginTensorDesc const*, void const* const* inputs,
                        void* const* outputs, void*, cudaStream_t stream) noexcept {
    return guarded(mOperator.name, [&] {
        std::vector<void*> arguments;
        for (size_t i = 0; i < mOperator.inputs.size(); i++)
            arguments.push_back(const_cast<void const**>(&inputs[i]));
        for (auto& scalar : mCall.scalars) arguments.push_back(&scalar);
        for (size_t i = 0; i < mOperator.outputs.size(); i++)
            arguments.push_back(const_cast<void**>(&outputs[i]));
        mKernel->launch(mCall.grid, mCall.launch.threads, stream, arguments.data());
    });
}

IPluginV3* Plugin::attachToContext(IPluginResourceContext*) noexcept { return clone(); }

PluginFieldCollection const* Plugin::getFieldsToSerialize() noexcept {
    mFields.clear();
    for (size_t i = 0; i < mAttributes.size(); i++)
        mFields.emplace_back(mOperator.attributes[i], &mAttributes[i], PluginFieldType::kINT64, 1);
    for (auto const& [name, text] :
         {std::pair<char const*, std::string const*>{"source", &mCompiled.source},
          {"ptx", &mCompiled.ptx}})
        mFields.emplace_back(name, text->data(), PluginFieldType::kCHAR,
                             static_cast<int32_t>(text->size()));
    mSerialized = {static_cast<int32_t>(mFields.size()), mFields.data()};
    return &mSerialized;
}

void Plugin::compile(Launch const& launch) {
    std::string const wanted = identity(launch);
    if (mCompiled.source == wanted) return;
    mCompiled = {wanted, compilePtx(launch)};
    mKernel.reset();
}

}  // namespace luvc
