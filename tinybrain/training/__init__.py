"""How the model that ships is made: corpus, tokenizer, training, evaluation, package.

`python -m tinybrain.training` runs it; docs/training.md says in which order. The service imports
nothing of this. All but tokens.py and what builds on it works without torch.
"""
