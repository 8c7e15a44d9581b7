"""`python -m muquant_cli`, the same as `muquant`."""

from muquant_cli.group import main

main()
