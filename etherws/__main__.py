"""``python -m etherws`` is the ``etherws`` command."""

from etherws.cli import main

if __name__ == "__main__":
    main(prog_name="etherws")
