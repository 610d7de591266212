"""The command of hf_ta_cleaner/commands/scan.py, to run from a checkout."""

from hf_ta_cleaner.commands.scan import main


if __name__ == "__main__":
    main()
