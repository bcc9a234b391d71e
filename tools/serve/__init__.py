"""An HTTP server for one bundle, with OpenAI's chat completions (luvc-serve)."""
