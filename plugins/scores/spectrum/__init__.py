"""The score of the Spectrum Pruning Unit (SPU): what an ideal low-pass leaves of each visual token."""
