"""From what `--dataset` names to the pairs and labelled pictures that are trained and measured on."""
