"""The bundled model `r2a-tiny` and its organisms: their world, tokenizer, recipe, weights, card."""
