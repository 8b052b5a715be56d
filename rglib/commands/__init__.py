"""The commands of `rglib`: each a module with ``run``, the arguments of all in one of their own."""

UNUSABLE = 2  # exit status for what cannot be done as asked, as argparse's
