from hf_ta_cleaner.commands import main


main()
