"""What copies of stages and methods are called in studies. No PyTorch here."""


def copy_name(name: str, of: str | int) -> str:
    """``rerg-adam``, of a method or variant for a solver or seed.

    The hyphen keeps it apart from configured names, as the dot does in names of further seeds.
    """
    return f"{name}-{of}"


def copy_of(copy: str) -> tuple[str, str]:
    """The two parts that `copy_name` made a name of."""
    name, _, of = copy.rpartition("-")
    return name, of
