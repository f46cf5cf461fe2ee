"""How the layers of the chapter `gradients` are called."""
