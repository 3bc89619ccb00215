"""The bundled model `r2a-tiny`: its world, its tokenizer, its recipe, its weights, its card."""
