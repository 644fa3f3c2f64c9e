"""The process of the ``etherws`` command: ``python -m etherws``, or the script that an installation makes."""

from etherws import garbage

# Before all the rest is imported.
garbage.begin()

from etherws.cli import main  # noqa: E402

if __name__ == "__main__":
    main(prog_name="etherws")
