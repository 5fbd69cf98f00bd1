"""Who answers: rules, the model's own doubt, and the cascade that acts on them."""
