"""Teaching: copies of the notebooks to work in, and checks that name a mistake."""
