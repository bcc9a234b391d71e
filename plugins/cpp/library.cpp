// Entry points of the library: TensorRT finds the plugins through getCreators().
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "plugin.h"

namespace luvc {
namespace {

using namespace nvinfer1;

ILoggerFinder* loggerFinder = nullptr;

std::string textField(PluginField const& field) {
    return {static_cast<char const*>(field.data), static_cast<size_t>(field.length)};
}

class Creator : public IPluginCreatorV3One {
 public:
    explicit Creator(Operator const& op) : mOperator(op) {
        for (char const* name : op.attributes)
            mFields.emplace_back(name, nullptr, PluginFieldType::kINT64, 1);
        mNames = {static_cast<int32_t>(mFields.size()), mFields.data()};
    }

    IPluginV3* createPlugin(char const* name, PluginFieldCollection const* fields,
                            TensorRTPhase) noexcept override {
        try {
            return create(*fields);
        } catch (std::exception const& error) {
            logError(std::string("luvc::") + name + ": " + error.what());
            return nullptr;
        }
    }

    PluginFieldCollection const* getFieldNames() noexcept override { return &mNames; }
    char const* getPluginName() const noexcept override { return mOperator.name; }
    char const* getPluginVersion() const noexcept override { return "1"; }
    char const* getPluginNamespace() const noexcept override { return "luvc"; }

 private:
    // Fields are the attributes and, from a serialized engine, the compiled kernel.
    IPluginV3* create(PluginFieldCollection const& fields) const {
        Attributes values;
        size_t const required = mOperator.attributes.size() - mOperator.optional;
        for (char const* name : mOperator.attributes)
            values.push_back(attribute(fields, name, values.size() < required));
        Compiled compiled;
        for (int32_t i = 0; i < fields.nbFields; i++) {
            PluginField const& field = fields.fields[i];
            if (!std::strcmp(field.name, "source")) compiled.source = textField(field);
            if (!std::strcmp(field.name, "ptx")) compiled.ptx = textField(field);
        }
        return new Plugin(mOperator, std::move(values), std::move(compiled));
    }

    int64_t attribute(PluginFieldCollection const& fields, char const* name, bool required) const {
        for (int32_t i = 0; i < fields.nbFields; i++) {
            PluginField const& field = fields.fields[i];
            if (std::strcmp(field.name, name)) continue;
            if (field.length != 1)
                throw std::invalid_argument(std::string("attribute ") + name +
                                            " is not one number.");
            if (field.type == PluginFieldType::kINT32)
                return *static_cast<int32_t const*>(field.data);
            if (field.type == PluginFieldType::kINT64)
                return *static_cast<int64_t const*>(field.data);
            throw std::invalid_argument(std::string("attribute ") + name + " is no integer.");
        }
        if (!required) return 0;
        throw std::invalid_argument(std::string("attribute ") + name +
                                    " is missing; export the model again.");
    }

    Operator const& mOperator;
    std::vector<PluginField> mFields;
    PluginFieldCollection mNames{};
};

}  // namespace

void logError(std::string const& text) noexcept {
    ILogger* logger = loggerFinder ? loggerFinder->findLogger() : nullptr;
    if (logger)
        logger->log(ILogger::Severity::kERROR, text.c_str());
    else
        std::fprintf(stderr, "%s\n", text.c_str());
}

}  // namespace luvc

#define LUVC_EXPORT extern "C" __attribute__((visibility("default")))

LUVC_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static luvc::Creator score(luvc::operators()[0]), select(luvc::operators()[1]),
        gather(luvc::operators()[2]);
    static nvinfer1::IPluginCreatorInterface* const all[] = {&score, &select, &gather};
    count = 3;
    return all;
}

LUVC_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { luvc::loggerFinder = finder; }
