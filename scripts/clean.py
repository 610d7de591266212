"""The command of hf_ta_cleaner/commands/clean/, to run from a checkout."""

from hf_ta_cleaner.commands.clean import main


if __name__ == "__main__":
    main()
