"""The command of hf_ta_cleaner/commands/backdoor.py, to run from a checkout."""

from hf_ta_cleaner.commands.backdoor import main


if __name__ == "__main__":
    main()
