"""The gate in service: answers are audited, the threshold follows its target, drift is told."""
