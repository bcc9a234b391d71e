"""The parts of luvc-report: what a bundle says, its charts, and kept tokens on pictures."""
