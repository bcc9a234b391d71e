"""The Spectrum Pruning Unit (SPU): score, select and gather visual tokens.

`contract` is the single description; `reference` is the torch definition every other form is held
to; `onnx_function` holds bodies of standard ONNX operators for runtimes without the plugins.
"""
