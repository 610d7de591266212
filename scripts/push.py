"""The command of hf_ta_cleaner/commands/push.py, to run from a checkout."""

from hf_ta_cleaner.commands.push import main


if __name__ == "__main__":
    main()
