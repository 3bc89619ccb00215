"""The bundled model `r2a-tiny` and its organisms: their world, its tokenizer, its recipe, its weights, its card."""
