"""``python -m mmedge`` is the command line."""

from mmedge.cli import main

main()
