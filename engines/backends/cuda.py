"""placeholder"""


class Cuda:
    arch = "sm90"
