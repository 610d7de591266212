"""Models in the forms that the field publishes: open_clip's, OpenAI's and CleanCLIP's files, in and back out."""
