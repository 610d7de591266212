"""The command of hf_ta_cleaner/commands/craft.py, to run from a checkout."""

from hf_ta_cleaner.commands.craft import main


if __name__ == "__main__":
    main()
