"""The command of hf_ta_cleaner/commands/check_data.py, to run from a checkout."""

from hf_ta_cleaner.commands.check_data import main


if __name__ == "__main__":
    main()
