"""The command of hf_ta_cleaner/commands/subtexts.py, to run from a checkout."""

from hf_ta_cleaner.commands.subtexts import main


if __name__ == "__main__":
    main()
