"""The command of hf_ta_cleaner/commands/audit.py, to run from a checkout."""

from hf_ta_cleaner.commands.audit import main


if __name__ == "__main__":
    main()
