"""From a conversation and its pictures to arrays: messages, chat template, layout, pixels, positions."""
