"""The bundled model `r2a-tiny`: its task family (`world`), its tokenizer, its recipe, its weights and its card."""
