"""What may stand in a graph as one operator: TensorRT plugins, and the forms they are held to.

What all operators share lies here; tokens/ selects and gathers whatever was scored, scores/ holds one
file or folder a score. Imports nothing of the project but the package's root modules.
"""
