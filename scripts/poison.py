"""The command of hf_ta_cleaner/commands/poison.py, to run from a checkout."""

from hf_ta_cleaner.commands.poison import main


if __name__ == "__main__":
    main()
